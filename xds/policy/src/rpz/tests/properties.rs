//! Searched against looked through one by one; and bytes that nobody made.

use proptest::prelude::*;

use super::*;
use crate::ratelimit::Mode;

/// Few labels, so that names meet.
fn any_name() -> impl Strategy<Value = Name> {
    let label = prop_oneof![4 => "[abc]", 1 => "[a-c]{2}", 1 => Just("\\000".to_owned()), 1 => Just("\\255".to_owned()), 1 => "x{59}"];
    prop::collection::vec(label, 1..5).prop_map(|labels| name(&labels.join(".")))
}

#[derive(Clone, Debug)]
struct Rule {
    name: Name,
    wildcard: bool,
    action: &'static str,
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![Just("CNAME ."), Just("CNAME *."), Just("CNAME rpz-drop."), Just("A 192.0.2.1"), Just("60 CNAME .")];
    (prop_oneof![20 => any_name(), 1 => Just(Name::root())], any::<bool>(), action).prop_map(|(name, wildcard, action)| {
        let wildcard = wildcard || name.is_root();
        Rule { name, wildcard, action }
    })
}

/// Owner as the zone's text has it, relative to the root.
fn owner(rule: &Rule) -> String {
    match (rule.wildcard, rule.name.is_root()) {
        (true, true) => "*.".to_owned(),
        (true, false) => format!("*.{}", rule.name),
        (false, _) => rule.name.to_string(),
    }
}

fn compiled(text: &str) -> Vec<u8> {
    text::compile(text.as_bytes(), None).bytes.unwrap()
}

fn opened(text: &str) -> Zone {
    Zone::open(compiled(text).into()).unwrap()
}

fn policy(zone: Zone) -> Policy {
    [PolicyZone { name: "z".into(), zone, scope: Scope::Tenant, r#override: Override::Given, mode: Mode::Enforce, max_ttl: None }]
        .into_iter()
        .collect()
}

/// The owner of the rule that acts on a name.
fn acting(policy: &Policy, name: &Name, client: IpAddr) -> Option<String> {
    let query = Query { name: name.clone(), rtype: rtype::A, client, transport: Transport::Udp };
    Walk::new(policy, query).filter_query().map(|act| match act {
        Act::Answer(rewrite) => rewrite.decision.owner.to_string(),
        Act::Drop(decision) => decision.owner.to_string(),
    })
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let edges = |bits: u32| prop_oneof![Just(0u128), Just(u128::MAX), any::<u128>()].prop_map(move |all| all >> (128 - bits));
    prop_oneof![
        edges(32).prop_map(|all| IpAddr::from(std::net::Ipv4Addr::from_bits(all as u32))),
        edges(128).prop_map(std::net::Ipv6Addr::from_bits).prop_filter("mapped", |a| a.to_ipv4_mapped().is_none()).prop_map(IpAddr::from),
    ]
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    (any_address(), 1u8..=128).prop_map(|(address, length)| IpNet::new(address, 1 + (length - 1) % bits(address).1).unwrap().trunc())
}

proptest! {
    #[test]
    fn names_are_found_as_one_by_one(rules in prop::collection::vec(any_rule(), 0..60), asked in prop::collection::vec(any_name(), 1..20)) {
        let text: String = rules.iter().map(|rule| format!("{} {}\n", owner(rule), rule.action)).collect();
        let policy = policy(opened(&text));
        let known = rules.iter().map(|rule| &rule.name).filter(|name| !name.is_root()).cloned();
        let below = asked.iter().zip(&rules).filter_map(|(name, rule)| name.followed_by(&rule.name));
        for name in known.chain(below.collect::<Vec<_>>()).chain(asked) {
            let exact = rules.iter().find(|rule| !rule.wildcard && rule.name == name);
            let above = rules.iter().filter(|rule| rule.wildcard && name != rule.name && name.before(&rule.name).is_some());
            let expected = exact.or_else(|| above.max_by_key(|rule| rule.name.label_count()));
            let expected = expected.map(|rule| owner(rule).trim_end_matches('.').to_owned());
            prop_assert_eq!(acting(&policy, &name, [127, 0, 0, 1].into()), expected, "{} in\n{}", name, text);
        }
    }

    #[test]
    fn prefixes_are_found_as_one_by_one(prefixes in prop::collection::vec(any_prefix(), 0..40), asked in prop::collection::vec(any_address(), 1..20)) {
        let text: String = prefixes.iter().map(|prefix| format!("{}.rpz-client-ip CNAME .\n", trigger::encode(*prefix))).collect();
        let policy = policy(opened(&text));
        let edges = prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
        for address in edges.chain(asked).filter(|address| address.to_canonical() == *address) {
            let holding = prefixes.iter().filter(|prefix| prefix.contains(&address)).max_by_key(|prefix| prefix.prefix_len());
            let expected = holding.map(|prefix| format!("{}.rpz-client-ip", trigger::encode(*prefix)));
            prop_assert_eq!(acting(&policy, &name("a"), address), expected, "{}", address);
        }
    }

    #[test]
    fn the_order_of_rules_does_not_matter(rules in prop::collection::hash_map(any_name(), any_rule(), 0..40)) {
        let lines: Vec<String> = rules.iter().map(|(name, rule)| format!("{} {}\n", owner(&Rule { name: name.clone(), ..rule.clone() }), rule.action)).collect();
        let forwards: String = std::iter::once("$TTL 30\n".to_owned()).chain(lines.iter().cloned()).collect();
        let backwards: String = std::iter::once("$TTL 30\n".to_owned()).chain(lines.iter().rev().cloned()).collect();
        prop_assert_eq!(compiled(&forwards), compiled(&backwards));
    }

    #[test]
    fn bytes_that_nobody_made_are_refused_or_harmless(
        rules in prop::collection::vec(any_rule(), 1..30),
        prefixes in prop::collection::vec(any_prefix(), 0..10),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        asked in any_name(),
    ) {
        let mut text: String = rules.iter().map(|rule| format!("{} {}\n", owner(rule), rule.action)).collect();
        text.extend(prefixes.iter().map(|prefix| format!("{}.rpz-client-ip CNAME *.\n", trigger::encode(*prefix))));
        let mut bytes = compiled(&text);
        prop_assert!(Zone::open(bytes.clone().into()).is_ok());
        for (place, octet) in changes {
            let place = place.index(bytes.len());
            bytes[place] = octet;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(zone) = Zone::open(resealed(bytes).into()) {
            for trigger in Trigger::ALL {
                zone.rule_count(trigger);
            }
            let policy = policy(zone);
            for rule in &rules {
                acting(&policy, &rule.name, [192, 0, 2, 1].into());
            }
            acting(&policy, &asked, [0xff; 16].into());
        }
    }

    #[test]
    fn any_text_is_read_to_its_end(text in prop::collection::vec(any::<u8>(), 0..200)) {
        text::compile(&text, None);
    }

    #[test]
    fn almost_zones_are_read_to_their_end(text in r#"([a-c.*@$\\"();0-9 \n]|CNAME|TXT|A|SOA|HTTPS|rpz-ip|TYPE9 \\#){0,60}"#) {
        if let Some(bytes) = text::compile(text.as_bytes(), None).bytes {
            prop_assert!(Zone::open(bytes.into()).is_ok(), "{}", text);
        }
    }
}

/// With the checksum that an enemy would put.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() > 40 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes[40..]);
        bytes[8..40].copy_from_slice(digest.as_ref());
    }
    bytes
}

#[test]
fn damage_is_told_from_other_formats() {
    let good = compiled("a CNAME .");
    let changed = |at: usize, octet: u8| {
        let mut bytes = good.clone();
        bytes[at] = octet;
        Zone::open(bytes.into()).unwrap_err()
    };
    assert_eq!(changed(0, b'x'), ZoneError::Magic);
    assert_eq!(changed(6, 9), ZoneError::Format(9));
    assert_eq!(changed(8, good[8] ^ 1), ZoneError::Checksum);
    assert_eq!(changed(good.len() - 1, good[good.len() - 1] ^ 1), ZoneError::Checksum);
    assert_eq!(Zone::open(good[..20].to_vec().into()).unwrap_err(), ZoneError::Header);
    for cut in 0..good.len() {
        assert!(Zone::open(resealed(good[..cut].to_vec()).into()).is_err(), "{cut}");
    }
}
