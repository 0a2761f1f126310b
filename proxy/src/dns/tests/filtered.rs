//! What policy zones make of queries and answers, and who hears of them.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            NS,
            svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue},
        },
    },
};
use ringfence_policy::{
    ratelimit::Mode,
    rpz::{self, Name as PolicyName, Policy, PolicyZone, Scope, Walk, Zone, text},
};

use super::peers::*;
use crate::dns::{
    answer::{Reply, Transport},
    filter_response::filter,
    limits::POPULAR,
    own::may_lead,
};

/// `zones`: override and rules, in their order; the first is the platform's.
fn policy(zones: &[(&str, &str)]) -> Option<Policy> {
    let compiled = zones.iter().enumerate().map(|(number, (r#override, rules))| {
        let (r#override, mode) = match r#override.split_once(' ') {
            Some((word, "shadow")) => (word, Mode::Shadow),
            _ => (*r#override, Mode::Enforce),
        };
        let text = format!("$TTL 60\n@ 300 SOA ns h 7 1 1 1 30\n{}\n", rules.replace("; ", "\n"));
        let compiled = text::compile(text.as_bytes(), format!("z{number}.").parse::<PolicyName>().as_ref().ok());
        assert_eq!(compiled.outcome.faults, [], "{rules}");
        PolicyZone {
            name: format!("z{number}").into(),
            zone: Zone::open(compiled.bytes.unwrap().into()).unwrap(),
            scope: if number == 0 { Scope::Platform } else { Scope::Tenant },
            r#override: r#override.parse().unwrap(),
            mode,
            max_ttl: None,
        }
    });
    Some(compiled.collect())
}

fn https(owner: &str, hint: [u8; 4]) -> Record {
    let hint = SvcParamValue::Ipv4Hint(IpHint(vec![std::net::Ipv4Addr::from(hint).into()]));
    let svcb = SVCB::new(1, Name::root(), vec![(SvcParamKey::Ipv4Hint, hint)]);
    Record::from_rdata(name(owner), 60, RData::HTTPS(hickory_proto::rr::rdata::HTTPS(svcb)))
}

fn ns(owner: &str, server: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::NS(NS(name(server))))
}

/// An upstream that keeps what it was asked.
struct World {
    rig: Rig,
    asked: Rc<RefCell<Vec<String>>>,
    _stub: Stub,
}

impl World {
    fn new() -> Self {
        let asked = Rc::<RefCell<Vec<String>>>::default();
        let heard = asked.clone();
        let stub = Stub::start(move |asked| {
            let qtype = asked.query.queries[0].query_type;
            heard.borrow_mut().push(format!("{} {qtype}", asked.name()));
            match (asked.name().as_str(), qtype) {
                ("www.example.", RecordType::A) => asked.answer(vec![a("www.example.", 60, 1)]),
                ("www.example.", RecordType::HTTPS) => asked.answer(vec![https("www.example.", [192, 0, 2, 1])]),
                ("alias.example.", RecordType::A) => {
                    asked.answer(vec![cname("alias.example.", 60, "www.example."), a("www.example.", 60, 1)])
                }
                // Stops at the alias, and at the next.
                ("far.example.", _) => asked.answer(vec![cname("far.example.", 60, "farther.example.")]),
                ("farther.example.", _) => asked.answer(vec![cname("farther.example.", 60, "www.example.")]),
                ("round.example.", _) => asked.answer(vec![cname("round.example.", 60, "about.example.")]),
                ("about.example.", _) => asked.answer(vec![cname("about.example.", 60, "round.example.")]),
                ("garden.", RecordType::A) | ("www.example.garden.", RecordType::A) => asked.answer(vec![a(&asked.name(), 20, 9)]),
                ("example.", RecordType::NS) => asked.answer(vec![ns("example.", "ns.example.")]),
                ("ns.example.", RecordType::A) => asked.answer(vec![a("ns.example.", 60, 53)]),
                ("fails.example.", _) => asked.rcode(ResponseCode::ServFail, vec![]),
                _ => asked.rcode(ResponseCode::NXDomain, vec![soa(".", 30)]),
            }
        });
        Self { rig: Rig::new(vec![stub.upstream()]), asked, _stub: stub }
    }

    /// What is told, with what stands in the additional section, and whom of the upstream's it was asked of.
    async fn outcome(&self, asked: &str, qtype: RecordType, transport: Transport) -> String {
        self.asked.borrow_mut().clear();
        let packet = query(asked, qtype).to_vec().unwrap();
        let answer = self.rig.send(&packet, transport, Instant::now()).await;
        let said = match Message::from_vec(&answer) {
            Ok(answer) => {
                let truncated = if answer.metadata.truncation { "; TC" } else { "" };
                let policy: String = answer
                    .additionals
                    .iter()
                    .map(|record| format!("; + {} {} {}", record.name, record.ttl, record.record_type()))
                    .collect();
                told(&answer) + truncated + &policy
            }
            Err(_) => {
                assert!(answer.is_empty());
                "silence".to_owned()
            }
        };
        match self.asked.borrow().join(", ") {
            asked if asked.is_empty() => said,
            asked => format!("{said} <- {asked}"),
        }
    }
}

#[test]
fn each_trigger_and_action_over_each_transport() {
    use RecordType as T;
    use Transport::{Tcp, Udp};
    const PASSED: &str = "NoError; www.example. 60 A 192.0.2.1 <- www.example. A";
    run(async {
        for (zones, asked, qtype, transport, expected) in [
            // The name, before anybody hears of it.
            (&[("given", "www.example CNAME .")][..], "www.example.", T::A, Udp, "NXDomain; EDE 15; + z0. 30 SOA"),
            (&[("given", "www.example CNAME .")], "WWW.Example.", T::HTTPS, Tcp, "NXDomain; EDE 15; + z0. 30 SOA"),
            (&[("given", "*.example CNAME *.")], "www.example.", T::A, Udp, "NoError; EDE 15; + z0. 30 SOA"),
            (&[("given", "www.example CNAME rpz-drop.")], "www.example.", T::A, Udp, "silence"),
            (&[("given", "www.example CNAME rpz-drop.")], "www.example.", T::A, Tcp, "silence"),
            (&[("given", "www.example CNAME rpz-tcp-only.")], "www.example.", T::A, Udp, "NoError; TC; + z0. 30 SOA"),
            (&[("given", "www.example CNAME rpz-tcp-only.")], "www.example.", T::A, Tcp, PASSED),
            (&[("given", "www.example CNAME rpz-passthru."), ("given", "www.example CNAME .")], "www.example.", T::A, Udp, PASSED),
            (
                &[("given", "www.example 5 A 10.0.0.1")],
                "www.example.",
                T::A,
                Udp,
                "NoError; www.example. 5 A 10.0.0.1; EDE 15; + z0. 30 SOA",
            ),
            (&[("given", "www.example 5 A 10.0.0.1")], "www.example.", T::AAAA, Udp, "NoError; EDE 15; + z0. 30 SOA"),
            (
                &[("given", "*.example 5 CNAME *.garden.")],
                "www.example.",
                T::A,
                Udp,
                "NoError; www.example. 5 CNAME www.example.garden.; www.example.garden. 20 A 192.0.2.9; EDE 15; + z0. 30 SOA <- www.example.garden. A",
            ),
            (
                &[("given", "www.example 5 CNAME nowhere.invalid.")],
                "www.example.",
                T::A,
                Udp,
                "NXDomain; www.example. 5 CNAME nowhere.invalid.; ! invalid. 3600 SOA …; EDE 15; + z0. 30 SOA",
            ),
            (
                &[("given", "www.example 5 CNAME far.example.; farther.example CNAME .")],
                "www.example.",
                T::A,
                Udp,
                "NoError; www.example. 5 CNAME far.example.; far.example. 60 CNAME farther.example.; farther.example. 60 CNAME www.example.; www.example. 60 A 192.0.2.1; EDE 15; + z0. 30 SOA <- far.example. A, farther.example. A, www.example. A",
            ),
            (&[("given", "localhost CNAME .")], "localhost.", T::A, Udp, "NXDomain; EDE 15; + z0. 30 SOA"),
            // Who asks.
            (&[("given", "32.1.0.0.127.rpz-client-ip CNAME .")], "www.example.", T::A, Udp, "NXDomain; EDE 18; + z0. 30 SOA"),
            (&[("given", "32.2.0.0.127.rpz-client-ip CNAME .")], "www.example.", T::A, Udp, PASSED),
            // The answer's addresses.
            (&[("given", "24.0.2.0.192.rpz-ip CNAME .")], "www.example.", T::A, Udp, "NXDomain; EDE 15; + z0. 30 SOA <- www.example. A"),
            (&[("given", "24.0.2.0.192.rpz-ip CNAME rpz-drop.")], "www.example.", T::A, Tcp, "silence <- www.example. A"),
            (
                &[("given", "24.0.2.0.192.rpz-ip CNAME rpz-tcp-only.")],
                "www.example.",
                T::A,
                Udp,
                "NoError; TC; + z0. 30 SOA <- www.example. A",
            ),
            (
                &[("given", "24.0.2.0.192.rpz-ip CNAME *.")],
                "www.example.",
                T::HTTPS,
                Udp,
                "NoError; EDE 15; + z0. 30 SOA <- www.example. HTTPS",
            ),
            (
                &[("given", "24.0.2.0.192.rpz-ip 5 A 10.0.0.1")],
                "alias.example.",
                T::A,
                Udp,
                "NoError; alias.example. 60 CNAME www.example.; www.example. 5 A 10.0.0.1; EDE 15; + z0. 30 SOA <- alias.example. A",
            ),
            (&[("given", "")], "fails.example.", T::A, Udp, "ServFail; EDE 22 <- fails.example. A"),
            // Where an alias leads, in one answer or in many.
            (
                &[("given", "www.example CNAME .")],
                "alias.example.",
                T::A,
                Udp,
                "NXDomain; alias.example. 60 CNAME www.example.; EDE 15; + z0. 30 SOA <- alias.example. A",
            ),
            (
                &[("given", "farther.example CNAME .")],
                "far.example.",
                T::A,
                Udp,
                "NXDomain; far.example. 60 CNAME farther.example.; EDE 15; + z0. 30 SOA <- far.example. A",
            ),
            (
                &[("given", "other.example CNAME ."), ("given", "www.example CNAME *.")],
                "far.example.",
                T::A,
                Udp,
                "NoError; far.example. 60 CNAME farther.example.; farther.example. 60 CNAME www.example.; EDE 17; + z1. 30 SOA <- far.example. A, farther.example. A",
            ),
            (&[("given", "other.example CNAME .")], "round.example.", T::A, Udp, "ServFail; EDE 23 <- round.example. A, about.example. A"),
            // Whose servers know the name.
            (
                &[("given", "ns.example.rpz-nsdname CNAME .")],
                "www.example.",
                T::A,
                Udp,
                "NXDomain; EDE 15; + z0. 30 SOA <- www.example. A, www.example. NS, example. NS",
            ),
            (
                &[("given", "32.53.2.0.192.rpz-nsip CNAME .")],
                "www.example.",
                T::A,
                Udp,
                "NXDomain; EDE 15; + z0. 30 SOA <- www.example. A, www.example. NS, example. NS, ns.example. A, ns.example. AAAA",
            ),
            // Whose zone it is, and what overrides it.
            (&[("given", ""), ("given", "www.example CNAME .")], "www.example.", T::A, Udp, "NXDomain; EDE 17; + z1. 30 SOA"),
            (&[("disabled", "www.example CNAME .")], "www.example.", T::A, Udp, PASSED),
            (&[("nodata", "www.example CNAME .")], "www.example.", T::A, Udp, "NoError; EDE 15; + z0. 30 SOA"),
            (&[("tcp-only", "www.example CNAME .")], "www.example.", T::A, Udp, "NoError; TC; + z0. 30 SOA"),
            (
                &[("cname:garden.", "www.example CNAME .")],
                "www.example.",
                T::A,
                Udp,
                "NoError; www.example. 60 CNAME garden.; garden. 20 A 192.0.2.9; EDE 15; + z0. 30 SOA <- garden. A",
            ),
        ] {
            let world = World::new();
            world.rig.filter(policy(zones));
            assert_eq!(world.outcome(asked, qtype, transport).await, expected, "{zones:?} {asked} {qtype} {transport:?}");
        }
    });
}

#[test]
fn what_is_remembered_is_filtered_by_the_policy_in_force() {
    run(async {
        let world = World::new();
        let fresh = "NoError; www.example. 60 A 192.0.2.1";
        for (zones, expected) in [
            (&[][..], format!("{fresh} <- www.example. A")),
            (&[("given", "24.0.2.0.192.rpz-ip CNAME .")], "NXDomain; EDE 15; + z0. 30 SOA".to_owned()),
            (&[("disabled", "24.0.2.0.192.rpz-ip CNAME .")], fresh.to_owned()),
            (&[("given", "www.example A 10.0.0.1")], "NoError; www.example. 60 A 10.0.0.1; EDE 15; + z0. 30 SOA".to_owned()),
            (&[("given", "24.0.2.0.192.rpz-ip CNAME rpz-tcp-only.")], "NoError; TC; + z0. 30 SOA".to_owned()),
            (&[], fresh.to_owned()),
        ] {
            world.rig.filter(policy(zones));
            assert_eq!(world.outcome("www.example.", RecordType::A, Transport::Udp).await, expected, "{zones:?}");
        }
        // A zone that cannot be had: nothing is answered, not even what is known.
        world.rig.filter(None);
        for name in ["www.example.", "localhost."] {
            assert_eq!(world.outcome(name, RecordType::A, Transport::Udp).await, "ServFail; EDE 14");
        }
    });
}

#[test]
fn one_client_is_not_told_what_another_may_know() {
    run(async {
        let world = World::new();
        world.rig.filter(policy(&[("given", "32.7.2.0.192.rpz-client-ip CNAME rpz-passthru."), ("given", "www.example CNAME .")]));
        for _ in 0..2 {
            for (client, expected) in
                [("192.0.2.7", "NoError; www.example. 60 A 192.0.2.1"), ("192.0.2.8", "NXDomain; EDE 17; + z1. 30 SOA")]
            {
                world.rig.client.set(client.parse().unwrap());
                let told = world.outcome("www.example.", RecordType::A, Transport::Udp).await;
                assert_eq!(told.split(" <- ").next(), Some(expected), "{client}");
            }
        }
    });
}

#[test]
fn a_rule_holds_for_those_who_want_signatures() {
    run(async {
        let world = World::new();
        world.rig.filter(policy(&[("given", "www.example CNAME .")]));
        let mut asked = query("www.example.", RecordType::A);
        asked.edns.as_mut().unwrap().set_dnssec_ok(true);
        asked.metadata.checking_disabled = true;
        assert_eq!(told(&world.rig.ask(&asked).await), "NXDomain; EDE 15");
        assert!(world.asked.borrow().is_empty());
    });
}

#[test]
fn that_an_answer_has_passed_holds_for_its_policy_type_and_client_only() {
    use RecordType as T;
    use Transport::{Tcp, Udp};
    const PASSED: &str = "NoError; www.example. 60 A 192.0.2.1";
    const BY_IP: &str = "NXDomain; EDE 15; + z0. 30 SOA";
    let other = ("given", "32.9.2.0.192.rpz-ip CNAME .");
    run(async {
        let world = World::new();
        for (zones, asked) in [
            (&[other][..], &[("192.0.2.8", "www.example.", T::A, Udp, PASSED), ("192.0.2.8", "WWW.example.", T::A, Tcp, PASSED)][..]),
            // Passed before, under another policy; and of the same answer section, under this one.
            (
                &[("given", "32.1.2.0.192.rpz-ip CNAME .")],
                &[
                    ("192.0.2.8", "www.example.", T::AAAA, Udp, "NXDomain; ! . 30 SOA …"),
                    ("192.0.2.8", "www.example.", T::A, Udp, BY_IP),
                    ("192.0.2.8", "www.example.", T::HTTPS, Udp, BY_IP),
                    ("192.0.2.8", "alias.example.", T::A, Udp, "NXDomain; alias.example. 60 CNAME www.example.; EDE 15; + z0. 30 SOA"),
                ],
            ),
            // The first zone has to see the answer before the second may speak of the client.
            (
                &[other, ("given", "32.7.2.0.192.rpz-client-ip CNAME .")],
                &[
                    ("192.0.2.8", "www.example.", T::A, Udp, PASSED),
                    ("192.0.2.7", "www.example.", T::A, Udp, "NXDomain; EDE 18; + z1. 30 SOA"),
                ],
            ),
            (
                &[other, ("given", "32.7.2.0.192.rpz-client-ip CNAME rpz-tcp-only.")],
                &[
                    ("192.0.2.8", "www.example.", T::A, Udp, PASSED),
                    ("192.0.2.7", "www.example.", T::A, Udp, "NoError; TC; + z1. 30 SOA"),
                    ("192.0.2.7", "www.example.", T::A, Tcp, PASSED),
                ],
            ),
            (&[other], &[("192.0.2.7", "www.example.", T::A, Udp, PASSED)]),
        ] {
            world.rig.filter(policy(zones));
            for (client, name, qtype, transport, expected) in asked.iter().chain(asked).chain(asked.iter().rev()) {
                world.rig.client.set(client.parse().unwrap());
                let told = world.outcome(name, *qtype, *transport).await;
                let told = told.split(" <- ").next().map(|told| told.replace("WWW.", "www."));
                assert_eq!(told.as_deref(), Some(*expected), "{zones:?} {client} {name} {qtype} {transport:?}");
            }
        }
    });
}

#[test]
fn a_zone_that_does_not_act_is_told_of_each_time() {
    run(async {
        for (r#override, action) in [
            ("disabled", "NXDOMAIN"),
            ("given shadow", "NXDOMAIN"),
            ("nodata shadow", "NODATA"),
            ("passthru shadow", "PASSTHRU"),
            ("tcp-only shadow", "TCP-Only"),
            ("drop shadow", "DROP"),
            ("cname:garden shadow", "Local-Data"),
        ] {
            let world = World::new();
            world.rig.filter(policy(&[(r#override, "24.0.2.0.192.rpz-ip CNAME .")]));
            for asked in 1..=3 {
                assert_eq!(
                    world.outcome("www.example.", RecordType::A, Transport::Udp).await.split(" <-").next(),
                    Some("NoError; www.example. 60 A 192.0.2.1"),
                    "{override}"
                );
                let expected = format!(r#"ringfence_dns_policy_total{{action="{action}",trigger="IP",mode="shadow"}} {asked}"#);
                let metrics = world.rig.shared.metrics.render().unwrap();
                assert!(metrics.lines().any(|line| line == expected), "{expected}");
            }
        }
    });
}

#[test]
fn an_answer_that_passed_is_not_taken_apart_again_under_the_same_policy() {
    let mut message = Message::response(0, hickory_proto::op::OpCode::Query);
    message.add_query(hickory_proto::op::Query::query(name("www.example."), RecordType::A));
    message.add_answers([a("www.example.", 60, 1)]);
    let reply = Reply::new(message, 60, None).unwrap();
    let query = rpz::Query {
        name: "www.example".parse().unwrap(),
        rtype: RecordType::A.into(),
        client: [127, 0, 0, 1].into(),
        transport: rpz::Transport::Udp,
    };
    let [passes, refuses] = ["32.9.2.0.192.rpz-ip CNAME .", "32.1.2.0.192.rpz-ip CNAME ."].map(|rule| policy(&[("given", rule)]).unwrap());
    // A generation has one policy: that the second stands for the same one here shows that its rules are not asked.
    for (policy, generation, has_passed) in [(&passes, 1, true), (&refuses, 1, true), (&refuses, 2, false), (&refuses, 2, false)] {
        let verdict = filter(&mut Walk::new(policy, query.clone()), &reply, generation);
        assert_eq!(verdict == rpz::Verdict::Pass(None), has_passed, "{generation}");
    }
}

#[test]
fn the_egress_decision_knows_only_what_passed() {
    run(async {
        let world = World::new();
        let holds =
            |host: &str, address: &str| world.rig.shared.bindings.holds(&host.parse().unwrap(), address.parse().unwrap(), Instant::now());
        world.rig.filter(policy(&[("given", "24.0.2.0.192.rpz-ip CNAME .; local.example A 10.0.0.1")]));
        world.outcome("www.example.", RecordType::A, Transport::Udp).await;
        assert!(!holds("www.example", "192.0.2.1"));
        world.outcome("local.example.", RecordType::A, Transport::Udp).await;
        assert!(holds("local.example", "10.0.0.1"));
        // The same answer, remembered, is let through now.
        world.rig.filter(policy(&[]));
        world.outcome("www.example.", RecordType::A, Transport::Udp).await;
        assert!(holds("www.example", "192.0.2.1"));
    });
}

#[test]
fn the_sidecars_own_lookups_are_filtered_too() {
    run(async {
        for (zones, asked, expected) in [
            (&[][..], "www.example", "192.0.2.1"),
            (&[("given", "www.example CNAME .")], "www.example", "PolicyZone/z0 has the rule www.example: NXDOMAIN"),
            (&[("given", "www.example CNAME rpz-drop.")], "www.example", "PolicyZone/z0 has the rule www.example: DROP"),
            (&[("given", "www.example CNAME rpz-tcp-only.")], "www.example", "192.0.2.1"),
            (&[("given", "24.0.2.0.192.rpz-ip CNAME *.")], "alias.example", "PolicyZone/z0 has the rule 24.0.2.0.192.rpz-ip: NODATA"),
            (&[("given", "www.example CNAME .")], "alias.example", "PolicyZone/z0 has the rule www.example: NXDOMAIN"),
            (&[("given", "ns.example.rpz-nsdname CNAME .")], "www.example", "PolicyZone/z0 has the rule ns.example.rpz-nsdname: NXDOMAIN"),
            (&[("given", "www.example A 10.0.0.1")], "www.example", "10.0.0.1"),
            (&[("given", "www.example CNAME garden.")], "www.example", "192.0.2.9"),
            (&[("disabled", "www.example CNAME .")], "www.example", "192.0.2.1"),
            (&[("given", "")], "gone.example", "there is no such name, or it has no address"),
        ] {
            let world = World::new();
            world.rig.filter(policy(zones));
            let snapshot = world.rig.shared.current.pin().unwrap();
            let outcome = match world.rig.dns.addresses(&asked.parse().unwrap(), &snapshot).await {
                Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(outcome, expected, "{zones:?} {asked}");
            let is_refused_by_name =
                zones.iter().any(|(_, rules)| rules.starts_with("www.example CNAME") && expected.contains("has the rule"));
            assert!(asked != "www.example" || !is_refused_by_name || world.asked.borrow().is_empty(), "{:?}", world.asked);
        }
    });
}

#[test]
fn where_a_name_leads_is_remembered_where_nothing_else_was_looked_at() {
    run(async {
        for (zones, asked, expected) in [
            (&[][..], "www.example", true),
            (&[], "alias.example", true),
            (&[("given", "other.example CNAME .")], "www.example", true),
            (&[("given", "32.9.2.0.192.rpz-ip CNAME .")], "alias.example", true),
            (&[], "far.example", false),
            (&[], "localhost", false),
            (&[("given", "www.example CNAME rpz-passthru.")], "www.example", false),
            (&[("given", "www.example CNAME rpz-tcp-only.")], "www.example", false),
            (&[("given", "www.example A 10.0.0.1")], "www.example", false),
            (&[("given", "www.example CNAME garden.")], "www.example", false),
            (&[("given", "32.1.2.0.192.rpz-ip CNAME rpz-passthru.")], "www.example", false),
            (&[("given", "other.example.rpz-nsdname CNAME .")], "www.example", false),
            (&[("disabled", "www.example CNAME .")], "www.example", false),
        ] {
            let world = World::new();
            world.rig.filter(policy(zones));
            let (dns, snapshot) = (&world.rig.dns, world.rig.shared.current.pin().unwrap());
            let asked = asked.parse().unwrap();
            assert_eq!(dns.remembered(&asked, &snapshot, Instant::now()), None, "{zones:?} {asked}");
            for _ in 0..POPULAR {
                dns.addresses(&asked, &snapshot).await.unwrap();
            }
            let found = dns.addresses(&asked, &snapshot).await.unwrap();
            assert_eq!(dns.remembered(&asked, &snapshot, Instant::now()), expected.then_some(found), "{zones:?} {asked}");
        }
    });
}

#[test]
fn where_a_name_leads_is_remembered_until_a_reply_is_to_be_refreshed_or_a_policy_is_pushed() {
    run(async {
        let world = World::new();
        let (rig, asked) = (&world.rig, "www.example".parse().unwrap());
        let pinned = || rig.shared.current.pin().unwrap();
        let learn = async || {
            for _ in 0..=POPULAR {
                rig.dns.addresses(&asked, &pinned()).await.unwrap();
            }
        };
        let is_known = |now| rig.dns.remembered(&asked, &pinned(), now).is_some();

        // There is no AAAA for 30 s, and the last tenth of them is for asking again.
        let before = Instant::now();
        learn().await;
        let after = Instant::now();
        assert!(is_known(before + Duration::from_millis(26_900)));
        assert!(!is_known(after + Duration::from_secs(27)));

        for zones in ["www.example CNAME .", "32.1.2.0.192.rpz-ip CNAME *."] {
            let stands = pinned();
            rig.filter(policy(&[("given", zones)]));
            assert!(!is_known(before), "{zones}");
            assert!(rig.dns.addresses(&asked, &pinned()).await.is_err(), "{zones}");
            assert!(!is_known(before), "{zones}");
            assert!(rig.dns.remembered(&asked, &stands, before).is_some(), "whoever pinned the policy before decides under it");
            rig.filter(policy(&[]));
            assert!(!is_known(before), "{zones}");
            learn().await;
            assert!(is_known(before), "{zones}");
        }
        rig.filter(None);
        assert!(!is_known(before), "without its zones nothing leads anywhere");
    });
}

#[test]
fn what_a_workload_was_told_holds_no_longer_than_the_policy() {
    for (zones, expected) in [
        (&[][..], true),
        (&[("given", "www.example CNAME .")], false),
        (&[("given", "www.example CNAME rpz-drop.")], false),
        (&[("disabled", "www.example CNAME .")], true),
        (&[("given", "32.1.2.0.192.rpz-ip CNAME .")], false),
        (&[("given", "www.example A 192.0.2.2")], false),
        (&[("given", "www.example A 192.0.2.1")], true),
        (&[("given", "www.example CNAME garden.")], true),
        (&[("given", "www.example CNAME rpz-passthru."), ("given", "32.1.2.0.192.rpz-ip CNAME .")], true),
    ] {
        assert_eq!(may_lead(&"www.example".parse().unwrap(), [192, 0, 2, 1].into(), &policy(zones).unwrap()), expected, "{zones:?}");
    }
}
