//! Bytes that come as a compiled zone are refused, or can be asked anything.
//!
//! An input is the bytes without their checksum, which is put right here; the text of a zone, behind `text\n`, becomes such bytes first, and
//! an input after that changes them: `text\nZONE\0PLACES-AND-OCTETS`.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use ringfence_policy::{
    ratelimit::Mode,
    rpz::{Name, Policy, PolicyZone, Query, Record, Scope, Transport, Trigger, Verdict, Walk, Zone, rtype, text},
};
use sha2::{Digest, Sha256};

fuzz_target!(|input: &[u8]| {
    let Some(mut bytes) = bytes_of(input) else { return };
    if bytes.len() > 40 {
        let checksum = Sha256::digest(&bytes[40..]);
        bytes[8..40].copy_from_slice(&checksum);
    }
    let Ok(zone) = Zone::open(bytes.into()) else { return };
    for trigger in Trigger::ALL {
        zone.rule_count(trigger);
    }
    let zone =
        PolicyZone { name: "zone".into(), zone, scope: Scope::Tenant, r#override: Default::default(), mode: Mode::Enforce, max_ttl: None };
    let policy: Policy = [zone].into_iter().collect();
    for name in ["a", "a.b", "c.a.b", "www.example.com", "x.y.z.example", "."] {
        for rtype in [rtype::A, rtype::ANY, rtype::CNAME] {
            ask(&policy, name.parse().expect("a name"), rtype, input);
        }
    }
});

fn bytes_of(input: &[u8]) -> Option<Vec<u8>> {
    let Some(text) = input.strip_prefix(b"text\n") else { return Some(input.to_vec()) };
    let (text, changes) = text.iter().position(|octet| *octet == 0).map_or((text, &[][..]), |at| (&text[..at], &text[at + 1..]));
    let mut bytes = text::compile(text, None).bytes?;
    for [high, low, octet] in changes.as_chunks::<3>().0 {
        let length = bytes.len();
        bytes[usize::from(u16::from_be_bytes([*high, *low])) % length] = *octet;
    }
    Some(bytes)
}

fn ask(policy: &Policy, name: Name, rtype: u16, input: &[u8]) {
    let address = input.first_chunk::<16>().copied().unwrap_or_default();
    let client = IpAddr::from(address);
    let mut walk = Walk::new(policy, Query { name: name.clone(), rtype, client, transport: Transport::Udp });
    if walk.filter_query().is_some() {
        return;
    }
    let answer = [Record { owner: name, rtype: rtype::AAAA, ttl: 1, rdata: address.to_vec() }];
    let mut verdict = walk.filter_response(0, &answer);
    while let Verdict::Ask(lookup) = verdict {
        let server = Record { owner: lookup.name.clone(), rtype: rtype::NS, ttl: 1, rdata: b"\x02ns\x01a\0".to_vec() };
        let own = Record { owner: lookup.name.clone(), rtype: rtype::A, ttl: 1, rdata: address[..4].to_vec() };
        verdict = walk.filter_lookup(lookup, Some(vec![server, own]));
    }
}
