//! What leaves a workload.

use ringfence_policy::{
    egress::{EgressPolicy, Protocol},
    tenant::{Capture, DnsPolicy, DnsTransport, DnsUpstream, OutboundPolicy},
};

use super::*;

fn good_rule() -> proto::EgressRule {
    proto::EgressRule { name: "stripe".into(), hosts: strings(&["api.stripe.com"]), ..Default::default() }
}

pub(super) fn good_egress() -> proto::Tenant {
    proto::Tenant { egress: Some(proto::TenantEgress { allow: vec![good_rule()], ..Default::default() }), ..good_tenant() }
}

fn egress(tenant: &mut proto::Tenant) -> &mut proto::TenantEgress {
    tenant.egress.as_mut().unwrap()
}

/// What a file's schema refuses before it comes here, and counts; the other faults are those of `tests/data/spec`.
#[test]
fn egress_faults() {
    assert_eq!(faults("acme", &good_egress()), [""; 0]);
    each_fault(
        good_egress,
        &[
            (|t| egress(t).max_connections = 1_000_001, "egress.maxConnections: must be from 1 to 1000000"),
            (
                |t| egress(t).allow = (0..4097).map(|i| proto::EgressRule { name: format!("r{i}"), ..good_rule() }).collect(),
                "egress.allow: must be at most 4096 rules",
            ),
            (|t| egress(t).allow[0].hosts = vec!["a".into(); 1025], "egress.allow[0].hosts: must be at most 1024 entries"),
            (|t| egress(t).allow[0].cidrs = vec!["10.0.0.1".into(); 1025], "egress.allow[0].cidrs: must be at most 1024 entries"),
            (|t| egress(t).allow[0].ports = (1..258).collect(), "egress.allow[0].ports: must be at most 256 ports"),
            (|t| egress(t).allow[0].ports = vec![443, 65_979], "egress.allow[0].ports[1]: must be from 1 to 65535"),
            (|t| egress(t).allow[0].ports = vec![0], "egress.allow[0].ports[0]: must be from 1 to 65535"),
            (
                |t| {
                    egress(t).allow[0].protocol = "http".into();
                    egress(t).allow[0].requests = vec![proto::Match::default(); 257];
                },
                "egress.allow[0].requests: must be at most 256 entries",
            ),
            (
                |t| {
                    egress(t).allow[0].hosts = (0..1024).map(|i| format!("h{i}")).collect();
                    egress(t).allow[0].ports = (1..66).collect();
                },
                "egress.allow: must be at most 65536 hosts and cidrs in all, each counted for every port",
            ),
            (
                |t| {
                    egress(t).allow[0].hosts = vec![format!("{}.example", "ü".repeat(1000))];
                },
                &format!("egress.allow[0].hosts[0]: must be a DNS name or *.<name>, not {:?}… (2008 bytes)", "ü".repeat(64)),
            ),
        ],
    );
    let prefixes = |deny: usize| proto::Platform {
        egress: Some(proto::PlatformEgress {
            deny: Some(proto::Prefixes { cidrs: vec!["10.0.0.0/8".into(); deny] }),
            dangerous_allow_private: Vec::new(),
        }),
        ..Default::default()
    };
    assert_eq!(faults(PLATFORM, &prefixes(1)), [""; 0]);
    assert_eq!(faults(PLATFORM, &prefixes(1025)), ["egress.deny.cidrs: must be at most 1024 entries"]);
}

#[test]
fn a_rule_means_what_it_says() {
    let decoded = |change: Change<proto::Tenant>| {
        let mut body = good_egress();
        change(&mut body);
        let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &body.encode_to_vec()) else { panic!() };
        policy.egress.clone()
    };
    let policy = decoded(|_| {});
    let rule = &policy.rules[0];
    assert_eq!((policy.mode, policy.max_connections, policy.connection_rate), (Mode::Enforce, None, None));
    assert_eq!(
        (rule.protocol, rule.ports.as_slice(), rule.rule.as_str()),
        (Protocol::Tls, &[443][..], "Tenant/acme: egress.allow[stripe]")
    );
    assert_eq!((rule.hosts[0].to_string(), rule.cidrs.len(), rule.requests.len()), ("api.stripe.com".into(), 0, 0));

    let policy = decoded(|t| {
        let egress = egress(t);
        (egress.mode, egress.max_connections, egress.connection_rate) = ("shadow".into(), 7, "5/m".into());
        egress.allow[0].protocol = "http".into();
        egress.allow[0].cidrs = strings(&["192.0.2.1", "2001:db8::/32"]);
        egress.allow[0].requests = vec![proto::Match { methods: strings(&["GET"]), paths: strings(&["/a"]) }];
    });
    let rule = &policy.rules[0];
    assert_eq!((policy.mode, policy.max_connections, policy.connection_rate), (Mode::Shadow, Some(7), "5/m".parse().ok()));
    assert_eq!(
        (rule.protocol, rule.ports.as_slice(), rule.requests[0].methods.as_slice()),
        (Protocol::Http, &[80][..], &strings(&["GET"])[..])
    );
    assert_eq!(rule.cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1/32", "2001:db8::/32"]);

    for (tenant, shared, expected) in [
        ("", false, "Workload/billing of Tenant/acme"),
        ("globex", false, "Workload/billing of Tenant/globex"),
        ("", true, "shared Workload/billing"),
    ] {
        let mut body = good_egress();
        let rule = &mut egress(&mut body).allow[0];
        rule.protocol = "http".into();
        rule.peer = Some(proto::PeerWorkload { tenant: tenant.into(), workload: "billing".into(), shared });
        let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &body.encode_to_vec()) else { panic!() };
        assert_eq!(policy.egress.rules[0].peer.as_ref().unwrap().to_string(), expected);
    }

    let nowhere = proto::Tenant { egress: None, ..good_tenant() };
    let Ok(Decoded::Tenant(policy)) = decode(Kind::Tenant, "acme", &nowhere.encode_to_vec()) else { panic!() };
    assert_eq!(policy.egress, EgressPolicy::default(), "nothing is allowed");
}

#[test]
fn what_leaves_a_workload_goes_where_it_says() {
    let mut body = good_workload();
    body.inbound.clear();
    body.egress = Some(proto::WorkloadEgress { listen: "127.0.0.1:15001".into(), capture: "redirect".into() });
    body.dns = Some(proto::WorkloadDns {
        listen: "[::]:15053".into(),
        upstreams: strings(&["udp://192.0.2.53", "tcp://[2001:db8::53]", "tcp://192.0.2.53:5353"]),
        ..Default::default()
    });
    let Ok(Decoded::Workload(policy)) = decode(Kind::Workload, "job", &body.encode_to_vec()) else { panic!() };
    let outbound = OutboundPolicy { listen: "127.0.0.1:15001".parse().unwrap(), capture: Capture::Redirect };
    assert_eq!((policy.inbound.len(), policy.outbound.as_ref()), (0, Some(&outbound)));
    let upstream = |transport, address: &str| DnsUpstream { transport, address: address.parse().unwrap() };
    let upstreams = vec![
        upstream(DnsTransport::Udp, "192.0.2.53:53"),
        upstream(DnsTransport::Tcp, "[2001:db8::53]:53"),
        upstream(DnsTransport::Tcp, "192.0.2.53:5353"),
    ];
    assert_eq!(policy.dns, Some(DnsPolicy { listen: "[::]:15053".parse().ok(), upstreams, ..Default::default() }));
    for (written, shown) in [
        ("udp://192.0.2.53", "udp://192.0.2.53:53"),
        ("tcp://[2001:db8::53]", "tcp://[2001:db8::53]:53"),
        ("tls://192.0.2.53", "tls://192.0.2.53:853"),
        ("tls://192.0.2.53#DNS.example.", "tls://192.0.2.53:853#dns.example"),
        ("tls://[2001:db8::53]:8853#dns.example", "tls://[2001:db8::53]:8853#dns.example"),
        ("https://192.0.2.53/dns-query", "https://192.0.2.53:443/dns-query"),
        ("https://192.0.2.53:8443/a/b~c%20d@e#dns.example", "https://192.0.2.53:8443/a/b~c%20d@e#dns.example"),
    ] {
        for text in [written, shown] {
            body.dns.as_mut().unwrap().upstreams = strings(&[text]);
            let Ok(Decoded::Workload(policy)) = decode(Kind::Workload, "job", &body.encode_to_vec()) else { panic!("{text}") };
            assert_eq!(policy.dns.as_ref().unwrap().upstreams[0].to_string(), shown);
        }
    }
    body.dns.as_mut().unwrap().upstreams = (1..18).map(|i| format!("udp://192.0.2.{i}")).collect();
    assert_eq!(faults("job", &body), ["dns.upstreams: must be at most 16 upstreams"]);
}

#[test]
fn a_resolver_that_anybody_can_reach_is_refused() {
    let open = "dns.listen: must be a loopback address: whoever reaches it asks as the workload; or write dangerousListenAny: true";
    for (listen, expected) in
        [("127.0.0.1:15053", None), ("[::1]:53", None), ("0.0.0.0:53", Some(open)), ("[::]:15053", Some(open)), ("10.0.0.5:53", Some(open))]
    {
        let dns = proto::WorkloadDns { listen: listen.into(), ..Default::default() };
        let body = proto::Workload { tenant: "acme".into(), dns: Some(dns), ..Default::default() };
        assert_eq!(faults("job", &body), Vec::from_iter(expected), "{listen}");
        let meant = proto::WorkloadDns { dangerous_listen_any: true, ..body.dns.unwrap_or_default() };
        assert_eq!(faults("job", &proto::Workload { dns: Some(meant), ..body }), [""; 0], "{listen}");
    }
}

#[test]
fn a_proxy_that_anybody_can_reach_is_refused() {
    let open = "egress.listen: must be a loopback address: whoever reaches it goes out as the workload";
    for (listen, expected) in [
        ("127.0.0.1:15001", None),
        ("[::1]:15001", None),
        ("0.0.0.0:15001", Some(open)),
        ("[::]:15001", Some(open)),
        ("10.0.0.7:15001", Some(open)),
        ("[::ffff:127.0.0.1]:15001", Some(open)),
    ] {
        let egress = proto::WorkloadEgress { listen: listen.into(), capture: String::new() };
        assert_eq!(faults("job", &proto::Workload { egress: Some(egress), ..good_workload() }), Vec::from_iter(expected), "{listen}");
    }
}

proptest! {
    /// However rules are put together: told in bounded time, or taken.
    #[test]
    fn rules_are_compared_whatever_they_are(rules in prop::collection::vec((0..4usize, 0..5usize, 1..3u32, 0..3usize, any::<bool>()), 0..12)) {
        let mut tenant = good_egress();
        let rule = |(i, (host, prefix, port, protocol, bound)): (usize, (usize, usize, u32, usize, bool))| proto::EgressRule {
            name: format!("r{i}"),
            hosts: strings(&["a.b.example", "*.b.example", "*.example"][host..(host + 1).min(3)]),
            cidrs: if bound || host == 3 { strings(&[["10.0.0.0/8", "10.1.0.0/16", "::/0", "2001:db8::/32", "0.0.0.0/0"][prefix]]) } else { Vec::new() },
            ports: vec![port],
            protocol: ["tls", "http", "tcp"][protocol].into(),
            requests: Vec::new(),
            peer: None,
        };
        egress(&mut tenant).allow = rules.into_iter().enumerate().map(rule).collect();
        for fault in faults("acme", &tenant) {
            prop_assert!(fault.contains("has no effect at port"), "{}", fault);
        }
    }
}
