//! `dns.limits` of tenants, shared workloads and the platform.

use std::{collections::BTreeSet, sync::Arc};

use ringfence_policy::{
    RuleRef,
    budget::{Count, Key, Limit},
    name::is_dns_label,
};

use super::{
    Faults, Quoted,
    limits::{mode, quota},
};
use crate::generated::resource as proto;

/// Every limit costs each query a look.
const MAX_LIMITS: usize = 16;
/// Octets of the longest name: one at least must fit.
const MIN_ENTROPY: u32 = 255;

/// `whose`: the object that they stand in, e.g. `Tenant/acme`.
pub(super) fn limits(whose: &str, bodies: &[proto::DnsLimit], faults: &mut Faults) -> Vec<Arc<Limit>> {
    if bodies.len() > MAX_LIMITS {
        faults.add("dns.limits", format!("must be at most {MAX_LIMITS}"));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut limits = Vec::with_capacity(bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        let at = |field: &str| format!("dns.limits[{i}].{field}");
        if !is_dns_label(&body.name) {
            faults.add(at("name"), format!("{}, not {}", ringfence_policy::NameError, Quoted(&body.name)));
        } else if !names.insert(&body.name) {
            faults.add(at("name"), format!("{:?} is already the name of another of these limits", body.name));
        }
        let count = match body.count.as_str() {
            "" => Some(Count::Queries),
            text => Count::ALL.into_iter().find(|count| count.as_str() == text).or_else(|| {
                faults.add(at("count"), format!("must be queries, names, entropy or txt, not {}", Quoted(text)));
                None
            }),
        };
        let key = match body.key.as_str() {
            "" | "tenant" => Some(Key::Tenant),
            "domain" => Some(Key::Domain),
            other => {
                faults.add(at("key"), format!("must be tenant or domain, not {}", Quoted(other)));
                None
            }
        };
        let quota = quota(&at, &body.rate, body.burst, faults);
        if count == Some(Count::Entropy) && quota.is_some_and(|quota| quota.burst.get() < MIN_ENTROPY) {
            faults.add(at("burst"), format!("must be at least {MIN_ENTROPY}: a single name may have as many octets"));
        }
        let mode = mode(at("mode"), &body.mode, faults);
        if let (Some(count), Some(key), Some(quota)) = (count, key, quota) {
            let rule = RuleRef::new(format!("{whose}: dns.limits[{}]", body.name));
            limits.push(Arc::new(Limit { count, key, quota, mode, rule }));
        }
    }
    limits
}
