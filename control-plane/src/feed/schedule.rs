//! When a set is fetched next.

use std::time::Duration;

/// Where an answer does not say how long it holds.
const DEFAULT_AGE: Duration = Duration::from_secs(5 * 60);
const SHORTEST_AGE: Duration = Duration::from_secs(60);
/// Keys that were withdrawn are to be gone within this, whatever the answer says.
const LONGEST_AGE: Duration = Duration::from_secs(60 * 60);
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Half of the longest: the jitter may double it.
const LAST_RETRY: Duration = Duration::from_secs(150);

/// From this start of one fetch to that of the next, at the least, though asked for: a token with a `kid` of its own invention can ask.
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Schedule {
    failures: u32,
}

impl Schedule {
    /// After a fetch that brought keys.
    pub(super) fn fetched(&mut self, max_age: Option<Duration>) -> Duration {
        self.failures = 0;
        max_age.unwrap_or(DEFAULT_AGE).clamp(SHORTEST_AGE, LONGEST_AGE)
    }

    /// After one that did not; `jitter` is from 0 to 1.
    pub(super) fn failed(&mut self, jitter: f64) -> Duration {
        let base = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LAST_RETRY);
        self.failures = self.failures.saturating_add(1);
        base.mul_f64(1.0 + jitter.clamp(0.0, 1.0))
    }
}

/// Evenly from 0 to 1.
pub(crate) fn jitter() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness the retries come at regular times, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_age_is_believed_within_bounds() {
        for (max_age, wanted) in [(None, 300), (Some(0), 60), (Some(59), 60), (Some(61), 61), (Some(3600), 3600), (Some(u64::MAX), 3600)] {
            assert_eq!(Schedule::default().fetched(max_age.map(seconds)), seconds(wanted), "{max_age:?}");
        }
    }

    #[test]
    fn failures_back_off_and_are_forgotten() {
        for (jitter, wanted) in [(0.0, [5, 10, 20, 40, 80, 150, 150]), (1.0, [10, 20, 40, 80, 160, 300, 300])] {
            let mut schedule = Schedule::default();
            assert_eq!(wanted.map(|_| schedule.failed(jitter)), wanted.map(seconds), "{jitter}");
        }
        let mut schedule = Schedule { failures: u32::MAX };
        assert_eq!(schedule.failed(1.0), seconds(300));
        schedule.fetched(None);
        assert_eq!(schedule.failed(0.0), seconds(5));
    }

    #[test]
    fn jitter_is_a_fraction() {
        let drawn: Vec<f64> = std::iter::repeat_with(jitter).take(32).collect();
        assert!(drawn.iter().all(|fraction| (0.0..=1.0).contains(fraction)), "{drawn:?}");
        assert!(drawn.iter().any(|fraction| *fraction != drawn[0]), "{drawn:?}");
    }
}
