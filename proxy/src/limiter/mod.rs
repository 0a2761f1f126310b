//! How many requests a tenant may make, and how many connections it may open outwards. Takes a request of a verified tenant and the
//! tenant's policy, yields `Admitted` or `Exceeded`.
//!
//! Counters are not configuration: they are kept by tenant and limit name beside the snapshot, and no push refills or forgets one.
//! No tenant's cells are looked at for another's request, and the time is a parameter.
//!
//! Memory: a limit that counts by subject or claim holds one cell, some 45 bytes, for each value met within its window, up to
//! `Bounds::cells_per_limit`. Only cells that are full again are let go, which cannot be told from keeping them. Keys that find no room
//! share one cell of their limit, and start from it when they find room later: no key ever gets more than its quota by crowding out, and
//! a crowd in one tenant takes no cell of another.

mod bucket;
mod connections;
mod exceeded;
mod gcra;
mod hash_key;
mod heir;
mod names;
pub mod state;
mod tenant;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};

use ahash::RandomState;
use indexmap::IndexMap;
use parking_lot::RwLock;
use ringfence_policy::{
    RuleRef, TenantId,
    path::NormalPath,
    ratelimit::{LimitKey, Mode},
    tenant::TenantPolicy,
};

use crate::in_flight::InFlightGuard;
use bucket::CellKey;
pub use exceeded::{Exceeded, RATE_LIMIT, RATE_LIMIT_POLICY};
pub use hash_key::HashKey;
use heir::Heir;
pub use names::Outcome;
use state::Charged;
use tenant::{Charge, Charges, Tenant};

/// Tenants looked at for one to forget when another comes.
const EXAMINED: usize = 2;

/// What a request is counted by.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a NormalPath<'a>,
    /// Of the verified token.
    pub subject: Option<&'a str>,
    /// A claim of the verified token by its dotted path, as text.
    pub claim: &'a dyn Fn(&str) -> Option<Cow<'a, str>>,
}

/// A request within its limits.
#[must_use]
pub struct Admitted {
    /// To be kept until the reply's body has ended.
    pub guard: InFlightGuard,
    /// The first shadow limit that would have refused.
    pub shadow: Option<RuleRef>,
}

/// How much the limiter remembers.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Cells of one limit; further keys share one.
    pub cells_per_limit: usize,
    /// Cells of all limits of one tenant; some 6 MB by default.
    pub cells_per_tenant: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { cells_per_limit: 65_536, cells_per_tenant: 131_072 }
    }
}

/// All tenants' counters, for all threads of the process.
pub struct Limiter {
    /// Where the cells' time begins.
    epoch: Instant,
    bounds: Bounds,
    /// A keyed hash is a cell's key: a subject's name is not kept, and none can be made to meet another's.
    hash_key: HashKey,
    tenants: RwLock<Tenants>,
    /// Of the workload where it is shared: whose its DNS queries are, nothing tells.
    nobodys: Arc<Tenant>,
}

#[derive(Default)]
struct Tenants {
    known: IndexMap<TenantId, Arc<Tenant>, RandomState>,
    /// Where forgetting goes on looking.
    hand: usize,
    /// Who is told what is charged to tenants that are new, once the others are handed over.
    heir: Option<SyncSender<Charged>>,
}

impl Limiter {
    /// `epoch`: no later than any time that it will be given.
    pub fn new(epoch: Instant, bounds: Bounds) -> Self {
        Self::with_key(epoch, bounds, HashKey::random())
    }

    /// One that can take the cells of another with this key.
    pub fn with_key(epoch: Instant, bounds: Bounds, hash_key: HashKey) -> Self {
        Self { epoch, bounds, hash_key, tenants: RwLock::default(), nobodys: Arc::default() }
    }

    pub fn hash_key(&self) -> &HashKey {
        &self.hash_key
    }

    /// Charges a request to every limit that matches it, or to none.
    ///
    /// `max_in_flight`: requests that the tenant may have under way at this sidecar, this one included.
    pub fn charge(&self, request: &Request<'_>, policy: &TenantPolicy, max_in_flight: u32, now: Instant) -> Result<Admitted, Exceeded> {
        let now = self.nanos(now);
        let tenant = self.tenant(&policy.id, now);
        let Some(guard) = tenant.in_flight.enter(max_in_flight) else {
            return Err(Exceeded::in_flight(&policy.id, max_in_flight));
        };
        let charges: Charges<'_, _> = policy
            .limits
            .iter()
            .filter(|limit| limit.matcher.matches(request.method, request.path, &policy.id))
            .map(|limit| Charge::request(limit, self.cell(&limit.key, request)))
            .collect();
        if charges.is_empty() {
            return Ok(Admitted { guard, shadow: None });
        }
        match tenant.charge(&charges, &self.bounds, now) {
            Ok(shadow) => Ok(Admitted { guard, shadow: shadow.map(|limit| limit.rule.clone()) }),
            Err(used_up) => {
                let counted = charges.iter().map(|charge| charge.limit).filter(|limit| limit.mode == Mode::Enforce);
                Err(Exceeded::rate(counted, &used_up))
            }
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Tokens without the subject or claim share one cell.
    fn cell(&self, key: &LimitKey, request: &Request<'_>) -> CellKey {
        let (claim, value) = match key {
            LimitKey::Tenant => return 0,
            LimitKey::Subject => (None, request.subject.map(Cow::Borrowed)),
            LimitKey::Claim(path) => (Some(&**path), (request.claim)(path)),
        };
        self.hash_key.hash((claim, value.as_deref()))
    }

    fn tenant(&self, id: &TenantId, now: u64) -> Arc<Tenant> {
        if let Some(tenant) = self.tenants.read().known.get(id) {
            return tenant.clone();
        }
        let mut tenants = self.tenants.write();
        tenants.forget(now);
        let heir = tenants.heir.clone();
        tenants.known.entry(id.clone()).or_insert_with(|| Tenant::new(heir.map(|told| Heir::of(Some(id), told))).into()).clone()
    }
}

impl Tenants {
    /// Forgets some tenants whose cells are all full again and that have no request under way.
    fn forget(&mut self, now: u64) {
        for _ in 0..EXAMINED {
            if self.hand >= self.known.len() {
                self.hand = 0;
            }
            let Some((_, tenant)) = self.known.get_index_mut(self.hand) else { return };
            // None: a thread is charging it at this moment.
            if Arc::get_mut(tenant).is_some_and(|tenant| tenant.is_fresh(now)) {
                self.known.swap_remove_index(self.hand);
            } else {
                self.hand += 1;
            }
        }
    }
}
