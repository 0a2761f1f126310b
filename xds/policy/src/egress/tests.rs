mod corpus;

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn rule(name: &str, hosts: &[&str], cidrs: &[&str], ports: &[u16], protocol: Protocol) -> EgressRule {
    EgressRule {
        hosts: hosts.iter().map(|text| text.parse().unwrap()).collect(),
        cidrs: cidrs.iter().map(|text| text.parse().unwrap()).collect(),
        ports: ports.to_vec(),
        protocol,
        requests: Vec::new(),
        peer: None,
        rule: RuleRef::new(format!("Tenant/acme: egress.allow[{name}]")),
    }
}

fn request_match(methods: &[&str], paths: &[&str]) -> RequestMatch {
    RequestMatch { methods: methods.iter().map(|m| (*m).into()).collect(), paths: paths.iter().map(|p| p.parse().unwrap()).collect() }
}

fn policy(mode: Mode, rules: Vec<EgressRule>) -> EgressPolicy {
    EgressPolicy { mode, rules: rules.into(), ..EgressPolicy::default() }
}

fn sample() -> Vec<EgressRule> {
    let vault = EgressRule {
        requests: vec![request_match(&["GET"], &["/secret/{tenant}/**"]), request_match(&[], &["/health"])],
        ..rule("vault", &["vault.svc"], &[], &[8200], Protocol::Http)
    };
    vec![
        rule("stripe", &["api.stripe.com", "*.stripe.com"], &[], &[443], Protocol::Tls),
        rule("status", &["status.stripe.com"], &[], &[80], Protocol::Http),
        rule("db", &[], &["10.20.0.0/16"], &[5432], Protocol::Tcp),
        vault,
        rule("mail", &["mail.example"], &["10.30.0.0/16", "192.0.3.0/24"], &[25], Protocol::Tcp),
        rule("any", &[], &["0.0.0.0/0", "::/0"], &[443], Protocol::Tls),
        rule("inner", &["inner.example"], &["0.0.0.0/0", "10.40.0.0/24"], &[443], Protocol::Tls),
    ]
}

fn platform(deny: &[&str], open: &[&str]) -> PlatformEgress {
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    PlatformEgress { deny: prefixes(deny), dangerous_allow_private: prefixes(open) }
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

/// `HTTP METHOD PATH`, or one of the others by name.
fn with_seen<T>(text: &str, decide: impl FnOnce(Seen<'_>) -> T) -> T {
    let mut words = text.split(' ');
    match words.next().unwrap() {
        "nothing" => decide(Seen::Nothing),
        "tls" => decide(Seen::Tls),
        "opaque" => decide(Seen::Opaque),
        _ => {
            let (method, path) = (words.next().unwrap(), NormalPath::new(words.next().unwrap()).unwrap());
            decide(Seen::Http(HttpRequest { method, path: &path }))
        }
    }
}

/// The reason and the rule of a refusal.
fn told(deny: &Deny) -> String {
    match &deny.rule {
        Some(rule) => format!("{} by {}", deny.reason, rule.as_str()),
        None => deny.reason.to_string(),
    }
}

/// Both steps at once: `asked` is `host port seen`.
fn decide(policy: &EgressPolicy, platform: &PlatformEgress, asked: &str, addresses: &[&str]) -> Result<Vec<AllowedDestination>, Deny> {
    let [host, port, seen] = asked.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let own: SocketAddr = "10.20.9.9:5432".parse().unwrap();
    with_seen(seen, |seen| policy.permit(&host.parse().unwrap(), port.parse().unwrap(), seen, &acme()))?.destinations(
        &addresses,
        platform,
        |address| address == own,
    )
}

/// The refusal, or each address with its rule.
fn outcome(decided: &Result<Vec<AllowedDestination>, Deny>) -> String {
    match decided {
        Err(deny) => told(deny),
        Ok(allowed) => {
            let each = |destination: &AllowedDestination| {
                let rule = destination.rule().map_or("shadow", |rule| rule.as_str().trim_start_matches("Tenant/acme: egress.allow"));
                format!("{} {rule}", destination.address())
            };
            allowed.iter().map(each).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Each step of the order refuses by its own reason, and names the rule that came nearest.
#[test]
fn a_refusal_names_its_reason_and_its_rule() {
    let policy = policy(Mode::Enforce, sample());
    for (asked, wanted) in [
        ("example.com 443 tls", "egress_host_not_listed by Tenant/acme: egress.allow"),
        ("stripe.com 443 tls", "egress_host_not_listed by Tenant/acme: egress.allow"),
        ("evilstripe.com 443 tls", "egress_host_not_listed by Tenant/acme: egress.allow"),
        ("api.stripe.com.evil.example 443 tls", "egress_host_not_listed by Tenant/acme: egress.allow"),
        ("api.stripe.com 8443 tls", "egress_port_not_listed by Tenant/acme: egress.allow[stripe]"),
        ("8.8.8.8 25 opaque", "egress_port_not_listed by Tenant/acme: egress.allow[any]"),
        // A rule that binds names to addresses does not list the addresses.
        ("10.30.0.1 25 opaque", "egress_port_not_listed by Tenant/acme: egress.allow[any]"),
        ("api.stripe.com 443 opaque", "egress_protocol_not_allowed by Tenant/acme: egress.allow[stripe]"),
        ("api.stripe.com 443 http GET /", "egress_protocol_not_allowed by Tenant/acme: egress.allow[stripe]"),
        ("status.stripe.com 80 tls", "egress_protocol_not_allowed by Tenant/acme: egress.allow[status]"),
        ("vault.svc 8200 opaque", "egress_protocol_not_allowed by Tenant/acme: egress.allow[vault]"),
        ("vault.svc 8200 http PUT /secret/acme/a", "egress_request_denied by Tenant/acme: egress.allow[vault]"),
        ("vault.svc 8200 http GET /secret/globex/a", "egress_request_denied by Tenant/acme: egress.allow[vault]"),
        ("api.stripe.com 443 tls", "8.8.8.8:443 [stripe]"),
        ("API.Stripe.Com. 443 tls", "8.8.8.8:443 [stripe]"),
        ("a.b.stripe.com 443 tls", "8.8.8.8:443 [stripe]"),
        ("api.stripe.com 443 nothing", "8.8.8.8:443 [stripe]"),
        ("status.stripe.com 80 http POST /a", "8.8.8.8:80 [status]"),
        ("vault.svc 8200 http GET /secret/acme/a", "8.8.8.8:8200 [vault]"),
        ("vault.svc 8200 http PUT /health", "8.8.8.8:8200 [vault]"),
        ("8.8.8.8 443 tls", "8.8.8.8:443 [any]"),
    ] {
        assert_eq!(outcome(&decide(&policy, &PlatformEgress::default(), asked, &["8.8.8.8"])), wanted, "{asked}");
    }
}

#[test]
fn what_is_not_written_is_not_allowed() {
    let none = EgressPolicy::default();
    let decided = decide(&none, &PlatformEgress::default(), "example.com 443 tls", &["8.8.8.8"]);
    assert_eq!(outcome(&decided), "egress_host_not_listed by Tenant/acme: egress.allow");
}

#[test]
fn anything_may_be_spoken_where_the_rule_says_tcp() {
    let policy = policy(Mode::Enforce, vec![rule("any", &["a.example"], &[], &[1], Protocol::Tcp)]);
    for seen in ["nothing", "tls", "opaque", "http GET /"] {
        assert!(decide(&policy, &PlatformEgress::default(), &format!("a.example 1 {seen}"), &["8.8.8.8"]).is_ok(), "{seen}");
    }
}

#[test]
fn the_address_is_judged_whatever_the_name() {
    let forbidden = "egress_address_forbidden";
    let denied = "egress_address_forbidden by Platform/platform: egress.deny.cidrs";
    let none: &[&str] = &[];
    for (asked, addresses, deny, open, wanted) in [
        // A public name that leads to a special address.
        ("api.stripe.com 443 tls", &["127.0.0.1"][..], none, none, forbidden.to_owned()),
        ("api.stripe.com 443 tls", &["169.254.169.254"], none, none, forbidden.into()),
        ("api.stripe.com 443 tls", &["10.20.0.1"], none, none, forbidden.into()),
        ("api.stripe.com 443 tls", &["::ffff:8.8.8.8"], none, none, forbidden.into()),
        ("api.stripe.com 443 tls", &["64:ff9b::8.8.8.8"], none, none, forbidden.into()),
        // What may be dialled of several is, in their order.
        (
            "api.stripe.com 443 tls",
            &["8.8.8.8", "10.0.0.1", "2606:4700::1"],
            none,
            none,
            "8.8.8.8:443 [stripe], [2606:4700::1]:443 [stripe]".into(),
        ),
        ("api.stripe.com 443 tls", &[], none, none, "egress_name_unresolved".into()),
        // An all-private prefix says that it is meant; one that holds everything does not.
        ("10.20.0.1 5432 opaque", &["10.20.0.1"], none, none, "10.20.0.1:5432 [db]".into()),
        ("10.21.0.1 443 tls", &["10.21.0.1"], none, none, forbidden.into()),
        ("127.0.0.1 443 tls", &["127.0.0.1"], none, none, forbidden.into()),
        ("inner.example 443 tls", &["10.40.0.1"], none, none, "10.40.0.1:443 [inner]".into()),
        ("inner.example 443 tls", &["10.40.1.1"], none, none, forbidden.into()),
        // Names that are bound to prefixes.
        ("mail.example 25 opaque", &["10.30.0.1"], none, none, "10.30.0.1:25 [mail]".into()),
        ("mail.example 25 opaque", &["192.0.3.1"], none, none, "192.0.3.1:25 [mail]".into()),
        ("mail.example 25 opaque", &["8.8.8.8"], none, none, format!("{forbidden} by Tenant/acme: egress.allow[mail]")),
        ("mail.example 25 opaque", &["10.31.0.1"], none, none, forbidden.into()),
        // The platform opens what it names, to names too.
        ("api.stripe.com 443 tls", &["127.0.0.1"], none, &["127.0.0.0/8"], "127.0.0.1:443 [stripe]".into()),
        ("127.0.0.1 443 tls", &["127.0.0.1"], none, &["127.0.0.0/8"], "127.0.0.1:443 [any]".into()),
        ("mail.example 25 opaque", &["127.0.0.1"], none, &["127.0.0.0/8"], format!("{forbidden} by Tenant/acme: egress.allow[mail]")),
        ("api.stripe.com 443 tls", &["0.0.0.0"], none, &["0.0.0.0/0"], forbidden.into()),
        ("api.stripe.com 443 tls", &["::"], none, &["::/0"], forbidden.into()),
        // The platform's deny comes before everything that opens.
        ("10.20.0.1 5432 opaque", &["10.20.0.1"], &["192.0.2.0/24", "10.20.0.0/24"], none, format!("{denied}[1]")),
        ("api.stripe.com 443 tls", &["10.20.0.1"], &["10.20.0.0/24"], &["10.0.0.0/8"], format!("{denied}[0]")),
        ("api.stripe.com 443 tls", &["8.8.8.8"], &["8.8.8.8/32"], none, format!("{denied}[0]")),
        ("api.stripe.com 443 tls", &["8.8.8.8", "8.8.4.4"], &["8.8.8.8/32"], none, "8.8.4.4:443 [stripe]".into()),
        // What leads to an IPv4 address may be no more than that address.
        ("api.stripe.com 443 tls", &["64:ff9b::8.8.8.8"], none, &["64:ff9b::/96"], "[64:ff9b::808:808]:443 [stripe]".into()),
        ("api.stripe.com 443 tls", &["64:ff9b::169.254.169.254"], none, &["64:ff9b::/96"], forbidden.into()),
        ("api.stripe.com 443 tls", &["64:ff9b::8.8.8.8"], &["8.8.8.8/32"], &["64:ff9b::/96"], format!("{denied}[0]")),
        ("api.stripe.com 443 tls", &["::ffff:10.0.0.1"], &["10.0.0.0/8"], &["::/0", "10.0.0.0/8"], format!("{denied}[0]")),
        ("api.stripe.com 443 tls", &["2002:a9fe:a9fe::1"], none, &["::/0"], forbidden.into()),
        ("api.stripe.com 443 tls", &["2001:0:1::5601:5601"], none, &["::/0"], forbidden.into()), // !0xa9fea9fe
        // Our own listeners, however they are spelled.
        ("10.20.9.9 5432 opaque", &["10.20.9.9"], none, none, forbidden.into()),
        ("10.20.9.8 5432 opaque", &["10.20.9.8"], none, none, "10.20.9.8:5432 [db]".into()),
        ("10.20.9.9 5432 opaque", &["::ffff:10.20.9.9"], none, &["0.0.0.0/0", "::/0"], forbidden.into()),
    ] {
        let decided = decide(&policy(Mode::Enforce, sample()), &platform(deny, open), asked, addresses);
        assert_eq!(outcome(&decided), wanted, "{asked} {addresses:?} deny {deny:?} open {open:?}");
    }
}

#[test]
fn shadow_mode_suspends_the_rules_and_not_the_addresses() {
    let shadow = policy(Mode::Shadow, sample());
    for (asked, addresses, wanted, would) in [
        ("api.stripe.com 443 tls", "8.8.8.8", "8.8.8.8:443 [stripe]", None),
        ("example.com 443 tls", "8.8.8.8", "8.8.8.8:443 shadow", Some("egress_host_not_listed by Tenant/acme: egress.allow")),
        ("api.stripe.com 22 opaque", "8.8.8.8", "8.8.8.8:22 shadow", Some("egress_port_not_listed by Tenant/acme: egress.allow[stripe]")),
        ("vault.svc 8200 http PUT /a", "8.8.8.8", "8.8.8.8:8200 shadow", Some("egress_request_denied by Tenant/acme: egress.allow[vault]")),
        ("mail.example 25 opaque", "8.8.8.8", "8.8.8.8:25 shadow", Some("egress_address_forbidden by Tenant/acme: egress.allow[mail]")),
        ("10.20.0.1 5432 opaque", "10.20.0.1", "10.20.0.1:5432 [db]", None),
        ("example.com 443 tls", "127.0.0.1", "egress_address_forbidden", None),
        ("example.com 443 tls", "10.20.0.1", "egress_address_forbidden", None),
        ("api.stripe.com 443 tls", "169.254.169.254", "egress_address_forbidden", None),
        ("example.com 443 tls", "9.9.9.9", "egress_address_forbidden by Platform/platform: egress.deny.cidrs[0]", None),
    ] {
        let decided = decide(&shadow, &platform(&["9.9.9.9/32"], &[]), asked, &[addresses]);
        assert_eq!(outcome(&decided), wanted, "{asked} {addresses}");
        let told = decided.ok().and_then(|allowed| allowed[0].shadow().map(told));
        assert_eq!(told.as_deref(), would, "{asked} {addresses}");
    }
}

#[test]
fn names_of_opaque_rules_are_those_that_a_captured_connection_may_mean() {
    let mut rules = sample();
    rules.push(rule("more", &["b.example", "*.c.example"], &[], &[25, 26], Protocol::Tcp));
    let policy = policy(Mode::Enforce, rules);
    let names = |port| policy.opaque_names(port).map(|name| name.as_str()).collect::<Vec<_>>();
    assert_eq!((names(25), names(26), names(443)), (vec!["mail.example", "b.example"], vec!["b.example"], vec![]));
}

proptest! {
    /// Whatever the rules and whatever is asked: what is dialled is public, opened by the platform, or private and named by a prefix.
    #[test]
    fn no_rule_opens_a_special_address(bits in any::<u128>(), is_v4 in any::<bool>(), special in 0..SPECIAL.len(), low in any::<u16>(), shadow in any::<bool>()) {
        let address: IpAddr = match (special, is_v4) {
            (0, true) => Ipv4Addr::from_bits(bits as u32).into(),
            (0, false) => Ipv6Addr::from_bits(bits).into(),
            _ => near(SPECIAL[special].parse().unwrap(), low),
        };
        let mode = if shadow { Mode::Shadow } else { Mode::Enforce };
        let policy = policy(mode, vec![rule("all", &["a.example"], &["0.0.0.0/0", "::/0", "10.0.0.0/8"], &[443], Protocol::Tls), rule("any", &[], &["0.0.0.0/0", "::/0", "10.0.0.0/8"], &[443], Protocol::Tls)]);
        for host in [Host::Name("a.example".parse().unwrap()), Host::Address(address)] {
            let permit = policy.permit(&host, 443, Seen::Tls, &acme()).unwrap();
            let allowed = permit.destinations(&[address], &PlatformEgress::default(), |_| false).is_ok();
            let named = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
            prop_assert_eq!(allowed, AddressClass::of(address) == AddressClass::Public || named, "{}", address);
        }
    }
}

const SPECIAL: &[&str] = &[
    "0.0.0.0",
    "10.0.0.0",
    "127.0.0.1",
    "169.254.169.254",
    "100.64.0.0",
    "192.168.0.1",
    "224.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "fe80::1",
    "fc00::",
    "64:ff9b::",
    "2002::",
];

fn near(address: IpAddr, low: u16) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ u32::from(low)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ u128::from(low)).into(),
    }
}

#[test]
fn what_goes_to_a_peer_goes_to_no_other_and_in_no_other_way() {
    let peer = |name: &str| PeerWorkload { tenant: Some(acme()), workload: name.parse().unwrap() };
    let rules = vec![
        rule("tunnels", &["*.svc"], &[], &[8200, 18443], Protocol::Tcp),
        rule("anything", &["*.svc"], &[], &[18443], Protocol::Http),
        EgressRule {
            requests: vec![request_match(&["GET"], &["/invoices/**"])],
            peer: Some(peer("billing")),
            ..rule("billing", &["billing.svc"], &[], &[18443], Protocol::Http)
        },
    ];
    let listed = Some("Tenant/acme: egress.allow[billing]");
    for (mode, host, port, seen, expected) in [
        (Mode::Enforce, "billing.svc", 18443, "http GET /invoices/7", Ok((Some("billing"), listed))),
        (Mode::Enforce, "billing.svc", 18443, "http GET /other", Err(Reason::EgressRequestDenied)),
        (Mode::Enforce, "billing.svc", 18443, "nothing", Err(Reason::EgressProtocolNotAllowed)),
        (Mode::Enforce, "billing.svc", 18443, "tls", Err(Reason::EgressProtocolNotAllowed)),
        (Mode::Enforce, "billing.svc", 18443, "opaque", Err(Reason::EgressProtocolNotAllowed)),
        (Mode::Enforce, "billing.svc", 8200, "http GET /other", Ok((None, Some("Tenant/acme: egress.allow[tunnels]")))),
        (Mode::Enforce, "other.svc", 18443, "http GET /other", Ok((None, Some("Tenant/acme: egress.allow[tunnels]")))),
        // Nothing goes there in the clear while the rule is being tried.
        (Mode::Shadow, "billing.svc", 18443, "http GET /other", Ok((Some("billing"), None))),
    ] {
        let policy = policy(mode, rules.clone());
        let permit = with_seen(seen, |seen| policy.permit(&host.parse().unwrap(), port, seen, &acme()));
        let got = permit
            .as_ref()
            .map_err(|deny| deny.reason)
            .map(|permit| (permit.peer.map(|peer| peer.workload.as_str()), permit.rules().next().map(|rule| rule.as_str())));
        assert_eq!(got, expected, "{mode:?} {host}:{port} {seen}");
    }
}
