use proptest::prelude::*;
use ringfence_xds::{decode, policy::rpz::Trigger, resource::Kind};

use super::*;

/// `count` rules of uneven length, and what else is said.
fn text(count: usize, more: &str) -> String {
    let mut text = String::from("$TTL 300\n@ SOA localhost. root.localhost. 1 3600 900 86400 60\n");
    for i in 0..count {
        text += &format!("{}{i}.example CNAME .\n", "x".repeat(i * 7919 % 23));
    }
    text + more
}

/// What a sidecar makes of the resources.
fn open(resources: &[Resource]) -> Zone {
    let (manifest, chunks) = resources.split_last().unwrap();
    let bytes: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| match decode::decode(chunk.kind, &chunk.name, &chunk.bytes).unwrap() {
            decode::Decoded::ZoneChunk(data) => data,
            other => panic!("{other:?}"),
        })
        .collect();
    match decode::decode(manifest.kind, &manifest.name, &manifest.bytes).unwrap() {
        decode::Decoded::PolicyZone(held) => held.manifest.open(bytes.into()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sidecar_opens_what_is_told() {
    let zone = compile(text(20_000, "").as_bytes(), "malware").unwrap();
    let resources = zone.resources("malware", "nxdomain", "5m");
    assert!(resources.len() > 4, "it is cut: {}", resources.len());
    let opened = open(&resources);
    assert_eq!((opened.rule_count(Trigger::Qname), opened.serial(), opened.origin().to_string()), (20_000, Some(1), "malware.".into()));
    let told: usize = resources.iter().filter(|resource| resource.kind == Kind::ZoneChunk).map(|chunk| chunk.bytes.len()).sum();
    assert!(told < opened.as_bytes().len() * 101 / 100, "{told} bytes tell {}", opened.as_bytes().len());
    for resource in &resources {
        let again = Resource::encoded(resource.kind, resource.name.clone(), resource.bytes.clone());
        assert!(decode::check(&again).is_empty(), "{}", resource.name);
    }
}

#[test]
fn an_edit_sends_few_chunks_anew() {
    let resources = |text: &str| compile(text.as_bytes(), "malware").unwrap().resources("malware", "", "");
    let before = resources(&text(200_000, ""));
    let after = resources(&text(200_000, "mmm.example CNAME .\n"));
    let fresh: usize = after.iter().filter(|resource| !before.iter().any(|old| old.name == resource.name)).map(|new| new.bytes.len()).sum();
    let whole: usize = after.iter().map(|resource| resource.bytes.len()).sum();
    assert!(fresh > 0 && fresh < whole / 2, "{fresh} of {whole} bytes");
}

#[test]
fn faults_are_told_by_line_and_are_not_many() {
    let faults = |text: &str| compile(text.as_bytes(), "malware").unwrap_err();
    let told = faults("a CNAME .\nb CNAEM .\n");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].line, 2);
    let hosts = "127.0.0.1 localhost\n".repeat(10_000);
    assert!((1..=MAX_FAULTS + 1).contains(&faults(&hosts).len()));
    let zone = compile("a CNAME rpz-odd.\n".repeat(100).as_bytes(), "malware").unwrap();
    assert_eq!(zone.left_out().len(), MAX_FAULTS + 1);
    assert_eq!(zone.left_out().last().unwrap().message, "and 80 more");
    assert!(
        compile("\u{7}\u{1b}[2J CNAME x\n".as_bytes(), "malware")
            .err()
            .into_iter()
            .flatten()
            .all(|fault| !fault.message.contains('\u{1b}'))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rules_are_the_same_resources(mut names in prop::collection::hash_set("[a-z]{1,12}", 0..200), at in any::<prop::sample::Index>()) {
        let lines = |names: &[String]| names.iter().map(|name| format!("{name}.example CNAME .\n")).collect::<String>();
        let mut names: Vec<String> = names.drain().collect();
        let resources = |names: &[String]| compile(lines(names).as_bytes(), "malware").unwrap().resources("malware", "given", "");
        let told = resources(&names);
        let middle = at.index(names.len() + 1);
        names.rotate_left(middle);
        prop_assert_eq!(resources(&names), told.clone());
        prop_assert_eq!(open(&told).rule_count(Trigger::Qname) as usize, names.len());
    }
}
