//! How the sidecar is seen from outside: one access-log line per request or connection, metrics from closed label sets, traces.
//!
//! Takes what the routes measured; none of it may slow, block or fail a request.

pub mod access_log;
pub mod metrics;
mod notice;
pub mod trace;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use ringfence_policy::Reason;

pub use notice::notice;

/// What became of a request, as log, metric and trace tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Let through, though a rule in shadow mode would have refused it for this reason.
    Shadow(Reason),
    Deny(Reason),
}

impl Decision {
    pub const fn as_str(self) -> &'static str {
        match self {
            Decision::Allow => "allow",
            Decision::Shadow(_) => "shadow",
            Decision::Deny(_) => "deny",
        }
    }

    pub const fn reason(self) -> Option<Reason> {
        match self {
            Decision::Allow => None,
            Decision::Shadow(reason) | Decision::Deny(reason) => Some(reason),
        }
    }
}

/// The name of one request, in the reply of a refusal and in the access log: 128 bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Gives out request ids.
///
/// A caller sees the ids of its own refusals. A plain count would tell it how many requests of others came in between, so
/// the count goes through a keyed hash (SipHash, key per process).
#[derive(Debug, Default)]
pub struct RequestIds {
    key: RandomState,
    next: AtomicU64,
}

impl RequestIds {
    pub fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let half = |which: u8| u128::from(self.key.hash_one((which, count)));
        RequestId(half(0) << 64 | half(1))
    }
}

/// The methods of RFC 9110 §9 and RFC 5789; `None` for what a client made up.
pub(crate) fn known_method(method: &[u8]) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| known.as_bytes() == method)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn request_ids_differ_and_tell_no_count() {
        let ids = RequestIds::default();
        let given: Vec<u128> = (0..1000).map(|_| ids.next().0).collect();
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
        assert!(given.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1000), "neighbouring requests have neighbouring ids");
        assert_eq!(RequestId(0xab).to_string(), "000000000000000000000000000000ab");
    }

    #[test]
    fn a_decision_carries_its_reason() {
        for (decision, text, reason) in [
            (Decision::Allow, "allow", None),
            (Decision::Shadow(Reason::RateLimited), "shadow", Some(Reason::RateLimited)),
            (Decision::Deny(Reason::TokenExpired), "deny", Some(Reason::TokenExpired)),
        ] {
            assert_eq!((decision.as_str(), decision.reason()), (text, reason));
        }
    }
}
