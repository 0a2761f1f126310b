//! Rate limits as written: a quota, whom it counts, which requests it counts. No counters here: cells live in the sidecar's limiter and survive a push.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use crate::{RuleRef, scope::RequestMatch};

/// One `spec.limits` entry.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitPolicy {
    /// Unique within the tenant; the identity of the bucket across pushes.
    pub name: Arc<str>,
    pub quota: Quota,
    pub key: LimitKey,
    pub matcher: RequestMatch,
    pub mode: Mode,
    pub rule: RuleRef,
}

/// A GCRA quota: `burst` requests at once, refilled at `rate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub rate: Rate,
    pub burst: NonZeroU32,
}

/// `N/s`, `N/m` or `N/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    Second,
    Minute,
    Hour,
}

impl Per {
    pub const fn seconds(self) -> u32 {
        match self {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 3600,
        }
    }
}

/// Whom a limit counts. Every variant comes from the verified token, so that no client can pick a fresh key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    Tenant,
    Subject,
    /// A claim by its dotted path. A token without it is counted together with all others without it.
    Claim(Arc<str>),
}

/// Whether a rule refuses or only says that it would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Enforce,
    Shadow,
}

impl FromStr for Rate {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "must be N/s, N/m or N/h with N from 1 to 1000000, e.g. 100/s";
        let (count, per) = text.split_once('/').ok_or(WANTED)?;
        let per = match per {
            "s" => Per::Second,
            "m" => Per::Minute,
            "h" => Per::Hour,
            _ => return Err(WANTED),
        };
        if !count.bytes().all(|b| b.is_ascii_digit()) || count.starts_with('0') {
            return Err(WANTED);
        }
        // The ceiling keeps the emission interval at a microsecond or more: nanoseconds would round it away.
        let count = count.parse().ok().filter(|n: &NonZeroU32| n.get() <= 1_000_000).ok_or(WANTED)?;
        Ok(Rate { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Per::Second => 's',
            Per::Minute => 'm',
            Per::Hour => 'h',
        };
        write!(f, "{}/{per}", self.count)
    }
}

impl Quota {
    /// Nanoseconds in which one request is earned back (GCRA's emission interval T).
    pub fn interval_nanos(&self) -> u64 {
        u64::from(self.rate.per.seconds()) * 1_000_000_000 / u64::from(self.rate.count.get())
    }

    /// Nanoseconds in which a drained bucket is full again.
    pub fn window_nanos(&self) -> u64 {
        self.interval_nanos().saturating_mul(u64::from(self.burst.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_strictly() {
        for (text, count, per) in [("100/s", 100, Per::Second), ("1/m", 1, Per::Minute), ("1000000/h", 1_000_000, Per::Hour)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.count.get(), rate.per, rate.to_string().as_str()), (count, per, text));
        }
        for text in ["", "100", "100/", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "1/d", "1 /s", "01/s", "1000001/s", "99999999999/s", "1/S"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_quota_knows_its_interval() {
        let quota = |rate: &str, burst| Quota { rate: rate.parse().unwrap(), burst: NonZeroU32::new(burst).unwrap() };
        assert_eq!(quota("100/s", 200).interval_nanos(), 10_000_000);
        assert_eq!(quota("100/s", 200).window_nanos(), 2_000_000_000);
        assert_eq!(quota("1/h", 1).interval_nanos(), 3_600_000_000_000);
    }
}
