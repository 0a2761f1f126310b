//! Waiting for conditions that no channel tells of.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Generous: reached only where something hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

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
