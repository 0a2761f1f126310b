//! When a watch that broke is begun again.

use std::time::Duration;

use kube::runtime::utils::Backoff as Reset;

use crate::feed::jitter;

const LEAST: Duration = Duration::from_millis(250);
/// An edit that was made while the server was away is in force this long after it came back, at the latest.
const MOST: Duration = Duration::from_secs(8);

/// Twice as long each time, less up to a half by chance: watches that broke together are not to begin together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let longest = LEAST.saturating_mul(1 << self.failures.min(8)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        Some(longest.mul_f64(1.0 - jitter() / 2.0))
    }
}

impl Reset for Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = backoff.by_ref().take(40).collect();
        assert!(waits[0] <= LEAST && waits[0] >= LEAST / 2, "{:?}", waits[0]);
        assert!(waits[8..].iter().all(|wait| (MOST / 2..=MOST).contains(wait)), "{waits:?}");
        backoff.reset();
        assert!(backoff.next().is_some_and(|wait| wait <= LEAST));
    }
}
