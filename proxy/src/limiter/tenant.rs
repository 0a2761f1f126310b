//! What one tenant has used of its limits.

use std::{num::NonZeroU32, sync::OnceLock};

use parking_lot::Mutex;
use ringfence_policy::{
    RuleRef,
    ratelimit::{LimitPolicy, Mode, Quota},
};
use smallvec::SmallVec;

use super::{
    Bounds,
    bucket::{Bucket, CellKey},
    connections::Connections,
    heir::Heir,
    names::Names,
};
use crate::in_flight::InFlight;

/// What counts against one limit.
pub(super) struct Charge<'a, L> {
    pub(super) limit: &'a L,
    pub(super) rule: &'a RuleRef,
    pub(super) quota: Quota,
    pub(super) mode: Mode,
    pub(super) cell: CellKey,
    /// `None`: nothing, but it must not be in debt.
    pub(super) cost: Option<NonZeroU32>,
}

impl<'a> Charge<'a, LimitPolicy> {
    /// Of one request.
    pub(super) fn request(limit: &'a LimitPolicy, cell: CellKey) -> Self {
        Self { limit, rule: &limit.rule, quota: limit.quota, mode: limit.mode, cell, cost: Some(NonZeroU32::MIN) }
    }
}

pub(super) type Charges<'a, L> = SmallVec<[Charge<'a, L>; 4]>;

/// An enforced limit that is used up, and the nanoseconds until it is not.
pub(super) type UsedUp<'a, L> = SmallVec<[(&'a L, u64); 4]>;

#[derive(Default)]
pub(super) struct Tenant {
    pub(super) in_flight: InFlight,
    pub(super) requests: Mutex<Requests>,
    /// Made when it is needed: thousands of tenants of a shared workload are only asked for.
    outwards: OnceLock<Box<Outwards>>,
}

/// What its requests have used.
#[derive(Default)]
pub(super) struct Requests {
    pub(super) buckets: Vec<Bucket>,
    /// From when they were handed over.
    pub(super) heir: Option<Heir>,
}

/// What its workload has used on the way out.
#[derive(Default)]
pub(super) struct Outwards {
    pub(super) connections: Connections,
    pub(super) names: Mutex<Names>,
}

impl Tenant {
    pub(super) fn new(heir: Option<Heir>) -> Self {
        let tenant = Self::default();
        if let Some(heir) = heir {
            tenant.outwards().names.lock().heir = Some(heir.clone().of_names());
            tenant.requests.lock().heir = Some(heir);
        }
        tenant
    }

    pub(super) fn outwards(&self) -> &Outwards {
        self.outwards.get_or_init(Box::default)
    }

    /// Whether forgetting the tenant would give it nothing.
    pub(super) fn is_fresh(&mut self, now: u64) -> bool {
        self.in_flight.is_idle()
            && self.requests.get_mut().buckets.iter().all(|bucket| bucket.is_fresh(now))
            && self.outwards.get_mut().is_none_or(|outwards| outwards.is_fresh(now))
    }

    /// Charges all enforced limits or none of them. Where all were: the first shadow limit that would have refused.
    ///
    /// The tenant's lock is held from the first look to the last charge, so that no other request comes between.
    pub(super) fn charge<'a, L>(&self, charges: &Charges<'a, L>, bounds: &Bounds, now: u64) -> Result<Option<&'a L>, UsedUp<'a, L>> {
        let requests = &mut *self.requests.lock();
        let outcome = charge(&mut requests.buckets, charges, bounds, now)?;
        if let Some(heir) = &requests.heir {
            heir.tell(charges);
        }
        Ok(outcome)
    }

    #[cfg(test)]
    pub(super) fn cells(&self) -> usize {
        self.requests.lock().buckets.iter().map(Bucket::len).sum()
    }
}

impl Outwards {
    fn is_fresh(&mut self, now: u64) -> bool {
        self.connections.is_fresh(now) && self.names.get_mut().is_fresh(now)
    }
}

pub(super) fn charge<'a, L>(
    buckets: &mut Vec<Bucket>,
    charges: &Charges<'a, L>,
    bounds: &Bounds,
    now: u64,
) -> Result<Option<&'a L>, UsedUp<'a, L>> {
    let known = buckets.len();
    let outcome = charge_all(buckets, charges, bounds, now);
    if buckets.len() > known {
        // Limits that come and go leave nothing behind for longer than it counts.
        buckets.retain(|bucket| !bucket.is_fresh(now));
    }
    outcome
}

fn charge_all<'a, L>(
    buckets: &mut Vec<Bucket>,
    charges: &Charges<'a, L>,
    bounds: &Bounds,
    now: u64,
) -> Result<Option<&'a L>, UsedUp<'a, L>> {
    let of_mode = |mode| charges.iter().filter(move |charge| charge.mode == mode);
    let mut granted: SmallVec<[_; 4]> = SmallVec::new();
    let mut used_up = UsedUp::new();
    for charge in of_mode(Mode::Enforce) {
        let at = open(buckets, charge, now);
        match buckets[at].ask(charge.cell, charge.cost, now) {
            Ok(tat) => granted.push((at, charge, tat)),
            Err(wait) => used_up.push((charge.limit, wait)),
        }
    }
    if !used_up.is_empty() {
        return Err(used_up);
    }
    for (at, charge, tat) in granted {
        store(buckets, at, charge, tat, bounds, now);
    }
    let mut would_refuse = None;
    for charge in of_mode(Mode::Shadow) {
        let at = open(buckets, charge, now);
        match buckets[at].ask(charge.cell, charge.cost, now) {
            Ok(tat) => store(buckets, at, charge, tat, bounds, now),
            Err(_) => would_refuse = would_refuse.or(Some(charge.limit)),
        }
    }
    Ok(would_refuse)
}

/// Where a limit's bucket is: one that follows the limit's quota, or a new one.
pub(super) fn open<L>(buckets: &mut Vec<Bucket>, charge: &Charge<'_, L>, now: u64) -> usize {
    match buckets.iter().position(|bucket| bucket.belongs_to(charge.rule)) {
        Some(at) => {
            buckets[at].adopt(charge.quota, now);
            at
        }
        None => {
            // One at a time: most tenants have one or two, and there may be thousands of tenants.
            buckets.reserve_exact(1);
            buckets.push(Bucket::new(charge.rule, charge.quota));
            buckets.len() - 1
        }
    }
}

pub(super) fn store<L>(buckets: &mut [Bucket], at: usize, charge: &Charge<'_, L>, tat: u64, bounds: &Bounds, now: u64) {
    let cell = charge.cell;
    if charge.cost.is_none() || buckets[at].update(cell, tat) {
        return;
    }
    buckets[at].evict(now);
    let mut total: usize = buckets.iter().map(Bucket::len).sum();
    if total >= bounds.cells_per_tenant {
        buckets.iter_mut().for_each(|bucket| bucket.evict(now));
        total = buckets.iter().map(Bucket::len).sum();
    }
    let room = buckets[at].len() < bounds.cells_per_limit && total < bounds.cells_per_tenant;
    buckets[at].insert(cell, tat, room);
}

/// Charges one limit what cannot be refused any more.
pub(super) fn owe(buckets: &mut Vec<Bucket>, rule: &RuleRef, quota: Quota, cell: CellKey, cost: NonZeroU32, bounds: &Bounds, now: u64) {
    // A quota that is in force here already is no less right than the one that it was charged by there.
    let quota = buckets.iter().find(|bucket| bucket.belongs_to(rule)).map_or(quota, Bucket::quota);
    let charge = Charge { limit: &(), rule, quota, mode: Mode::Enforce, cell, cost: Some(cost) };
    let at = open(buckets, &charge, now);
    let tat = buckets[at].owe(cell, cost, now);
    store(buckets, at, &charge, tat, bounds, now);
}
