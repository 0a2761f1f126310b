//! `Tenant.limits` and what they share with `inbound.allow`: which requests a rule is about.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc};

use ringfence_policy::{
    RuleRef,
    name::is_dns_label,
    path::PathPattern,
    ratelimit::{LimitKey, LimitPolicy, Mode, Quota, Rate},
    scope::RequestMatch,
};

use super::{Faults, Quoted};
use crate::generated::resource as proto;

/// Every limit costs each request of the tenant a look.
const MAX_LIMITS: usize = 64;
const MAX_BURST: u32 = 10_000_000;
/// A drained bucket is full again within a day: older debts need not be remembered.
const MAX_WINDOW_NANOS: u128 = 86_400 * 1_000_000_000;
const MAX_PATTERNS: usize = 1024;
const MAX_METHODS: usize = 64;

pub(super) fn limits(tenant: &str, bodies: &[proto::Limit], faults: &mut Faults) -> Vec<Arc<LimitPolicy>> {
    if bodies.len() > MAX_LIMITS {
        faults.add("limits", format!("must be at most {MAX_LIMITS}"));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut limits = Vec::with_capacity(bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        let at = |field: &str| format!("limits[{i}].{field}");
        if !is_dns_label(&body.name) {
            faults.add(at("name"), format!("{}, not {}", ringfence_policy::NameError, Quoted(&body.name)));
        } else if !names.insert(&body.name) {
            faults.add(at("name"), format!("{:?} is already the name of another limit of this tenant", body.name));
        }
        let quota = quota(&at, &body.rate, body.burst, faults);
        let key = match body.key.as_str() {
            "" | "tenant" => Some(LimitKey::Tenant),
            "subject" => Some(LimitKey::Subject),
            other => match other.strip_prefix("claim:").filter(|claim| !claim.split('.').any(str::is_empty) && claim.len() <= 256) {
                Some(claim) => Some(LimitKey::Claim(claim.into())),
                None => {
                    faults.add(at("key"), format!("must be tenant, subject or claim:<name>, not {}", Quoted(other)));
                    None
                }
            },
        };
        let matcher = match &body.r#match {
            Some(body) => request_match(&at("match"), &body.methods, &body.paths, faults),
            None => RequestMatch::default(),
        };
        let mode = mode(at("mode"), &body.mode, faults);
        match body.scope.as_str() {
            "" | "local" => {}
            "cluster" => faults.add(at("scope"), "\"cluster\" is not built yet: remove it or write local"),
            other => faults.add(at("scope"), format!("must be local, not {}", Quoted(other))),
        }
        if let (Some(quota), Some(key)) = (quota, key) {
            let rule = RuleRef::new(format!("Tenant/{tenant}: limits[{}]", body.name));
            limits.push(Arc::new(LimitPolicy { name: body.name.as_str().into(), quota, key, matcher, mode, rule }));
        }
    }
    limits
}

/// `rate` and `burst`. `at`: where a field stands.
pub(super) fn quota(at: &dyn Fn(&str) -> String, rate: &str, burst: u32, faults: &mut Faults) -> Option<Quota> {
    let rate = faults.parse::<Rate>(at("rate"), rate)?;
    let burst = NonZeroU32::new(burst).unwrap_or(rate.count);
    let quota = Quota { rate, burst };
    // 128 bits: an hourly rate with a burst of millions is more nanoseconds than 64 hold.
    let window = u128::from(quota.interval_nanos()) * u128::from(burst.get());
    if burst.get() > MAX_BURST || window > MAX_WINDOW_NANOS {
        faults.add(at("burst"), format!("must be at most {MAX_BURST} and earned back within a day at the limit's rate"));
        return None;
    }
    Some(quota)
}

pub(super) fn mode(path: String, text: &str, faults: &mut Faults) -> Mode {
    match text {
        "" | "enforce" => Mode::Enforce,
        "shadow" => Mode::Shadow,
        other => {
            faults.add(path, format!("must be enforce or shadow, not {}", Quoted(other)));
            Mode::Enforce
        }
    }
}

pub(super) fn request_match(path: &str, methods: &[String], paths: &[String], faults: &mut Faults) -> RequestMatch {
    if methods.len() > MAX_METHODS {
        faults.add(format!("{path}.methods"), format!("must be at most {MAX_METHODS} methods"));
    }
    for (i, method) in methods.iter().enumerate() {
        // RFC 9110 §9.1 allows any token; lower case is a slip, for methods are case-sensitive.
        if method.is_empty() || method.len() > 32 || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_') {
            faults.add(format!("{path}.methods[{i}]"), format!("must be a method in upper case, e.g. GET, not {}", Quoted(method)));
        }
    }
    RequestMatch { methods: methods.to_vec(), paths: patterns(&format!("{path}.paths"), paths, faults) }
}

pub(super) fn patterns(path: &str, texts: &[String], faults: &mut Faults) -> Vec<PathPattern> {
    if texts.len() > MAX_PATTERNS {
        faults.add(path, format!("must be at most {MAX_PATTERNS} patterns"));
        return Vec::new();
    }
    // `collect` over a filter would leave spare room, in each of thousands of tenants.
    let mut patterns = Vec::with_capacity(texts.len());
    patterns.extend(texts.iter().enumerate().filter_map(|(i, text)| faults.parse::<PathPattern>(format!("{path}[{i}]"), text)));
    patterns
}
