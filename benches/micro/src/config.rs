//! Configuration: pinning the policy in force, and making one of what comes over the wire.

use std::{hint::black_box, sync::Arc};

use ringfence_proxy::config::Current;

use crate::{
    Case, Run,
    world::{self, World},
};

pub(crate) const CASES: &[Case] = &[
    Case { name: "snapshot/pin", prepare: pin },
    Case { name: "snapshot/pin-after-swap", prepare: pin_after_swap },
    Case { name: "snapshot/assemble/1000-tenants", prepare: assemble },
];

fn pin() -> Run {
    let current = Current::default();
    current.swap(Arc::new(World::new(1).snapshot()));
    Box::new(move || assert!(black_box(current.pin()).is_some()))
}

/// What a swap costs those who pin next, and itself.
fn pin_after_swap() -> Run {
    let current = Current::default();
    let policies = [World::new(1), World::new(1)].map(|world| Arc::new(world.snapshot()));
    let mut turn = 0;
    Box::new(move || {
        turn = 1 - turn;
        current.swap(policies[turn].clone());
        assert!(black_box(current.pin()).is_some());
    })
}

fn assemble() -> Run {
    let resources = World::new(1000).resources();
    Box::new(move || assert_eq!(black_box(world::snapshot(resources.clone())).tenants.len(), 1000))
}
