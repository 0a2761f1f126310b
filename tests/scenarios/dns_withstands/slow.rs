//! Upstreams that take their time, or do not come back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_tests::{
    DEADLINE, Liar, eventually,
    liar::{Asked, Says, framed},
};

use super::{ANSWERED_WITHIN, GOOD, World, a, good};

/// No Reachable Authority (RFC 8914 §4.23).
const UNREACHABLE: Option<u16> = Some(22);
const NETWORK: Option<u16> = Some(23);
const STALE: Option<u16> = Some(3);

fn good_octets(asked: &Asked) -> Vec<u8> {
    asked.answer(ResponseCode::NoError, [a(&asked.name(), 600, 1)]).to_vec().unwrap()
}

/// Over UDP that the answer is too long.
fn truncated(asked: &Asked) -> Says {
    let mut answer = asked.answer(ResponseCode::NoError, []);
    answer.metadata.truncation = true;
    answer.into()
}

#[test]
fn an_answer_that_comes_too_late_is_a_failure_and_then_forgotten() {
    let world = World::new(|asked| Says::Held(good_octets(asked)));
    let begun = Instant::now();
    let told = world.ask("late.test", RecordType::A);
    assert_eq!((told.rcode, told.error), (ResponseCode::ServFail, UNREACHABLE));
    assert!((ANSWERED_WITHIN..DEADLINE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    world.liar.release();
    eventually("it is asked again", || (world.ask("late.test", RecordType::A).short() == GOOD).then_some(()));
}

#[test]
fn where_one_upstream_is_slow_the_next_one_answers() {
    let second = Liar::start(good);
    // Never; over UDP "too long" and over TCP the door; over TCP half an answer.
    let world = World::with(&[second.address], |asked| match (asked.name().as_str(), asked.over_tcp) {
        ("door.test" | "half.test", false) => truncated(asked),
        ("door.test", true) => Says::Closes,
        ("half.test", true) => Says::Octets(framed(&good_octets(asked))[..20].to_vec()),
        _ => Says::Held(good_octets(asked)),
    });
    // The one that answers is asked first for a while: each of these wants a sidecar that has not learnt that yet, or the first word.
    for name in ["door.test", "half.test", "never.test"] {
        assert_eq!(world.ask(name, RecordType::A).short(), GOOD, "{name}");
    }
    assert!(world.liar.count("door.test") >= 2, "it was asked over UDP and over TCP: {:?}", world.liar.asked());
    assert_eq!(second.count("door.test"), 1);
}

#[test]
fn an_upstream_that_stops_within_an_answer_is_asked_anew_over_another_connection() {
    let stops = Arc::new(AtomicBool::new(true));
    let script = {
        let stops = stops.clone();
        move |asked: &Asked| match asked.over_tcp {
            false => truncated(asked),
            // The length, and a few octets of what it promises.
            true if stops.load(Ordering::SeqCst) => Says::Octets(framed(&good_octets(asked))[..9].to_vec()),
            true => good(asked),
        }
    };
    let world = World::new(script);
    let told = world.ask("stops.test", RecordType::A);
    assert_eq!((told.rcode, told.error), (ResponseCode::ServFail, UNREACHABLE));
    stops.store(false, Ordering::SeqCst);
    // The connection of before is of no use to anybody, though it is open.
    let mut number = 0;
    eventually("it is asked over another", || {
        number += 1;
        (world.ask(&format!("goes-on-{number}.test"), RecordType::A).short() == GOOD).then_some(())
    });
    eventually("the failure is forgotten", || (world.ask("stops.test", RecordType::A).short() == GOOD).then_some(()));
}

#[test]
fn truncated_answers_of_an_upstream_without_tcp_are_a_failure() {
    let world = World::new(|asked| if asked.over_tcp { Says::Closes } else { truncated(asked) });
    let told = world.ask("door.test", RecordType::A);
    assert_eq!((told.rcode, told.error), (ResponseCode::ServFail, NETWORK));
}

#[test]
fn what_was_known_stands_in_for_upstreams_that_fail() {
    let fails = Arc::new(AtomicBool::new(false));
    let script = {
        let fails = fails.clone();
        move |asked: &Asked| match fails.load(Ordering::SeqCst) {
            true => Says::Nothing,
            false => asked.answer(ResponseCode::NoError, [a(&asked.name(), 1, 1)]).into(),
        }
    };
    let world = World::new(script);
    let mut client = super::Client::new(world.server);
    assert_eq!(client.ask("known.test", RecordType::A).short(), GOOD);
    fails.store(true, Ordering::SeqCst);
    let told = eventually("its TTL has passed", || Some(client.ask("known.test", RecordType::A)).filter(|told| told.error.is_some()));
    assert_eq!((told.short().as_str(), told.error), (GOOD, STALE));
    assert_eq!(client.ask("unknown.test", RecordType::A).rcode, ResponseCode::ServFail);
}
