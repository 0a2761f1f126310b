//! Which rule acts, and what it makes of an answer.

use super::{upstream::Upstream, *};
use crate::ratelimit::Mode;

const UPSTREAM: &str = "
www.example. 300 IN A 192.0.2.1
www.example. 300 IN AAAA 2001:db8::1
www.example. 300 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.66
alias.example. 300 IN CNAME www.example.
long.example. 300 IN CNAME alias.example.
two.example. 300 IN A 198.51.100.7
two.example. 300 IN A 198.51.100.6
garden.corp. 300 IN A 10.0.0.1
www.example.garden.corp. 300 IN A 10.0.0.2
loop.example. 300 IN CNAME loop2.example.
loop2.example. 300 IN CNAME loop.example.
text.example. 300 IN TXT told
example. 300 IN NS ns.servers.example.
ns.servers.example. 300 IN A 203.0.113.53
";

fn zone(number: usize, (r#override, rules): (&str, &str)) -> PolicyZone {
    let (r#override, mode) = match r#override.split_once(' ') {
        Some((word, "shadow")) => (word, Mode::Shadow),
        _ => (r#override, Mode::Enforce),
    };
    let text = format!("$TTL 60\n@ 300 SOA ns h 7 1 1 1 30\n{rules}\n").replace(';', "\n");
    let compiled = text::compile(text.as_bytes(), Some(&name(&format!("z{number}"))));
    assert_eq!(compiled.outcome.faults, [], "{text}");
    PolicyZone {
        name: format!("z{number}").into(),
        zone: Zone::open(compiled.bytes.unwrap().into()).unwrap(),
        scope: if number == 0 { Scope::Platform } else { Scope::Tenant },
        r#override: r#override.parse().unwrap(),
        mode,
        max_ttl: (number == 2).then_some(5),
    }
}

/// What came of it, in a line: `asked` upstream or not, then the rule and what it made.
fn outcome(zones: &[(&str, &str)], name: &str, rtype: u16, client: &str, transport: Transport) -> String {
    let policy: Policy = zones.iter().enumerate().map(|(number, told)| zone(number, *told)).collect();
    let upstream = Upstream::new(records(UPSTREAM));
    let query = Query { name: super::name(name), rtype, client: client.parse().unwrap(), transport };
    let mut walk = Walk::new(&policy, query);
    let told = match walk.filter_query() {
        Some(act) => told(&act),
        None => {
            let (rcode, answer) = upstream.resolve(&super::name(name), rtype);
            let mut verdict = walk.filter_response(rcode, &answer);
            while let Verdict::Ask(lookup) = verdict {
                let found = upstream.resolve(&lookup.name, lookup.rtype).1;
                verdict = walk.filter_lookup(lookup, Some(found));
            }
            match verdict {
                Verdict::Pass(None) => "asked: as upstream".into(),
                Verdict::Pass(Some(decision)) => format!("asked: {} {}: PASSTHRU", decision.zone, decision.owner),
                Verdict::Act(act) => format!("asked: {}", told(&act)),
                Verdict::Unanswered => "asked: no answer".into(),
                Verdict::Ask(lookup) => format!("{lookup:?}"),
            }
        }
    };
    match walk.shadow() {
        Some(decision) => format!("{told}; shadow {} {}: {}", decision.zone, decision.owner, decision.action),
        None => told,
    }
}

fn told(act: &Act) -> String {
    let rewrite = match act {
        Act::Drop(decision) => return format!("{} {}: DROP", decision.zone, decision.owner),
        Act::Answer(rewrite) => rewrite,
    };
    let decision = &rewrite.decision;
    let mut text = format!("{} {}: {} at {}", decision.zone, decision.owner, decision.action, decision.name);
    let soa = rewrite.soa.as_ref().map(|soa| soa.ttl);
    assert_eq!(soa, Some(if &*decision.zone == "z2" { 5 } else { 30 }));
    for record in &rewrite.answer {
        let data = record.target().map_or_else(|| format!("{:?}", record.rdata), |target| target.to_string());
        text.push_str(&format!(", {} {} {} {data}", record.owner, record.ttl, record.rtype));
    }
    if let Some(target) = &rewrite.follow {
        text.push_str(&format!(", then {target}"));
    }
    format!("{text}, rcode {}{}, {:?}", rewrite.rcode, if rewrite.truncated { " TC" } else { "" }, decision.extended_error())
}

#[test]
fn one_rule_acts() {
    use rtype::{A, AAAA, CNAME, HTTPS, TXT};
    let (given, off) = ("given", "disabled");
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let cases: &[Case] = &[
        (&[], "www.example", A, "asked: as upstream"),
        (&[(given, "other CNAME .")], "www.example", A, "asked: as upstream"),
        // Before anything is asked.
        (&[(given, "www.example CNAME .")], "www.example", A, "z0 www.example: NXDOMAIN at www.example., rcode 3, Some(15)"),
        (&[("given", ""), (given, "*.example CNAME *.")], "www.example", A, "z1 *.example: NODATA at www.example., rcode 0, Some(17)"),
        (&[(given, "*.example CNAME .")], "example", A, "asked: as upstream"),
        (&[(given, "* CNAME .;www.example CNAME rpz-passthru.")], "www.example", A, "asked: z0 www.example: PASSTHRU"),
        (&[(given, "* CNAME *.")], "x", A, "z0 *: NODATA at x., rcode 0, Some(15)"),
        (&[(given, "www.example CNAME www.example.")], "www.example", A, "asked: z0 www.example: PASSTHRU"),
        (&[(given, "* CNAME .")], "x", A, "z0 *: NXDOMAIN at x., rcode 3, Some(15)"),
        (&[(given, "www.example CNAME rpz-drop.")], "www.example", A, "z0 www.example: DROP"),
        (&[(given, "www.example CNAME rpz-tcp-only.")], "www.example", A, "z0 www.example: TCP-Only at www.example., rcode 0 TC, None"),
        // Zone before zone, and then trigger before trigger.
        (
            &[(given, "www.example CNAME ."), (given, "32.7.2.0.192.rpz-client-ip CNAME *.")],
            "www.example",
            A,
            "z0 www.example: NXDOMAIN at www.example., rcode 3, Some(15)",
        ),
        (
            &[(given, "www.example CNAME .;24.0.2.0.192.rpz-client-ip CNAME *.")],
            "www.example",
            A,
            "z0 24.0.2.0.192.rpz-client-ip: NODATA at www.example., rcode 0, Some(18)",
        ),
        (
            &[(given, "24.0.2.0.192.rpz-client-ip CNAME .;32.7.2.0.192.rpz-client-ip CNAME rpz-drop.")],
            "x",
            A,
            "z0 32.7.2.0.192.rpz-client-ip: DROP",
        ),
        (
            &[(given, "www.example CNAME .;32.1.2.0.192.rpz-ip CNAME *.")],
            "www.example",
            A,
            "z0 www.example: NXDOMAIN at www.example., rcode 3, Some(15)",
        ),
        // An earlier zone may see something in the answer, and does or does not.
        (
            &[(given, "32.1.2.0.192.rpz-ip CNAME *."), (given, "www.example CNAME .")],
            "www.example",
            A,
            "asked: z0 32.1.2.0.192.rpz-ip: NODATA at www.example., rcode 0, Some(15)",
        ),
        (
            &[(given, "32.9.2.0.192.rpz-ip CNAME *."), (given, "www.example CNAME .")],
            "www.example",
            A,
            "asked: z1 www.example: NXDOMAIN at www.example., rcode 3, Some(17)",
        ),
        (
            &[(given, "32.1.2.0.192.rpz-ip CNAME rpz-passthru."), (given, "www.example CNAME .")],
            "www.example",
            A,
            "asked: z0 32.1.2.0.192.rpz-ip: PASSTHRU",
        ),
        // It cannot: no addresses of that family will be in the answer, or it is disabled.
        (
            &[(given, "32.1.2.0.192.rpz-ip CNAME *."), (given, "www.example CNAME .")],
            "www.example",
            AAAA,
            "z1 www.example: NXDOMAIN at www.example., rcode 3, Some(17)",
        ),
        (
            &[(given, "32.1.2.0.192.rpz-ip CNAME *."), (given, "text.example CNAME .")],
            "text.example",
            TXT,
            "z1 text.example: NXDOMAIN at text.example., rcode 3, Some(17)",
        ),
        (
            &[(off, "32.1.2.0.192.rpz-ip CNAME *."), (given, "www.example CNAME .")],
            "www.example",
            A,
            "z1 www.example: NXDOMAIN at www.example., rcode 3, Some(17)",
        ),
        // Addresses: the longest prefix, then the smallest; hints as well.
        (
            &[(given, "24.0.100.51.198.rpz-ip CNAME .;32.7.100.51.198.rpz-ip CNAME *.")],
            "two.example",
            A,
            "asked: z0 32.7.100.51.198.rpz-ip: NODATA at two.example., rcode 0, Some(15)",
        ),
        (
            &[(given, "32.7.100.51.198.rpz-ip CNAME .;32.6.100.51.198.rpz-ip CNAME *.")],
            "two.example",
            A,
            "asked: z0 32.6.100.51.198.rpz-ip: NODATA at two.example., rcode 0, Some(15)",
        ),
        (
            &[(given, "32.zz.db8.2001.rpz-ip CNAME .")],
            "www.example",
            AAAA,
            "asked: z0 32.zz.db8.2001.rpz-ip: NXDOMAIN at www.example., rcode 3, Some(15)",
        ),
        (
            &[(given, "32.66.2.0.192.rpz-ip CNAME .")],
            "www.example",
            HTTPS,
            "asked: z0 32.66.2.0.192.rpz-ip: NXDOMAIN at www.example., rcode 3, Some(15)",
        ),
        // Every name of the chain, from the first on; what led there stays.
        (
            &[(given, "alias.example CNAME .;www.example CNAME *.")],
            "long.example",
            A,
            "asked: z0 alias.example: NXDOMAIN at alias.example., long.example. 300 5 alias.example., rcode 3, Some(15)",
        ),
        (
            &[(given, "www.example CNAME ."), (given, "alias.example CNAME rpz-passthru.")],
            "long.example",
            A,
            "asked: z1 alias.example: PASSTHRU",
        ),
        (
            &[(given, "long.example CNAME rpz-passthru."), (given, "www.example CNAME .")],
            "long.example",
            A,
            "asked: z0 long.example: PASSTHRU",
        ),
        (&[(given, "alias.example CNAME .")], "long.example", CNAME, "asked: as upstream"),
        (
            &[(given, "32.1.2.0.192.rpz-ip A 10.9.9.9")],
            "alias.example",
            A,
            "asked: z0 32.1.2.0.192.rpz-ip: Local-Data at www.example., alias.example. 300 5 www.example., www.example. 60 1 [10, 9, 9, 9], rcode 0, Some(15)",
        ),
        (&[(given, "x CNAME .")], "loop.example", A, "asked: no answer"),
        // Name servers.
        (
            &[(given, "*.servers.example.rpz-nsdname CNAME .")],
            "www.example",
            A,
            "asked: z0 *.servers.example.rpz-nsdname: NXDOMAIN at www.example., rcode 3, Some(15)",
        ),
        (
            &[(given, "24.0.113.0.203.rpz-nsip CNAME .")],
            "www.example",
            TXT,
            "asked: z0 24.0.113.0.203.rpz-nsip: NXDOMAIN at www.example., rcode 3, Some(15)",
        ),
        (
            &[(given, "24.0.113.0.203.rpz-nsip CNAME .;ns.servers.example.rpz-nsdname CNAME *.")],
            "www.example",
            A,
            "asked: z0 ns.servers.example.rpz-nsdname: NODATA at www.example., rcode 0, Some(15)",
        ),
        // Local data.
        (
            &[(given, "www.example A 10.1.1.1;www.example 9 A 10.1.1.2")],
            "www.example",
            A,
            "z0 www.example: Local-Data at www.example., www.example. 60 1 [10, 1, 1, 1], www.example. 9 1 [10, 1, 1, 2], rcode 0, Some(15)",
        ),
        (&[(given, "www.example A 10.1.1.1")], "www.example", TXT, "z0 www.example: Local-Data at www.example., rcode 0, Some(15)"),
        (
            &[(given, "www.example CNAME garden.corp.;garden.corp CNAME .")],
            "www.example",
            A,
            "z0 www.example: Local-Data at www.example., www.example. 60 5 garden.corp., then garden.corp., rcode 0, Some(15)",
        ),
        (
            &[(given, "*.example CNAME *.garden.corp.")],
            "www.example",
            A,
            "z0 *.example: Local-Data at www.example., www.example. 60 5 www.example.garden.corp., then www.example.garden.corp., rcode 0, Some(15)",
        ),
        (
            &[(given, "*.example CNAME garden.corp.")],
            "www.example",
            CNAME,
            "z0 *.example: Local-Data at www.example., www.example. 60 5 garden.corp., rcode 0, Some(15)",
        ),
        (
            &[("", ""), ("", ""), (given, "www.example A 10.1.1.1")].map(|(o, r)| (if o.is_empty() { given } else { o }, r)),
            "www.example",
            A,
            "z2 www.example: Local-Data at www.example., www.example. 5 1 [10, 1, 1, 1], rcode 0, Some(17)",
        ),
        // Overrides.
        (&[("nodata", "www.example CNAME rpz-passthru.")], "www.example", A, "z0 www.example: NODATA at www.example., rcode 0, Some(15)"),
        (&[("nxdomain", "www.example A 10.1.1.1")], "www.example", A, "z0 www.example: NXDOMAIN at www.example., rcode 3, Some(15)"),
        (&[("drop", "www.example A 10.1.1.1")], "www.example", A, "z0 www.example: DROP"),
        (&[("tcp-only", "www.example A 10.1.1.1")], "www.example", A, "z0 www.example: TCP-Only at www.example., rcode 0 TC, None"),
        (&[("passthru", "www.example CNAME ."), (given, "www.example CNAME .")], "www.example", A, "asked: z0 www.example: PASSTHRU"),
        (
            &[("cname:garden.corp", "www.example 11 A 10.1.1.1")],
            "www.example",
            A,
            "z0 www.example: Local-Data at www.example., www.example. 11 5 garden.corp., then garden.corp., rcode 0, Some(15)",
        ),
        (&[(off, "www.example CNAME .")], "www.example", A, "asked: as upstream; shadow z0 www.example: NXDOMAIN"),
        (
            &[(off, "www.example CNAME ."), (given, "www.example CNAME *.")],
            "www.example",
            A,
            "z1 www.example: NODATA at www.example., rcode 0, Some(17); shadow z0 www.example: NXDOMAIN",
        ),
        (&[(off, "32.1.2.0.192.rpz-ip CNAME .")], "alias.example", A, "asked: as upstream; shadow z0 32.1.2.0.192.rpz-ip: NXDOMAIN"),
    ];
    for (zones, name, rtype, expected) in cases {
        assert_eq!(outcome(zones, name, *rtype, "192.0.2.7", Transport::Udp), *expected, "{zones:?} {name} {rtype}");
    }
    // What enforcing would do, and nothing done.
    for (r#override, action) in [
        ("given", "NXDOMAIN"),
        ("nxdomain", "NXDOMAIN"),
        ("nodata", "NODATA"),
        ("passthru", "PASSTHRU"),
        ("drop", "DROP"),
        ("tcp-only", "TCP-Only"),
        ("cname:w.example", "Local-Data"),
    ] {
        let shadow = format!("{override} shadow");
        // Of what does not act the first, and a disabled zone would not if it were enforced.
        let zones = [(off, "www.example CNAME *."), (&*shadow, "*.example CNAME ."), ("drop shadow", "* CNAME .")];
        let told = format!("asked: as upstream; shadow z1 *.example: {action}");
        assert_eq!(outcome(&zones, "www.example", A, "192.0.2.7", Transport::Udp), told);
        let answered = [(&*shadow, "32.1.2.0.192.rpz-ip CNAME .")];
        let told = format!("asked: as upstream; shadow z0 32.1.2.0.192.rpz-ip: {action}");
        assert_eq!(outcome(&answered, "alias.example", A, "192.0.2.7", Transport::Udp), told);
    }
    let over_tcp = [("tcp-only shadow", "www.example CNAME .")];
    let told = "asked: as upstream; shadow z0 www.example: PASSTHRU";
    assert_eq!(outcome(&over_tcp, "www.example", A, "192.0.2.7", Transport::Tcp), told);
    let tcp_only = [(given, "www.example CNAME rpz-tcp-only."), (given, "www.example CNAME .")];
    assert_eq!(outcome(&tcp_only, "www.example", A, "192.0.2.7", Transport::Tcp), "asked: z0 www.example: PASSTHRU");
    // Too long with the target behind it.
    let long = format!("{}example", format!("{}.", "x".repeat(60)).repeat(4));
    let expected = format!("z0 *.example: Local-Data at {long}., rcode 6, Some(15)");
    assert_eq!(outcome(&[(given, "*.example CNAME *.garden.corp.")], &long, A, "192.0.2.7", Transport::Udp), expected);
    // An IPv4 client of an IPv6 socket.
    let client = [(given, "32.7.2.0.192.rpz-client-ip CNAME rpz-drop.")];
    assert_eq!(outcome(&client, "x", A, "::ffff:192.0.2.7", Transport::Udp), "z0 32.7.2.0.192.rpz-client-ip: DROP");
}

#[test]
fn what_an_upstream_says_is_looked_at_whoever_it_is_about() {
    let policy: Policy = [zone(0, ("given", "32.66.2.0.192.rpz-ip CNAME ."))].into_iter().collect();
    let query = Query { name: name("www.example"), rtype: rtype::A, client: [192, 0, 2, 7].into(), transport: Transport::Udp };
    let judged = |rcode, answer: &str| Walk::new(&policy, query.clone()).filter_response(rcode, &records(answer));
    assert_eq!(judged(0, "www.example. 1 IN A 192.0.2.1"), Verdict::Pass(None));
    for smuggled in ["www.example. 1 IN A 192.0.2.1\nelsewhere. 1 IN A 192.0.2.66", "elsewhere. 1 IN AAAA ::ffff:192.0.2.66"] {
        assert!(matches!(judged(0, smuggled), Verdict::Act(_)), "{smuggled}");
        assert!(matches!(judged(3, smuggled), Verdict::Act(_)), "{smuggled}");
        assert_eq!(judged(5, smuggled), Verdict::Unanswered);
    }
    let chain: String =
        (0..20).map(|n| format!("{} 1 IN CNAME c{n}.\n", if n == 0 { "www.example.".into() } else { format!("c{}.", n - 1) })).collect();
    assert_eq!(judged(0, &chain), Verdict::Unanswered);
    let cut = [Record { owner: name("www.example"), rtype: rtype::CNAME, ttl: 1, rdata: b"\x01a".to_vec() }];
    assert_eq!(Walk::new(&policy, query.clone()).filter_response(0, &cut), Verdict::Unanswered);
}

#[test]
fn lookups_are_bounded_and_fail_closed() {
    let policy: Policy = [zone(0, ("given", "ns.bad.rpz-nsdname CNAME ."))].into_iter().collect();
    let deep = name(&"a.".repeat(120));
    let query = Query { name: deep, rtype: rtype::A, client: [192, 0, 2, 7].into(), transport: Transport::Udp };
    let mut walk = Walk::new(&policy, query.clone());
    let (mut verdict, mut asked) = (walk.filter_response(0, &[]), 0);
    while let Verdict::Ask(lookup) = verdict {
        asked += 1;
        verdict = walk.filter_lookup(lookup, Some(Vec::new()));
    }
    assert_eq!((verdict, asked), (Verdict::Unanswered, 65));
    let mut walk = Walk::new(&policy, query);
    let Verdict::Ask(lookup) = walk.filter_response(0, &[]) else { panic!() };
    assert_eq!(walk.filter_lookup(lookup, None), Verdict::Unanswered);
}

#[test]
fn where_an_answer_stops_at_an_alias_its_target_is_asked_for_only_if_it_may_matter() {
    let refused = "inner.example CNAME .";
    for (zones, expected) in [
        (&[("given", refused)][..], "z0 inner.example: NXDOMAIN"),
        (&[("given", "other.example CNAME .")], "to be resolved"),
        // What it leads to may meet a rule that goes before, whose action may be another.
        (&[("given", "24.0.2.0.192.rpz-ip CNAME rpz-passthru."), ("given", refused)], "to be resolved"),
        (&[("given", "128.1.zz.2001.rpz-ip CNAME rpz-passthru."), ("given", refused)], "z1 inner.example: NXDOMAIN"),
        (&[("given", "ns.example.rpz-nsdname CNAME rpz-passthru."), ("given", refused)], "look up example. 2"),
        (&[("disabled", "24.0.2.0.192.rpz-ip CNAME ."), ("given", refused)], "z1 inner.example: NXDOMAIN"),
        (&[("given", "inner.example CNAME rpz-passthru."), ("given", refused)], "z0 inner.example: PASSTHRU, and then"),
        // The aliases before are no part of it.
        (&[("given", "middle.example CNAME *."), ("given", refused)], "z0 middle.example: NODATA"),
    ] {
        let policy: Policy = zones.iter().enumerate().map(|(number, told)| zone(number, *told)).collect();
        let query = Query { name: name("example"), rtype: rtype::A, client: [192, 0, 2, 7].into(), transport: Transport::Udp };
        let mut walk = Walk::new(&policy, query);
        assert_eq!(walk.filter_query(), None);
        let aliases = records("example. 1 IN CNAME middle.example.\nmiddle.example. 1 IN CNAME inner.example.");
        let outcome = match walk.filter_aliases(&aliases) {
            Verdict::Pass(None) => "to be resolved".into(),
            Verdict::Pass(Some(decision)) => {
                let all = records(
                    "example. 1 IN CNAME middle.example.\nmiddle.example. 1 IN CNAME inner.example.\ninner.example. 1 IN A 192.0.2.1",
                );
                assert_eq!(walk.filter_response(0, &all), Verdict::Pass(Some(decision.clone())));
                format!("{} {}: PASSTHRU, and then", decision.zone, decision.owner)
            }
            Verdict::Act(Act::Answer(rewrite)) => {
                let Decision { zone, owner, action, .. } = rewrite.decision;
                format!("{zone} {owner}: {action}")
            }
            Verdict::Ask(Lookup { name, rtype }) => format!("look up {name} {rtype}"),
            verdict => format!("{verdict:?}"),
        };
        assert_eq!(outcome, expected, "{zones:?}");
    }
}
