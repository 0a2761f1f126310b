//! How many certificates may be asked for: each costs a signature, and may cost the API server a review.

use std::{net::IpAddr, num::NonZeroU32};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Of one address. A pod has one, and asks twice an hour; where many come by one, they come again.
const OF_ONE_PER_SECOND: NonZeroU32 = NonZeroU32::new(4).unwrap();
const OF_ONE_AT_ONCE: NonZeroU32 = NonZeroU32::new(64).unwrap();
/// Of all: some ten thousand sidecars that come at once have theirs within a minute.
const OF_ALL_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();
const OF_ALL_AT_ONCE: NonZeroU32 = NonZeroU32::new(2000).unwrap();
/// Addresses that are remembered. Where more ask within seconds, the bound on all is what holds.
const MAX_ADDRESSES: usize = 16_384;

#[derive(Debug)]
pub(super) struct Attempts {
    of_one: DefaultKeyedRateLimiter<IpAddr>,
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

    /// Whether one more is within bounds; counts it. `address`: none on loopback, which all share. What one address asks for in vain does
    /// not count against all.
    pub(super) fn admit(&self, address: Option<IpAddr>) -> bool {
        let alone = address.is_none_or(|address| {
            if self.of_one.len() >= MAX_ADDRESSES {
                self.of_one.retain_recent();
            }
            self.of_one.len() >= MAX_ADDRESSES || self.of_one.check_key(&address).is_ok()
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

    fn address(number: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn an_address_has_its_share_and_costs_the_others_nothing() {
        let attempts = Attempts::new(of(2), of(5));
        let admitted: Vec<bool> = [1, 1, 1, 1, 1, 2, 2, 2, 3, 3].map(|number| attempts.admit(address(number))).into();
        assert_eq!(admitted, [true, true, false, false, false, true, true, false, true, false]);
        assert!(!attempts.admit(None), "all have had theirs");
    }

    #[test]
    fn addresses_are_remembered_within_bounds() {
        let attempts = Attempts::new(of(1), of(2 * MAX_ADDRESSES as u32));
        for number in 0..2 * MAX_ADDRESSES as u32 {
            assert!(attempts.admit(address(number)));
        }
        assert_eq!(attempts.of_one.len(), MAX_ADDRESSES);
        // Beyond them the bound on all is what holds.
        assert!(!attempts.admit(address(u32::MAX)));
    }
}
