//! What an SOA record says: how new its zone is, and when to look again (RFC 1035 §3.3.13).

use std::time::Duration;

use ringfence_policy::rpz::{Name, Record, rtype};

/// A primary must not make us ask all the time, nor never again.
const REFRESH: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(24 * 60 * 60)];
const RETRY: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(60 * 60)];

/// Which version of a zone. Serial numbers go round (RFC 1982): half of all are newer than any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serial(pub(super) u32);

impl Serial {
    pub(super) fn is_newer_than(self, other: Self) -> bool {
        // Where the two are opposites, neither is (§3.2).
        (1..1 << 31).contains(&self.0.wrapping_sub(other.0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Soa {
    pub(super) serial: Serial,
    refresh: Duration,
    retry: Duration,
    /// For how long the zone is worth something without word from its primary.
    pub(super) expire: Duration,
}

impl Soa {
    /// `None`: it is no SOA record.
    pub(super) fn of(record: &Record) -> Option<Self> {
        if record.rtype != rtype::SOA {
            return None;
        }
        let (_, primary) = Name::from_wire(&record.rdata)?;
        let (_, mailbox) = Name::from_wire(record.rdata.get(primary..)?)?;
        let numbers: &[u8; 20] = record.rdata.get(primary + mailbox..)?.try_into().ok()?;
        let [serial, refresh, retry, expire, _minimum] = numbers.as_chunks().0 else { return None };
        let seconds = |octets: &[u8; 4]| Duration::from_secs(u32::from_be_bytes(*octets).into());
        Some(Self {
            serial: Serial(u32::from_be_bytes(*serial)),
            refresh: seconds(refresh),
            retry: seconds(retry),
            expire: seconds(expire),
        })
    }

    /// After a look that brought word. `jitter`, from 0 to 1, makes it up to a quarter sooner: not all ask at once.
    pub(super) fn refresh(&self, jitter: f64) -> Duration {
        let [least, most] = REFRESH;
        self.refresh.clamp(least, most).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
    }

    /// After one that did not; up to a quarter later.
    pub(super) fn retry(&self, jitter: f64) -> Duration {
        let [least, most] = RETRY;
        self.retry.clamp(least, most).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_go_round() {
        for (new, old, newer) in [
            (1, 0, true),
            (0, 0, false),
            (0, 1, false),
            (0, u32::MAX, true),
            (1 << 31, 1, true),
            (1 << 31, 0, false),
            (0, 1 << 31, false),
            (5, u32::MAX - 5, true),
            (2_026_112_201, 2_026_112_200, true),
        ] {
            assert_eq!(Serial(new).is_newer_than(Serial(old)), newer, "{new} after {old}");
        }
    }

    #[test]
    fn times_are_believed_within_bounds() {
        let soa = |refresh: u32, retry: u32| {
            let numbers = [7, refresh, retry, 100, 60].map(u32::to_be_bytes).concat();
            Soa::of(&Record { owner: Name::root(), rtype: rtype::SOA, ttl: 0, rdata: [&[0, 0][..], &numbers].concat() }).unwrap()
        };
        for (refresh, retry, jitter, wanted) in [
            (0, 0, 0.0, (60, 15)),
            (u32::MAX, u32::MAX, 0.0, (86400, 3600)),
            (3600, 600, 0.0, (3600, 600)),
            (3600, 600, 1.0, (2700, 750)),
            (0, 0, 1.0, (45, 18)),
        ] {
            let soa = soa(refresh, retry);
            assert_eq!((soa.refresh(jitter).as_secs(), soa.retry(jitter).as_secs()), wanted, "{refresh} {retry} {jitter}");
        }
        assert_eq!(soa(0, 0).serial, Serial(7));
        assert_eq!(Soa::of(&Record { owner: Name::root(), rtype: rtype::SOA, ttl: 0, rdata: vec![0; 21] }), None);
    }
}
