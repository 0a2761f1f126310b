use std::{borrow::Cow, sync::mpsc::sync_channel, time::Duration};

use proptest::prelude::*;
use prost::Message;
use ringfence_policy::{
    path::NormalPath,
    ratelimit::{LimitKey, LimitPolicy, Mode},
    scope::{RequestMatch, ScopePolicy},
    tenant::TenantPolicy,
};

use super::*;
use crate::limiter::{HashKey, Request};

/// A limit of the whole tenant and one of each subject.
fn acme(rate: &str, burst: u32, of_each: u32) -> TenantPolicy {
    let limit = |name: &str, burst, key| LimitPolicy {
        name: name.into(),
        quota: quota(rate, burst).unwrap(),
        key,
        matcher: RequestMatch::default(),
        mode: Mode::Enforce,
        rule: RuleRef::new(format!("Tenant/acme: limits[{name}]")),
    };
    TenantPolicy {
        peers: Default::default(),
        id: "acme".parse().unwrap(),
        identities: Vec::new(),
        limits: vec![limit("all", burst, LimitKey::Tenant).into(), limit("each", of_each, LimitKey::Subject).into()],
        in_flight: None,
        inbound: ScopePolicy::Everywhere,
        egress: Default::default(),
        dns: Default::default(),
    }
}

fn admits(limiter: &Limiter, policy: &TenantPolicy, subject: &str, now: Instant) -> bool {
    let request =
        Request { method: "GET", path: &NormalPath::new("/").unwrap(), subject: Some(subject), claim: &|_| Some(Cow::Borrowed(subject)) };
    limiter.charge(&request, policy, u32::MAX, now).is_ok()
}

/// Another process's, with what `limiter` has counted, and what it will hear of it. Its clock began later.
fn successor(limiter: &Limiter, bounds: Bounds, now: Instant) -> (Limiter, std::sync::mpsc::Receiver<Charged>) {
    let (heir, told) = sync_channel(1024);
    let key = HashKey::from_octets(limiter.hash_key().octets()).unwrap();
    let successor = Limiter::with_key(now, bounds, key);
    for state in limiter.bequeath(&heir, now) {
        let sent = TenantState::decode(state.encode_to_vec().as_slice()).unwrap();
        successor.restore(&sent, now).unwrap();
    }
    (successor, told)
}

fn drain(limiter: &Limiter, policy: &TenantPolicy, subject: &str, now: Instant) -> usize {
    (0..1000).take_while(|_| admits(limiter, policy, subject, now)).count()
}

proptest! {
    /// One process and a chain of them, each the successor of the one before, say the same of every request.
    #[test]
    fn a_handover_changes_no_decision(
        per in prop::sample::select(vec!["3/s", "20/m", "50/h"]),
        bursts in (1..12_u32, 1..6_u32),
        steps in prop::collection::vec((0..4_u8, 0..5_000_u64, prop::bool::weighted(0.2)), 1..80),
    ) {
        let mut now = Instant::now();
        let policy = acme(per, bursts.0, bursts.1);
        let one = Limiter::new(now, Bounds::default());
        let mut chain = Limiter::with_key(now, Bounds::default(), one.hash_key().clone());
        for (subject, pause, hands_over) in steps {
            now += Duration::from_millis(pause);
            if hands_over {
                chain = successor(&chain, Bounds::default(), now).0;
            }
            let subject = subject.to_string();
            prop_assert_eq!(admits(&chain, &policy, &subject, now), admits(&one, &policy, &subject, now));
        }
    }

    /// Requests that the old one still answers count at the new one: both together grant over time what one would.
    #[test]
    fn what_is_charged_after_the_handover_is_owed(late in 0..8_u32, burst in 1..8_u32) {
        let now = Instant::now();
        let policy = acme("1/s", burst, 100);
        let old = Limiter::new(now, Bounds::default());
        let (new, told) = successor(&old, Bounds::default(), now);
        let granted = (0..late).filter(|_| admits(&old, &policy, "ann", now)).count() as u32;
        told.try_iter().for_each(|charged| new.owe(charged, now).unwrap());
        prop_assert_eq!(drain(&new, &policy, "ann", now) as u32, burst - granted);
        prop_assert_eq!(drain(&new, &policy, "ann", now + Duration::from_secs(2)) as u32, 2.min(burst));
    }
}

#[test]
fn time_on_the_way_earns_nothing() {
    let start = Instant::now();
    let policy = acme("1/s", 5, 5);
    let old = Limiter::new(start, Bounds::default());
    assert_eq!(drain(&old, &policy, "ann", start), 5);
    let (heir, _told) = sync_channel(1);
    let state: Vec<_> = old.bequeath(&heir, start).collect();
    let later = start + Duration::from_secs(3);
    let new = Limiter::with_key(later, Bounds::default(), old.hash_key().clone());
    state.iter().for_each(|state| new.restore(state, later).unwrap());
    assert_eq!(drain(&new, &policy, "ann", later), 0);
    assert_eq!(drain(&new, &policy, "ann", later + Duration::from_secs(1)), 1);
}

#[test]
fn a_successor_with_less_room_gives_nobody_more() {
    let now = Instant::now();
    let policy = acme("1/h", 1000, 2);
    let old = Limiter::new(now, Bounds::default());
    for subject in ["a", "b", "c", "d"] {
        assert_eq!(drain(&old, &policy, subject, now), 2);
    }
    let (new, _told) = successor(&old, Bounds { cells_per_limit: 2, cells_per_tenant: 3 }, now);
    for subject in ["a", "b", "c", "d", "e"] {
        assert_eq!(drain(&new, &policy, subject, now), 0, "{subject}");
    }
}

#[test]
fn a_handover_that_came_to_nothing_tells_nobody() {
    let now = Instant::now();
    let policy = acme("1/s", 5, 5);
    let old = Limiter::new(now, Bounds::default());
    assert!(admits(&old, &policy, "ann", now));
    let (_new, told) = successor(&old, Bounds::default(), now);
    old.keep();
    assert_eq!(drain(&old, &policy, "ann", now), 4);
    assert_eq!(told.iter().count(), 0, "and holds no end of it");
}

#[test]
fn a_tenant_that_comes_after_the_handover_is_told_too() {
    let now = Instant::now();
    let policy = acme("1/s", 5, 5);
    let old = Limiter::new(now, Bounds::default());
    let (new, told) = successor(&old, Bounds::default(), now);
    assert!(admits(&old, &policy, "ann", now));
    told.try_iter().for_each(|charged| new.owe(charged, now).unwrap());
    assert_eq!(drain(&new, &policy, "ann", now), 4);
}

#[test]
fn what_is_no_state_is_refused() {
    let now = Instant::now();
    let limiter = Limiter::new(now, Bounds::default());
    let rule = RuleRef::new("x");
    let good = BucketState::new(&rule, quota("1/s", 1).unwrap(), 0);
    let of =
        |tenant: &str, bucket: BucketState| TenantState { tenant: Some(tenant.into()), requests: vec![bucket], ..TenantState::default() };
    assert_eq!(limiter.restore(&of("acme", good.clone()), now), Ok(()));
    for (what, state) in [
        ("no tenant's name", of("Acme", good.clone())),
        ("no rate", of("acme", BucketState { rate: "fast".into(), ..good.clone() })),
        ("no burst", of("acme", BucketState { burst: 0, ..good.clone() })),
        ("half a cell", of("acme", BucketState { cells: vec![0; CELL_OCTETS + 1], ..good.clone() })),
    ] {
        assert_eq!(limiter.restore(&state, now), Err(MalformedState), "{what}");
    }
    let charged = Charged { tenant: None, is_of_names: true, rule: "x".into(), rate: "1/s".into(), burst: 1, cell: octets(7), cost: 1 };
    assert_eq!(limiter.owe(charged.clone(), now), Ok(()));
    for (what, charged) in [
        ("no cell", Charged { cell: vec![0; 3], ..charged.clone() }),
        ("no cost", Charged { cost: 0, ..charged.clone() }),
        ("no tenant's name", Charged { tenant: Some("A".into()), ..charged }),
    ] {
        assert_eq!(limiter.owe(charged, now), Err(MalformedState), "{what}");
    }
    // However far off it says, a cell is full again some day.
    let mut far = good;
    far.push(0, u64::MAX);
    assert_eq!(limiter.restore(&of("acme", far), now), Ok(()));
}
