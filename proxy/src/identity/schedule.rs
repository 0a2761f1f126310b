//! When to ask for an SVID. Times are since the Unix epoch.

use std::time::Duration;

use ringfence_xds::trust::Svid;

use crate::backoff::Backoff;

/// Renewed when half of its life is over, give or take this share of the life: a fleet that started together does not renew together.
const JITTER: f64 = 0.1;
/// However short a life: an issuer is not asked more often.
const SOONEST: Duration = Duration::from_secs(1);
/// Waits after failures double from the first to the last of these.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) due: Duration,
    backoff: Backoff,
}

impl Schedule {
    /// At once.
    pub(super) fn new() -> Self {
        Self { due: Duration::ZERO, backoff: Backoff::new(RETRY_FIRST, RETRY_LAST) }
    }

    /// There is an SVID, whose life as far as this sidecar is concerned began at `since`. `random`: from 0 to 1.
    pub(super) fn obtained(&mut self, svid: &Svid, since: Duration, random: f64) {
        self.backoff.reset();
        let life = svid.not_after.saturating_sub(since);
        self.due = since + life.mul_f64(0.5 - JITTER + 2.0 * JITTER * random).max(SOONEST);
    }

    pub(super) fn failed(&mut self, now: Duration, random: f64) {
        self.due = now + self.backoff.next(random);
    }

    /// The SVID is of no use any more, by then at the latest.
    pub(super) fn hurry(&mut self, at: Duration) {
        self.due = self.due.min(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::Authority;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn half_of_a_life_give_or_take_a_tenth() {
        let mut svid = Authority::new().svid("spiffe://here/tenant/acme/workload/api");
        for (life, random, wanted) in [(3600, 0.0, 1440), (3600, 0.5, 1800), (3600, 1.0, 2160), (2, 0.0, 1), (0, 0.5, 1)] {
            let mut schedule = Schedule::new();
            assert_eq!(schedule.due, Duration::ZERO);
            svid.not_after = SECOND * (1000 + life);
            schedule.obtained(&svid, SECOND * 1000, random);
            assert_eq!(schedule.due, SECOND * (1000 + wanted), "{life} {random}");
        }
    }

    #[test]
    fn failures_are_spaced_until_a_success_and_a_hurry_only_hastens() {
        let mut svid = Authority::new().svid("spiffe://here/tenant/acme/workload/api");
        svid.not_after = SECOND * 3600;
        let mut schedule = Schedule::new();
        let waits: Vec<Duration> = (0..10)
            .map(|_| {
                schedule.failed(SECOND * 1000, 1.0);
                schedule.due - SECOND * 1000
            })
            .collect();
        assert_eq!((waits[0], waits[9]), (RETRY_FIRST, RETRY_LAST));
        schedule.obtained(&svid, Duration::ZERO, 0.5);
        schedule.hurry(SECOND * 2000);
        assert_eq!(schedule.due, SECOND * 1800);
        schedule.hurry(SECOND * 5);
        assert_eq!(schedule.due, SECOND * 5);
        schedule.failed(SECOND * 1000, 1.0);
        assert_eq!(schedule.due, SECOND * 1000 + RETRY_FIRST, "a success starts over");
    }
}
