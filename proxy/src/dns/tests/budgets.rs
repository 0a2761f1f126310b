//! What queries are charged, and what becomes of those that a limit refuses.

use std::time::{Duration, Instant};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::TXT},
};
use ringfence_policy::{
    RuleRef,
    budget::{Count, Key, Limit},
    ratelimit::{Mode, Quota},
};

use super::peers::*;
use crate::dns::answer::Transport;

fn limit(count: Count, key: Key, rate: &str, burst: u32) -> Limit {
    let quota = Quota { rate: rate.parse().unwrap(), burst: burst.try_into().unwrap() };
    Limit { count, key, quota, mode: Mode::Enforce, rule: RuleRef::new(format!("Workload/test: dns.limits[{}]", count.as_str())) }
}

fn txt(owner: &str, ttl: u32, octets: usize) -> Record {
    Record::from_rdata(name(owner), ttl, RData::TXT(TXT::new(vec!["x".repeat(99); octets / 100])))
}

/// Addresses for all, TTL 300; below `c2.example` a thousand octets of text, TTL 0.
fn world() -> (Rig, Stub) {
    let stub = Stub::start(|asked| match (asked.name().as_str(), asked.query.queries[0].query_type) {
        (owner, RecordType::TXT) => asked.answer(vec![txt(owner, 0, 1000)]),
        (owner, RecordType::A) => asked.answer(vec![a(owner, 300, 1)]),
        _ => asked.rcode(ResponseCode::NXDomain, vec![soa(".", 300)]),
    });
    (Rig::new(vec![stub.upstream()]), stub)
}

/// Rcode and extended error of each.
async fn rcodes(rig: &Rig, asked: &[(&str, RecordType)], at: Instant) -> Vec<String> {
    let mut rcodes = Vec::new();
    for (name, qtype) in asked {
        let packet = query(name, *qtype).to_vec().unwrap();
        let answer = Message::from_vec(&rig.send(&packet, Transport::Udp, at).await).unwrap();
        let ede = answer.edns.as_ref().and_then(crate::dns::ede::Ede::of).map_or(String::new(), |ede| format!(" {}", ede.code));
        rcodes.push(format!("{:?}{ede}", answer.metadata.response_code));
    }
    rcodes
}

const OK: &str = "NoError";
const REFUSED: &str = "Refused 18";

#[test]
fn every_query_counts_also_those_answered_from_memory() {
    run(async {
        let (rig, stub) = world();
        rig.limit([limit(Count::Queries, Key::Tenant, "1/s", 3)]);
        let now = Instant::now();
        let same = [("www.example.", RecordType::A); 5];
        assert_eq!(rcodes(&rig, &same, now).await, [OK, OK, OK, REFUSED, REFUSED]);
        assert_eq!(stub.asked.get(), 1);
        // A refusal is not remembered.
        assert_eq!(rcodes(&rig, &same[..2], now + Duration::from_secs(1)).await, [OK, REFUSED]);
        let metrics = rig.shared.metrics.render().unwrap();
        assert!(metrics.contains("ringfence_dns_queries_total{decision=\"deny\",reason=\"rate_limited\"} 3"), "{metrics}");
    });
}

#[test]
fn new_names_count_by_domain_and_known_ones_do_not() {
    run(async {
        let (rig, stub) = world();
        rig.limit([limit(Count::Names, Key::Domain, "2/h", 2)]);
        let now = Instant::now();
        use RecordType as T;
        for (asked, expected) in [
            (("a.evil.example.", T::A), OK),
            // Another type of the same name, as glibc and musl ask.
            (("a.evil.example.", T::AAAA), "NXDomain"),
            (("b.evil.example.", T::A), OK),
            (("c.evil.example.", T::A), REFUSED),
            // Asking again does not make it known.
            (("c.evil.example.", T::A), REFUSED),
            // Known, and asked upstream again.
            (("b.evil.example.", T::TXT), OK),
            // A type that nobody asks for says something itself.
            (("b.evil.example.", T::Unknown(4711)), REFUSED),
            (("a.evil.example.", T::A), OK),
            // Another domain's count.
            (("www.good.test.", T::A), OK),
        ] {
            assert_eq!(rcodes(&rig, &[asked], now).await, [expected], "{asked:?}");
        }
        assert_eq!(stub.asked.get(), 5, "who is refused is not heard of");
        assert_eq!(rcodes(&rig, &[("c.evil.example.", T::A)], now + Duration::from_secs(1800)).await, [OK]);
    });
}

#[test]
fn what_labels_say_is_charged_in_octets() {
    run(async {
        let (rig, _stub) = world();
        rig.limit([limit(Count::Entropy, Key::Domain, "255/h", 255)]);
        let now = Instant::now();
        // 43 octets each, of 61 characters.
        let data = |i: usize| format!("nbswy3dpeb3w64tmmqqgs43vmvzsa2lomzxxe3lboruw63ramfzsaylomnw{i:02}.t.example.");
        let names: Vec<String> = (10..20).map(data).collect();
        let asked: Vec<_> = names.iter().map(|name| (name.as_str(), RecordType::A)).collect();
        let told = rcodes(&rig, &asked, now).await;
        let passed = told.iter().filter(|rcode| *rcode == OK).count();
        assert_eq!(passed, 5, "{told:?}");
        assert_eq!(told[passed..], [REFUSED; 5]);
        // What little is left is enough for a word.
        assert_eq!(rcodes(&rig, &[("www.t.example.", RecordType::A), ("t.example.", RecordType::A)], now).await, [OK, OK]);
    });
}

#[test]
fn free_form_answers_are_owed() {
    run(async {
        let (rig, stub) = world();
        rig.limit([limit(Count::Txt, Key::Domain, "1500/h", 1500)]);
        let now = Instant::now();
        let (text, address) = (("c2.example.", RecordType::TXT), ("c2.example.", RecordType::A));
        // The second answer is more than is left, and told all the same; the third question is not asked.
        assert_eq!(rcodes(&rig, &[text, text, text, address], now).await, [OK, OK, REFUSED, OK]);
        assert_eq!(stub.asked.get(), 3);
        assert_eq!(rcodes(&rig, &[("other.test.", RecordType::TXT)], now).await, [OK]);
        // 500 octets of debt: twenty minutes.
        assert_eq!(rcodes(&rig, &[text], now + Duration::from_secs(19 * 60)).await, [REFUSED]);
        assert_eq!(rcodes(&rig, &[text], now + Duration::from_secs(21 * 60)).await, [OK]);
    });
}

#[test]
fn a_remembered_answer_is_paid_for_once() {
    run(async {
        let stub = Stub::start(|asked| asked.answer(vec![txt(&asked.name(), 300, 1000)]));
        let rig = Rig::new(vec![stub.upstream()]);
        rig.limit([limit(Count::Txt, Key::Tenant, "1500/h", 1500)]);
        let now = Instant::now();
        let [first, second, third] = ["a.example.", "b.example.", "c.example."].map(|name| (name, RecordType::TXT));
        assert_eq!(rcodes(&rig, &[first, first, first, second, third, second], now).await, [OK, OK, OK, OK, REFUSED, OK]);
    });
}

#[test]
fn in_shadow_mode_a_limit_only_tells() {
    run(async {
        let (rig, _stub) = world();
        let shadow = |count| Limit { mode: Mode::Shadow, ..limit(count, Key::Tenant, "1/h", 1) };
        rig.limit([shadow(Count::Names), shadow(Count::Txt), limit(Count::Names, Key::Domain, "3/h", 3)]);
        let asked = ["a.x.example.", "b.x.example.", "c.x.example.", "d.x.example."].map(|name| (name, RecordType::TXT));
        assert_eq!(rcodes(&rig, &asked, Instant::now()).await, [OK, OK, OK, REFUSED]);
        let metrics = rig.shared.metrics.render().unwrap();
        for (decision, count) in [("shadow", 2), ("deny", 1)] {
            let line = format!("ringfence_dns_queries_total{{decision=\"{decision}\",reason=\"dns_budget_spent\"}} {count}");
            assert!(metrics.contains(&line), "{line}");
        }
    });
}

#[test]
fn a_changed_limit_refills_nothing() {
    run(async {
        let (rig, _stub) = world();
        let now = Instant::now();
        let names: Vec<String> = (0..40).map(|i| format!("n{i}.x.example.")).collect();
        let passed = async |from: usize, until: usize| {
            let asked: Vec<_> = names[from..until].iter().map(|name| (name.as_str(), RecordType::A)).collect();
            rcodes(&rig, &asked, now).await.iter().filter(|rcode| *rcode == OK).count()
        };
        rig.limit([limit(Count::Names, Key::Domain, "10/h", 10)]);
        assert_eq!(passed(0, 8).await, 8);
        // A fifth is left of whatever it is.
        rig.limit([limit(Count::Names, Key::Domain, "20/h", 20)]);
        assert_eq!(passed(10, 20).await, 4);
        rig.limit([limit(Count::Names, Key::Domain, "10/h", 10)]);
        assert_eq!(passed(20, 30).await, 0);
    });
}

/// A pod's search list makes several names of one; the ordinary limits of an operator leave room for all of them.
#[test]
fn a_search_list_fits() {
    run(async {
        let (rig, _stub) = world();
        rig.limit([
            limit(Count::Queries, Key::Tenant, "100/s", 300),
            limit(Count::Names, Key::Domain, "600/h", 600),
            limit(Count::Entropy, Key::Domain, "16384/h", 16384),
            limit(Count::Txt, Key::Domain, "65536/h", 65536),
        ]);
        let now = Instant::now();
        for number in 0..100 {
            let (host, at) = (format!("api-{number}.partner.test."), now + Duration::from_secs(number));
            for suffix in ["team.svc.cluster.local.", "svc.cluster.local.", "cluster.local.", "us-east-2.compute.internal.", ""] {
                let asked = format!("{host}{suffix}");
                let both = [(asked.as_str(), RecordType::A), (asked.as_str(), RecordType::AAAA)];
                assert!(rcodes(&rig, &both, at).await.iter().all(|rcode| rcode != REFUSED), "{asked}");
            }
        }
    });
}
