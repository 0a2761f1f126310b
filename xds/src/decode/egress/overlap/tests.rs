//! The policy itself is the oracle: an entry that is told to have no effect can be left out, and nothing is decided otherwise.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use ringfence_policy::{
    TenantId,
    egress::{EgressPolicy, HttpRequest, PlatformEgress, Seen},
    host::Host,
    path::NormalPath,
};

use super::{super::rules, *};

const HOSTS: [&[&str]; 6] =
    [&["a.b.example"], &["*.b.example"], &["*.example"], &["a.b.example", "c.example"], &["c.example", "*.b.example"], &[]];
const CIDRS: [&[&str]; 5] = [&["10.0.0.0/8"], &["10.1.0.0/16"], &["0.0.0.0/0"], &["10.1.0.0/16", "10.2.0.0/16"], &[]];

fn some_rules() -> impl Strategy<Value = Vec<proto::EgressRule>> {
    let one = (0..HOSTS.len(), 0..CIDRS.len(), 1..4u32, 0..3usize, 0..3usize).prop_filter_map(
        "nowhere",
        |(hosts, cidrs, ports, protocol, requests)| {
            let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let get = |path: &str| proto::Match { methods: vec!["GET".into()], paths: vec![path.into()] };
            let body = proto::EgressRule {
                name: String::new(),
                hosts: strings(HOSTS[hosts]),
                cidrs: strings(CIDRS[cidrs]),
                ports: [1, 2].into_iter().filter(|port| ports & port != 0).collect(),
                protocol: ["tls", "http", "tcp"][protocol].into(),
                peer: None,
                requests: if protocol == 1 { [vec![], vec![get("/a")], vec![get("/a"), get("/b")]][requests].clone() } else { Vec::new() },
            };
            (!body.hosts.is_empty() || !body.cidrs.is_empty()).then_some(body)
        },
    );
    prop::collection::vec(one, 2..6).prop_map(|mut rules| {
        rules.iter_mut().enumerate().for_each(|(i, rule)| rule.name = format!("r{i}"));
        rules
    })
}

/// Whether each of some connections is let through.
fn decisions(rules: &[EgressRule]) -> Vec<(String, bool)> {
    let tenant: TenantId = "acme".parse().unwrap();
    let policy = EgressPolicy { rules: rules.to_vec().into(), ..EgressPolicy::default() };
    let open = PlatformEgress { dangerous_allow_private: vec!["0.0.0.0/0".parse().unwrap()], ..PlatformEgress::default() };
    let addresses: [IpAddr; 4] = ["10.1.0.1", "10.2.0.1", "10.3.0.1", "8.8.8.8"].map(|text| text.parse().unwrap());
    let (a, b, c) = (NormalPath::new("/a").unwrap(), NormalPath::new("/b").unwrap(), NormalPath::new("/c").unwrap());
    let http = |path| Seen::Http(HttpRequest { method: "GET", path });
    let mut decided = Vec::new();
    for (port, address) in [1, 2].into_iter().flat_map(|port| addresses.map(|address| (port, address))) {
        let names = ["a.b.example", "x.b.example", "c.example", "d.c.example"].map(|text| text.parse::<Host>().unwrap());
        for host in names.into_iter().chain([Host::Address(address)]) {
            for seen in [Seen::Tls, Seen::Opaque, http(&a), http(&b), http(&c)] {
                let permit = policy.permit(&host, port, seen, &tenant);
                let allowed = permit.is_ok_and(|permit| permit.destinations(&[address], &open, |_: SocketAddr| false).is_ok());
                decided.push((format!("{host}:{port} at {address} {seen:?}"), allowed));
            }
        }
    }
    decided
}

/// `egress.allow[1].hosts[2]: has no effect at port 443: …`.
fn place(fault: &str) -> (usize, bool, usize, u16) {
    let number =
        |text: &str| text.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty()).unwrap().parse::<usize>().unwrap();
    let (path, message) = fault.split_once(": ").unwrap();
    let (rule, entry) = path.rsplit_once('.').unwrap();
    (number(rule), entry.starts_with("hosts"), number(entry), u16::try_from(number(message)).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_told_to_have_no_effect_has_none(bodies in some_rules()) {
        let mut faults = Faults::default();
        let rules = rules("acme", &bodies, &mut faults);
        let before = decisions(&rules);
        for fault in faults.0 {
            let (rule, is_host, entry, port) = place(&fault.to_string());
            // The entry alone, at that port alone.
            let mut rest = rules.clone();
            let mut alone = rest[rule].clone();
            alone.ports.retain(|other| *other != port);
            let list = &mut rest[rule];
            if is_host {
                list.hosts.remove(entry);
                alone.hosts = vec![rules[rule].hosts[entry].clone()];
            } else {
                list.cidrs.remove(entry);
                alone.cidrs = vec![rules[rule].cidrs[entry]];
            }
            // Without hosts a rule would list its prefixes by themselves.
            if list.hosts.is_empty() && (is_host || list.cidrs.is_empty()) {
                list.ports.clear();
            }
            rest.push(alone);
            prop_assert_eq!(&before, &decisions(&rest), "{}", fault);
        }
    }

    /// The other way round: where nothing is told, no rule's limits are undone by another that lists the same.
    #[test]
    fn what_is_limited_stays_so_where_nothing_is_told(bodies in some_rules()) {
        let mut faults = Faults::default();
        let rules = rules("acme", &bodies, &mut faults);
        prop_assume!(faults.0.is_empty());
        for (i, limited) in rules.iter().enumerate().filter(|(_, rule)| !rule.requests.is_empty()) {
            for (_, other) in rules.iter().enumerate().filter(|(j, _)| *j != i) {
                let same_port = limited.ports.iter().any(|port| other.ports.contains(port));
                let same_host = limited.hosts.iter().any(|host| other.hosts.contains(host));
                let unlimited = other.protocol != Protocol::Tls && other.requests.is_empty() && other.cidrs.is_empty();
                prop_assert!(!(same_port && same_host && unlimited), "{:?} {:?}", limited, other);
            }
        }
    }
}
