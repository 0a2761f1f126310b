use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rpz::Name;

fn wire(text: &str) -> Vec<u8> {
    text.parse::<Name>().unwrap().as_wire().to_vec()
}

/// Labels in wire form, without the root.
fn labels(text: &str) -> Vec<u8> {
    let mut wire = wire(text);
    wire.pop();
    wire
}

#[test]
fn a_domain_is_the_last_two_labels() {
    for (name, domain, below) in [
        (".", ".", ""),
        ("localhost.", "localhost.", ""),
        ("example.com.", "example.com.", ""),
        ("www.example.com.", "example.com.", "www"),
        ("a.b.example.co.uk.", "co.uk.", "a.b.example"),
        ("api.team.svc.cluster.local.", "cluster.local.", "api.team.svc"),
        ("1.2.0.192.in-addr.arpa.", "in-addr.arpa.", "1.2.0.192"),
        ("1.0.8.b.d.0.1.0.0.2.ip6.arpa.", "ip6.arpa.", "1.0.8.b.d.0.1.0.0.2"),
    ] {
        let octets = wire(name);
        let question = Question::new(&octets, rtype::A, false);
        let expected = if below.is_empty() { Vec::new() } else { labels(below) };
        assert_eq!((question.domain(), question.below), (&wire(domain)[..], &expected[..]), "{name}");
    }
}

#[test]
fn what_labels_can_say() {
    for (text, octets) in [
        ("www", 3),
        ("api", 4),
        ("checkout", 7),
        ("a", 2),
        ("a.a.a.a", 6),
        // Its length alone tells something.
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 8),
        // Ten octets in base32.
        ("mfrggzdfmztwq2lk", 12),
        // Sixteen in hexadecimal.
        ("3f2b8c1d9e4a7f60b5d2c8e1a9f37046", 23),
        // 38 in base32.
        ("nbswy3dpeb3w64tmmqqgs43vmvzsa2lomzxxe3lboruw63ramfzsaylomnwgk", 43),
    ] {
        assert_eq!(entropy(&labels(text)), octets, "{text}");
    }
    assert_eq!(entropy(b""), 0);
    // Binary: as many as there are.
    let all: Vec<u8> = std::iter::once(63).chain(128..191).collect();
    assert_eq!(entropy(&all), 64);
}

/// Data in base32 costs what it is, however it is cut into labels.
#[test]
fn what_is_carried_is_charged() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    for length in [8, 16, 24, 32, 48, 63] {
        let (mut carried, mut charged) = (0.0, 0);
        for _ in 0..1000 {
            let label: Vec<u8> = (0..length).map(|_| b"abcdefghijklmnopqrstuvwxyz234567"[(next() >> 59) as usize]).collect();
            charged += entropy(&[&[length], &label[..]].concat());
            carried += f64::from(length) * 5.0 / 8.0;
        }
        assert!(f64::from(charged) >= carried, "{length}: {charged} of {carried}");
        assert!(f64::from(charged) <= carried * 1.6 + 2000.0, "{length}: {charged} of {carried}");
    }
}

#[test]
fn few_names_are_cheap() {
    // Kraft, in octets: no more than 2^(8b+1) names without their label's octet cost b. All names of up to three of these characters.
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789-_\x00\xff";
    let mut by_cost = BTreeMap::<u32, f64>::new();
    let mut count = |label: &[u8]| *by_cost.entry(entropy(&[&[label.len() as u8], label].concat()) - 1).or_default() += 1.0;
    for &a in alphabet {
        count(&[a]);
        for &b in alphabet {
            count(&[a, b]);
            alphabet.iter().for_each(|&c| count(&[a, b, c]));
        }
    }
    for (cost, names) in by_cost {
        assert!(names <= 2_f64.powi(8 * cost as i32 + 1), "{names} names for {cost}");
    }
}

#[test]
fn types_that_are_asked_side_by_side_are_one_question() {
    let name = wire("www.example.com");
    let identity = |rtype| Question::new(&name, rtype, false).identity();
    assert_eq!(identity(rtype::A), identity(rtype::AAAA));
    assert_eq!(identity(rtype::HTTPS), identity(16));
    assert_ne!(identity(10), identity(rtype::A));
    assert_ne!(identity(10), identity(4711));
}

#[test]
fn what_is_charged_when() {
    let limit = |count| {
        let quota = Quota { rate: "10/s".parse().unwrap(), burst: 255.try_into().unwrap() };
        Limit { count, key: Key::Tenant, quota, mode: Mode::Enforce, rule: RuleRef::new("r") }
    };
    let budget: Budget = Count::ALL.into_iter().map(|count| Arc::new(limit(count))).collect();
    let told = |charges: &mut dyn Iterator<Item = Charge<'_>>| -> Vec<String> {
        charges.map(|(limit, cost)| format!("{} {cost}", limit.count.as_str())).collect()
    };
    assert_eq!(told(&mut budget.at_once()), ["queries 1"]);
    let name = wire("www.example.com");
    for (name, rtype, dnssec_ok, is_fresh, expected) in [
        (&name[..], rtype::A, false, true, &["names 1", "entropy 3"][..]),
        (&name, rtype::A, false, false, &[]),
        (&name, rtype::A, true, false, &["txt 0"]),
        (&name, 16, false, true, &["names 1", "entropy 3", "txt 0"]),
        // Each record holds a name of 255 octets, and there may be hundreds: tunnels bring their answers in those too.
        (&name, rtype::NS, false, false, &["txt 0"]),
        (&name, 12, false, false, &["txt 0"]),
        (&name, 15, false, false, &["txt 0"]),
        (&name, 33, false, false, &["txt 0"]),
        (&name, rtype::CNAME, false, false, &[]),
        (&name, 10, false, false, &["txt 0"]),
        (&name, 255, false, false, &["txt 0"]),
        (&name, 65400, false, false, &["txt 0"]),
        (&name[4..], rtype::A, false, true, &["names 1"]),
    ] {
        assert_eq!(told(&mut budget.to_ask(&Question::new(name, rtype, dnssec_ok), is_fresh)), expected, "{rtype} {dnssec_ok} {is_fresh}");
    }
    assert_eq!(told(&mut budget.to_tell(700)), ["txt 700"]);
}

proptest! {
    #[test]
    fn entropy_is_at_most_what_is_on_the_wire(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..63), 0..6)) {
        let wire: Vec<u8> = labels.iter().flat_map(|label| [&[label.len() as u8], &label[..]].concat()).take(253).collect();
        let octets = entropy(&wire);
        prop_assert!(octets as usize <= wire.len());
        prop_assert!(octets as usize >= labels.len().min(1));
    }

    #[test]
    fn more_never_costs_less(label in "[a-z0-9-]{1,62}", more in any::<u8>(), another in "[a-z]{1,20}") {
        let of = |label: &[u8]| [&[label.len() as u8], label].concat();
        let alone = entropy(&of(label.as_bytes()));
        prop_assert!(entropy(&of(&[label.as_bytes(), &[more]].concat())) >= alone);
        prop_assert!(entropy(&[of(label.as_bytes()), of(another.as_bytes())].concat()) > alone);
    }

    #[test]
    fn any_octets_are_counted(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let question = Question::new(&octets, 16, true);
        prop_assert!(question.domain().len() <= octets.len());
        entropy(&octets);
    }
}
