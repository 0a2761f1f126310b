//! Waiting before the next attempt.

use std::{collections::hash_map::RandomState, hash::BuildHasher, time::Duration};

/// Exponential, with full jitter over its upper half, so that a thousand sidecars do not come back at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits double from `first` to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, failures: 0 }
    }

    /// After a failure. `random`: see [`random`].
    pub fn next(&mut self, random: f64) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.failures.min(16)).min(self.last);
        self.failures = self.failures.saturating_add(1);
        let half = ceiling / 2;
        half + half.mul_f64(random)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// From 0 to 1. Good enough to spread what many processes do; nobody's secret.
pub fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(15);

    #[test]
    fn backoff_doubles_is_jittered_and_bounded_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LAST);
        let bounds: Vec<(Duration, Duration)> = (0..10).map(|_| (Backoff { ..backoff }.next(0.0), backoff.next(1.0))).collect();
        assert_eq!(bounds[0].0, FIRST / 2);
        for pair in bounds.windows(2) {
            assert!(pair[0].0 < pair[0].1, "jittered");
            assert!(pair[1].0 == pair[0].0 * 2 || pair[1].0 == LAST / 2, "doubles up to the last: {pair:?}");
        }
        assert!(bounds[9].1 <= LAST);
        backoff.reset();
        assert_eq!(backoff.next(0.0), FIRST / 2);
        assert!(Backoff { failures: u32::MAX, ..backoff }.next(1.0) <= LAST);
    }

    #[test]
    fn what_is_random_differs_and_is_a_fraction() {
        let drawn: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(drawn.iter().all(|drawn| (0.0..1.0).contains(drawn)), "{drawn:?}");
        assert!(drawn.windows(2).all(|pair| pair[0] != pair[1]), "{drawn:?}");
    }
}
