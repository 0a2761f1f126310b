//! One GCRA decision by governor, over a cell that lies elsewhere.
//!
//! governor's keyed limiters fix the quota when they are made, and neither bound their memory nor look before they charge. Its algorithm
//! takes any state store, so it is given one that holds a single cell for the time of one decision.

use std::{cell::Cell, num::NonZeroU32};

use governor::{
    RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use ringfence_policy::ratelimit::{Per, Quota};

/// Nanoseconds, some 31 years: windows beyond it are cut to fewer requests at once, lest a sum of times overflow.
const MAX_WINDOW: u64 = 1_000_000_000_000_000_000;

/// A quota, ready to decide with. Times are nanoseconds since the limiter was made.
pub(super) struct Gcra {
    quota: governor::Quota,
    /// In which a drained bucket is full again.
    window: u64,
}

impl Gcra {
    pub(super) fn new(quota: Quota) -> Self {
        let interval = quota.interval_nanos().max(1);
        let affordable = u32::try_from(MAX_WINDOW / interval).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        let burst = quota.burst.min(affordable);
        let per = match quota.rate.per {
            Per::Second => governor::Quota::per_second,
            Per::Minute => governor::Quota::per_minute,
            Per::Hour => governor::Quota::per_hour,
        };
        Self { quota: per(quota.rate.count).allow_burst(burst), window: interval * u64::from(burst.get()) }
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// A cell's theoretical arrival time (TAT) after so many requests more; or how long to wait until that is allowed.
    pub(super) fn decide(&self, tat: u64, cost: NonZeroU32, now: u64) -> Result<u64, u64> {
        // Times in a store count from the limiter's making, which for every decision must be the same: zero.
        let limiter: RateLimiter<_, _, _, NoOpMiddleware<Nanos>> = RateLimiter::new(self.quota, OneCell(Cell::new(tat)), At(Cell::new(0)));
        limiter.clock().0.set(now);
        match limiter.check_n(cost) {
            Ok(Ok(())) => Ok(limiter.into_state_store().0.get()),
            Ok(Err(refused)) => Err(refused.earliest_possible().as_u64().saturating_sub(now)),
            // More than the burst: never.
            Err(_) => Err(u64::MAX),
        }
    }
}

struct OneCell(Cell<u64>);

impl StateStore for OneCell {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, tat) = decide(Some(self.0.get().into()))?;
        self.0.set(tat.as_u64());
        Ok(outcome)
    }
}

struct At(Cell<u64>);

impl Clock for At {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.get().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_quota_overflows() {
        let top = NonZeroU32::MAX;
        for (count, per) in [(NonZeroU32::MIN, Per::Hour), (NonZeroU32::MIN, Per::Second), (top, Per::Second), (top, Per::Hour)] {
            let gcra = Gcra::new(Quota { rate: ringfence_policy::ratelimit::Rate { count, per }, burst: top });
            let century = 100 * 365 * 86_400 * 1_000_000_000;
            let mut tat = 0;
            for now in [0, 1, century, century + 1] {
                tat = gcra.decide(tat, NonZeroU32::MIN, now).unwrap();
                assert!(tat > now && tat <= now + gcra.window());
            }
        }
    }
}
