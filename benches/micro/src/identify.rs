//! Whose request it is: a token that is remembered, and one that has to be verified.

use std::{hint::black_box, sync::Arc};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use ringfence_proxy::{
    config::{Current, learn::Learner},
    inbound::identify::Identify,
};

use crate::{
    Case, Run,
    world::{NOW, World},
};

pub(crate) const CASES: &[Case] = &[
    Case { name: "identify/cached/1", prepare: || remembered(1) },
    Case { name: "identify/cached/1000", prepare: || remembered(1000) },
    Case { name: "identify/fresh", prepare: fresh },
];

fn stage() -> Identify {
    let (learner, _) = Learner::new();
    Identify::new(learner, Arc::default(), Arc::new(Current::default()), Arc::default())
}

fn headers(world: &World, subject: usize) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {}", world.token(0, &format!("subject-{subject}")))).expect("a field");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

fn remembered(tokens: usize) -> Run {
    let world = World::new(1);
    let (identify, snapshot) = (stage(), Arc::new(world.snapshot()));
    let all: Vec<HeaderMap> = (0..tokens).map(|subject| headers(&world, subject)).collect();
    let run = move |headers: &HeaderMap| {
        let identified = identify.identify(headers, &snapshot, NOW).now_or_never();
        assert!(black_box(identified).is_some_and(|identified| identified.is_ok()));
    };
    all.iter().for_each(&run);
    let mut turn = 0;
    Box::new(move || {
        turn = (turn + 1) % all.len();
        run(&all[turn]);
    })
}

/// A stage that remembers nothing that was said under other keys: each run takes the policy for a new one.
fn fresh() -> Run {
    let world = World::new(1);
    let (identify, headers) = (stage(), headers(&world, 0));
    let mut snapshot = world.snapshot();
    let policies: Vec<_> = (1..=2)
        .map(|generation| {
            snapshot.identity_generation = generation;
            Arc::new(std::mem::replace(&mut snapshot, world.snapshot()))
        })
        .collect();
    let mut turn = 0;
    Box::new(move || {
        turn = 1 - turn;
        let identified = identify.identify(&headers, &policies[turn], NOW).now_or_never();
        assert!(black_box(identified).is_some_and(|identified| identified.is_ok()));
    })
}
