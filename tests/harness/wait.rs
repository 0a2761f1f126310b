//! Waiting for conditions that no channel tells of.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Generous: reached only where something hangs.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// How much longer than promised something may take in a build without optimisation, beside whatever else the machine does: what waits for
/// a tick or a timeout in the place of an event takes longer still.
const UNOPTIMISED: u32 = 20;
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// That it took no longer than is promised.
#[track_caller]
pub fn took_at_most(promised: Duration, took: Duration) {
    let promised = if cfg!(debug_assertions) { promised * UNOPTIMISED } else { promised };
    assert!(took < promised, "{took:?}, and at most {promised:?} are promised");
}

/// Looks until there is something to see; how long that took can be had from `Instant` around it.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(LOOK);
    }
}
