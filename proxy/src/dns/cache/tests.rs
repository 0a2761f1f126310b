use hickory_proto::op::{Message, OpCode, Query as Question};

use super::*;

const STALE_FOR: Duration = DEFAULT_SERVE_STALE;

fn reply(lifetime: u32) -> Rc<Reply> {
    with_rcode(ResponseCode::NoError, lifetime)
}

fn with_rcode(rcode: ResponseCode, lifetime: u32) -> Rc<Reply> {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = rcode;
    message.add_query(Question::new());
    Rc::new(Reply::new(message, lifetime, None).unwrap())
}

/// What is found at a moment: fresh with its age, or stale.
fn found(cache: &Cache, now: Instant) -> String {
    match cache.find(b"q", now) {
        Some(Found::Fresh { age, refresh, .. }) => format!("{age:?}{}", if refresh { " refresh" } else { "" }),
        Some(Found::Stale { quiet, .. }) => format!("stale{}", if quiet { " quiet" } else { "" }),
        None => "nothing".to_owned(),
    }
}

#[test]
fn an_answer_is_fresh_then_stale_then_gone() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.store(b"q", reply(100), now);
    let after = |seconds| now + Duration::from_secs(seconds);
    for (at, expected) in [
        (after(0), "Seconds(0)"),
        (after(99), "Seconds(99)"),
        (after(89), "Seconds(89)"),
        (after(90), "Seconds(90) refresh"),
        (after(100), "stale"),
        (after(100) + STALE_FOR - Duration::from_secs(1), "stale"),
        (after(100) + STALE_FOR, "nothing"),
        // A clock that a caller read before the answer was stored.
        (now.checked_sub(Duration::from_secs(1)).unwrap_or(now), "Seconds(0)"),
    ] {
        assert_eq!(found(&cache, at), expected);
    }
    assert!(cache.failed(b"q", after(100)) && !cache.failed(b"r", now));
    assert_eq!(found(&cache, after(100)), "stale quiet");
    assert_eq!(found(&cache, after(100) + STALE_QUIET), "stale");
    assert!(cache.failed(b"q", after(90)));
    assert_eq!(found(&cache, after(95)), "Seconds(95)", "no use in fetching it again before it is");
    cache.store(b"q", reply(0), now);
    assert_eq!(found(&cache, now), "stale", "TTL 0 is for those who wait for it");
}

#[test]
fn a_failure_stands_in_for_nothing() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.store(b"q", with_rcode(ResponseCode::ServFail, 2), now);
    assert_eq!(found(&cache, now), "Seconds(0)");
    assert_eq!(found(&cache, now + Duration::from_secs(2)), "nothing");
    assert!(!cache.failed(b"q", now));
}

#[test]
fn a_flood_of_names_takes_no_more_than_its_octets() {
    const OCTETS: u64 = 64 * 1024;
    let (mut cache, now) = (Cache::new(OCTETS), Instant::now());
    let reply = reply(60);
    for i in 0..100_000u32 {
        cache.store(&i.to_be_bytes(), reply.clone(), now);
        assert!(cache.octets() <= OCTETS, "{}", cache.octets());
    }
    assert!(cache.octets() > OCTETS / 2);
}
