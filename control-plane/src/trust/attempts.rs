//! How many certificates may be asked for: each costs a signature, and may cost the API server a review.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::peer::Asker;

/// Of one who asks. A sidecar does so twice an hour; where many come by one address without an SVID, they come again.
const OF_ONE_PER_SECOND: NonZeroU32 = NonZeroU32::new(4).unwrap();
const OF_ONE_AT_ONCE: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// Of all: some ten thousand sidecars that come at once have theirs within a minute.
const OF_ALL_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();
const OF_ALL_AT_ONCE: NonZeroU32 = NonZeroU32::new(2000).unwrap();
/// Askers that are remembered. Where more ask within seconds, the bound on all is what holds.
const MAX_ASKERS: usize = 16_384;

#[derive(Debug)]
pub(super) struct Attempts {
    of_one: DefaultKeyedRateLimiter<Asker>,
    of_all: DefaultDirectRateLimiter,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new(
            Quota::per_second(OF_ONE_PER_SECOND).allow_burst(OF_ONE_AT_ONCE),
            Quota::per_second(OF_ALL_PER_SECOND).allow_burst(OF_ALL_AT_ONCE),
        )
    }
}

impl Attempts {
    fn new(of_one: Quota, of_all: Quota) -> Self {
        Self { of_one: RateLimiter::keyed(of_one), of_all: RateLimiter::direct(of_all) }
    }

    /// Whether one more is within bounds; counts it. `asker`: none on loopback, which all share. What one asks for in vain does not count
    /// against all.
    pub(super) fn admit(&self, asker: Option<&Asker>) -> bool {
        let alone = asker.is_none_or(|asker| {
            if self.of_one.len() >= MAX_ASKERS {
                self.of_one.retain_recent();
            }
            self.of_one.len() >= MAX_ASKERS || self.of_one.check_key(asker).is_ok()
        });
        alone && self.of_all.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn of(count: u32) -> Quota {
        Quota::with_period(Duration::from_secs(3600)).unwrap().allow_burst(NonZeroU32::new(count).unwrap())
    }

    fn stranger(number: u32) -> Asker {
        (Ipv4Addr::from_bits(number).into(), None)
    }

    #[test]
    fn one_who_asks_has_its_share_and_costs_the_others_nothing() {
        let attempts = Attempts::new(of(2), of(5));
        let admitted: Vec<bool> = [1, 1, 1, 1, 1, 2, 2, 2, 3, 3].map(|number| attempts.admit(Some(&stranger(number)))).into();
        assert_eq!(admitted, [true, true, false, false, false, true, true, false, true, false]);
        assert!(!attempts.admit(None), "all have had theirs");
    }

    #[test]
    fn who_has_an_svid_does_not_wait_for_strangers_at_its_address() {
        let attempts = Attempts::new(of(1), of(5));
        let named = |id: &str| (stranger(1).0, Some(format!("spiffe://ringfence.internal{id}").parse().unwrap()));
        let askers = [stranger(1), stranger(1), named("/tenant/acme/workload/api"), named("/tenant/globex/workload/api")];
        assert_eq!(askers.map(|asker| attempts.admit(Some(&asker))), [true, false, true, true]);
    }

    #[test]
    fn addresses_are_remembered_within_bounds() {
        let attempts = Attempts::new(of(1), of(2 * MAX_ASKERS as u32));
        for number in 0..2 * MAX_ASKERS as u32 {
            assert!(attempts.admit(Some(&stranger(number))));
        }
        assert_eq!(attempts.of_one.len(), MAX_ASKERS);
        // Beyond them the bound on all is what holds.
        assert!(!attempts.admit(Some(&stranger(u32::MAX))));
    }
}
