//! A refusal for too many requests, and what the caller is told of it.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use ringfence_policy::{Deny, Reason, RuleRef, TenantId, ratelimit::LimitPolicy};

use super::tenant::UsedUp;

/// `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11 §4: of each used-up limit, `r` requests left and `t` seconds until there is one.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// `RateLimit-Policy` of the same draft, §3: of each limit that counts the request, `q` requests in `w` seconds.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const NANOS: u64 = 1_000_000_000;

/// Too many requests.
#[derive(Debug)]
pub struct Exceeded {
    pub deny: Deny,
    /// Seconds, rounded up: the first at which every limit that refused would let one request pass, if no other comes before.
    pub retry_after: u64,
    limits: String,
    policies: String,
}

impl Exceeded {
    /// `counted`: the enforced limits of the request; `used_up`: those among them that refused, at least one.
    pub(super) fn rate<'a>(counted: impl Iterator<Item = &'a LimitPolicy>, used_up: &UsedUp<'_, LimitPolicy>) -> Self {
        let (mut limits, mut policies) = (String::new(), String::new());
        for limit in counted {
            item(
                &mut policies,
                &limit.name,
                format_args!(";q={};w={}", limit.quota.burst, limit.quota.window_nanos().div_ceil(NANOS).max(1)),
            );
        }
        for (limit, wait) in used_up {
            // Only those: the draft wants no `t` beyond Retry-After, and a limit with requests left does not hold the caller up.
            item(&mut limits, &limit.name, format_args!(";r=0;t={}", seconds(*wait)));
        }
        let longest = used_up.iter().max_by_key(|(_, wait)| *wait);
        let wait = longest.map_or(0, |(_, wait)| *wait);
        let mut deny =
            Deny::new(Reason::RateLimited, format!("{} of the limits used up, for {} ms at most", used_up.len(), wait / 1_000_000));
        deny.rule = longest.map(|(limit, _)| limit.rule.clone());
        Self { deny, retry_after: seconds(wait), limits, policies }
    }

    /// The tenant has `max` requests under way.
    pub(super) fn in_flight(tenant: &TenantId, max: u32) -> Self {
        let rule = RuleRef::new(format!("Tenant/{tenant}: inFlight"));
        let (mut limits, mut policies) = (String::new(), String::new());
        item(&mut policies, "inFlight", format_args!(";q={max};qu=\"concurrent-requests\""));
        item(&mut limits, "inFlight", format_args!(";r=0"));
        Self { deny: Deny::new(Reason::RateLimited, format!("{max} requests in flight")).by(&rule), retry_after: 1, limits, policies }
    }

    /// Sets `Retry-After`, `RateLimit` and `RateLimit-Policy`. They name limits of the caller's own tenant and nothing of another.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(RETRY_AFTER, self.retry_after.into());
        for (name, text) in [(RATE_LIMIT, &self.limits), (RATE_LIMIT_POLICY, &self.policies)] {
            // Always valid: `item` writes nothing but printable ASCII.
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Rounded up, and at least one: "0" would ask for the same refusal again.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(NANOS).max(1)
}

/// Adds a String with parameters to a List (RFC 9651 §3.1, §3.3.3: printable ASCII, `"` and `\` escaped).
fn item(list: &mut String, name: &str, parameters: std::fmt::Arguments<'_>) {
    list.push_str(if list.is_empty() { "\"" } else { ", \"" });
    for c in name.chars() {
        match c {
            '"' | '\\' => list.extend(['\\', c]),
            ' '..='~' => list.push(c),
            _ => list.push('?'),
        }
    }
    list.push('"');
    // Writing to a String does not fail.
    let _ = list.write_fmt(parameters);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_structured_field_strings() {
        let mut list = String::new();
        for name in ["all", "a \"b\" \\c", "é\n\u{7f}", ""] {
            item(&mut list, name, format_args!(";r=0"));
        }
        assert_eq!(list, r#""all";r=0, "a \"b\" \\c";r=0, "???";r=0, "";r=0"#);
    }

    #[test]
    fn seconds_are_rounded_up_to_at_least_one() {
        for (nanos, wanted) in [(0, 1), (1, 1), (NANOS, 1), (NANOS + 1, 2), (90 * NANOS, 90)] {
            assert_eq!(seconds(nanos), wanted, "{nanos}");
        }
    }
}
