//! Where a connection may go, when only the last rule lists its host.

use std::{hint::black_box, net::IpAddr};

use ringfence_policy::{
    RuleRef, TenantId,
    egress::{EgressPolicy, EgressRule, PlatformEgress, Protocol, Seen},
    host::Host,
};

use crate::{Case, Run, world::name};

pub(crate) const CASES: &[Case] = &[
    Case { name: "egress/10", prepare: || permit(10) },
    Case { name: "egress/1000", prepare: || permit(1000) },
    Case { name: "egress/100000", prepare: || permit(100_000) },
];

fn permit(rules: usize) -> Run {
    let tenant: TenantId = name(0).parse().expect("a name");
    let rule = |number: usize| EgressRule {
        hosts: vec![format!("api.host-{number}.example.com").parse().expect("a pattern")],
        cidrs: Vec::new(),
        ports: vec![443],
        protocol: Protocol::Tls,
        requests: Vec::new(),
        peer: None,
        rule: RuleRef::new(format!("Tenant/{tenant}: egress.allow[{number}]")),
    };
    let policy = EgressPolicy { rules: (0..rules).map(rule).collect(), ..EgressPolicy::default() };
    let platform = PlatformEgress::default();
    let host: Host = format!("api.host-{}.example.com", rules - 1).parse().expect("a host");
    let addresses: [IpAddr; 2] = ["93.184.215.14", "2606:2800:21f::1"].map(|address| address.parse().expect("an address"));
    Box::new(move || {
        let permit = policy.permit(&host, 443, Seen::Tls, &tenant).expect("the last rule lists it");
        let destinations = permit.destinations(&addresses, &platform, |_| false);
        assert!(black_box(destinations).is_ok_and(|destinations| destinations.len() == 2));
    })
}
