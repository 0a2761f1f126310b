//! Aliases that lead nowhere: in a circle, or on for ever.

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, Record, RecordType, rdata::CNAME},
};
use ringfence_tests::liar::{Asked, Says};

use super::{GOOD, World, a, cname, name};

/// Links that are followed (`limits::MAX_CHAIN`).
const MAX_CHAIN: usize = 16;
/// Network Error (RFC 8914 §4.24): the upstream's answer was of no use.
const NO_USE: Option<u16> = Some(23);

/// `c0.LABEL.test` to `cN.LABEL.test`, each an alias of the next.
fn chain(label: &str, links: usize) -> Vec<Record> {
    (0..links).map(|link| cname(&format!("c{link}.{label}.test"), &format!("c{}.{label}.test", link + 1))).collect()
}

/// A DNAME record, which hickory-proto knows by its number alone, and the CNAME that is made of it (RFC 6672).
fn dname(asked: &Asked, owner: &str, to: &str) -> [Record; 2] {
    let rdata = hickory_proto::rr::rdata::NULL::with(hickory_proto::serialize::binary::BinEncodable::to_bytes(&name(to)).unwrap());
    let below = asked.name();
    let made = format!("{}{to}", below.strip_suffix(owner).expect("it is below"));
    let alias = Record::from_rdata(name(&below), 60, RData::CNAME(CNAME(name(&made))));
    [Record::from_rdata(name(owner), 60, RData::Unknown { code: RecordType::DNAME, rdata }), alias]
}

fn script(asked: &Asked) -> Says {
    let of = asked.name();
    let answer = |records: Vec<Record>| asked.answer(ResponseCode::NoError, records).into();
    let (link, label) = of.split_once('.').expect("a name of labels");
    let number: Option<usize> = link.strip_prefix('c').and_then(|number| number.parse().ok());
    match (label, number) {
        // All in one answer.
        ("sixteen.test", _) => answer([chain("sixteen", 16), vec![a("c16.sixteen.test", 60, 1)]].concat()),
        ("seventeen.test", _) => answer([chain("seventeen", 17), vec![a("c17.seventeen.test", 60, 1)]].concat()),
        ("hundred.test", _) => answer([chain("hundred", 100), vec![a("c100.hundred.test", 60, 1)]].concat()),
        ("circle.test", _) => answer([chain("circle", 100), vec![cname("c100.circle.test", "c0.circle.test")]].concat()),
        ("itself.test", _) => answer(vec![cname(&of, &of)]),
        // One in each.
        ("short.test", Some(15)) => answer(vec![a(&of, 60, 1)]),
        ("short.test", Some(number)) => answer(vec![cname(&of, &format!("c{}.short.test", number + 1))]),
        ("endless.test", Some(number)) => answer(vec![cname(&of, &format!("c{}.endless.test", number + 1))]),
        ("round.test", Some(number)) => answer(vec![cname(&of, &format!("c{}.round.test", (number + 1) % 100))]),
        ("pair.test", Some(number)) => answer(vec![cname(&of, &format!("c{}.pair.test", 1 - number))]),
        // Each answer's name is longer, up to where it is none.
        (_, _) if of.ends_with("longer.test") => answer(dname(asked, "longer.test", "much.longer.test").to_vec()),
        (_, _) if of.ends_with("same.test") => answer(dname(asked, "same.test", "same.test").to_vec()),
        _ => asked.answer(ResponseCode::NXDomain, []).into(),
    }
}

#[test]
fn aliases_without_an_end_are_a_failure_and_cost_few_questions() {
    let world = World::new(script);
    for (label, expected, questions) in [
        ("sixteen", GOOD, 1),
        ("seventeen", "ServFail", 1),
        ("hundred", "ServFail", 1),
        ("circle", "ServFail", 1),
        ("itself", "ServFail", 1),
        ("short", GOOD, MAX_CHAIN),
        ("endless", "ServFail", MAX_CHAIN + 1),
        ("round", "ServFail", MAX_CHAIN + 1),
        ("pair", "ServFail", 2),
        ("longer", "ServFail", MAX_CHAIN + 1),
        ("same", "ServFail", 1),
    ] {
        let told = world.ask(&format!("c0.{label}.test"), RecordType::A);
        assert_eq!(told.short(), expected, "{label}");
        assert_eq!(told.error, NO_USE.filter(|_| expected != GOOD), "{label}");
        let asked = world.liar.asked().iter().filter(|(asked, ..)| asked.ends_with(&format!("{label}.test"))).count();
        assert!((1..=questions).contains(&asked), "{label}: {asked} questions");
    }
    // Whoever asks for the alias itself is told of it, wherever it leads.
    let told = world.ask("c0.itself.test", RecordType::CNAME);
    assert_eq!((told.rcode, told.message.answers.len()), (ResponseCode::NoError, 1));
}
