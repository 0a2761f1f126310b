//! A query through a policy zone: its name refused, and its name and answer let through.

use std::{fmt::Write, hint::black_box, sync::Arc};

use ringfence_policy::{
    ratelimit::Mode,
    rpz::{self, Act, Name, Override, Policy, PolicyZone, Query, Scope, Transport, Verdict, Walk, text},
};

use crate::{Case, Run};

pub(crate) const CASES: &[Case] = &[
    Case { name: "rpz/refused/10000", prepare: || refused(10_000) },
    Case { name: "rpz/refused/100000", prepare: || refused(100_000) },
    Case { name: "rpz/passed/10000", prepare: || passed(10_000) },
    Case { name: "rpz/passed/100000", prepare: || passed(100_000) },
];

/// Every third rule is a wildcard's.
fn policy(rules: usize) -> Policy {
    let mut text = String::from("$TTL 300\n@ IN SOA localhost. root.localhost. 1 3600 600 86400 60\n@ IN NS localhost.\n");
    for number in 0..rules {
        let wildcard = if number % 3 == 2 { "*." } else { "" };
        let _ = writeln!(text, "{wildcard}host-{number}.malware-{}.example CNAME .", number % 977);
    }
    let origin: Name = "rpz.example.".parse().expect("a name");
    let compiled = text::compile(text.as_bytes(), Some(&origin));
    let zone = rpz::Zone::open(compiled.bytes.expect("a zone").into()).expect("as it was compiled");
    let name: Arc<str> = "malware".into();
    Policy::from_iter([PolicyZone { name, zone, scope: Scope::Tenant, r#override: Override::Given, mode: Mode::Enforce, max_ttl: None }])
}

fn query(name: &str) -> Query {
    Query { name: name.parse().expect("a name"), rtype: 1, client: [127, 0, 0, 1].into(), transport: Transport::Udp }
}

fn refused(rules: usize) -> Run {
    let policy = policy(rules);
    let number = rules - rules % 3 - 3;
    let query = query(&format!("host-{number}.malware-{}.example.", number % 977));
    Box::new(move || {
        let mut walk = Walk::new(&policy, query.clone());
        let act = walk.filter_query();
        assert!(matches!(black_box(act), Some(Act::Answer(_))));
    })
}

fn passed(rules: usize) -> Run {
    let policy = policy(rules);
    let query = query("www.host-17.malware-12.example.com.");
    Box::new(move || {
        let mut walk = Walk::new(&policy, query.clone());
        assert!(walk.filter_query().is_none());
        assert!(matches!(black_box(walk.filter_response(0, &[])), Verdict::Pass(None)));
    })
}
