//! Charging a request to two limits, one of the tenant and one of each subject.

use std::{
    borrow::Cow,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_policy::{path::NormalPath, tenant::TenantPolicy};
use ringfence_proxy::limiter::{Bounds, Limiter, Request};

use crate::{
    Case, Run,
    world::{World, name},
};

pub(crate) const CASES: &[Case] =
    &[Case { name: "limit/one-key", prepare: || charge(1) }, Case { name: "limit/1000000-keys", prepare: || charge(1_000_000) }];

/// Between requests: the limits are never used up.
const STEP: Duration = Duration::from_micros(10);

fn charge(keys: usize) -> Run {
    let epoch = Instant::now();
    let limiter = Limiter::new(epoch, Bounds { cells_per_limit: keys + 1, cells_per_tenant: 2 * (keys + 1) });
    let tenant: Arc<TenantPolicy> = World::new(1).snapshot().tenants[name(0).as_str()].clone();
    let subjects: Vec<String> = (0..keys).map(|key| format!("subject-{key}")).collect();
    let path = NormalPath::new("/tenants/tenant-0/orders/17").expect("a path");
    let run = move |subject: &str, now: Instant| {
        let no_claim = |_: &str| -> Option<Cow<'_, str>> { None };
        let request = Request { method: "GET", path: &path, subject: Some(subject), claim: &no_claim };
        let admitted = limiter.charge(&request, &tenant, 1024, now);
        assert!(black_box(admitted).is_ok());
    };
    let mut now = epoch;
    for subject in &subjects {
        now += STEP;
        run(subject, now);
    }
    let mut turn = 0;
    Box::new(move || {
        // Far from the last, so that no cache line is at hand.
        turn = (turn + 611_953) % subjects.len();
        now += STEP;
        run(&subjects[turn], now);
    })
}
