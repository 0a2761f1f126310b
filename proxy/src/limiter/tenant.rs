//! What one tenant has used of its limits.

use parking_lot::Mutex;
use ringfence_policy::ratelimit::{LimitPolicy, Mode};
use smallvec::SmallVec;

use super::{
    Bounds,
    bucket::{Bucket, CellKey},
    connections::Connections,
};
use crate::in_flight::InFlight;

/// The limits that a request counts against, each with the cell.
pub(super) type Charges<'a> = SmallVec<[(&'a LimitPolicy, CellKey); 4]>;

/// An enforced limit that is used up, and the nanoseconds until it is not.
pub(super) type UsedUp<'a> = SmallVec<[(&'a LimitPolicy, u64); 4]>;

#[derive(Default)]
pub(super) struct Tenant {
    pub(super) in_flight: InFlight,
    pub(super) connections: Connections,
    buckets: Mutex<Vec<Bucket>>,
}

impl Tenant {
    /// Whether forgetting the tenant would give it nothing.
    pub(super) fn is_fresh(&mut self, now: u64) -> bool {
        self.in_flight.is_idle() && self.connections.is_fresh(now) && self.buckets.get_mut().iter().all(|bucket| bucket.is_fresh(now))
    }

    /// Charges all enforced limits or none of them. Where all were: the first shadow limit that would have refused.
    ///
    /// The tenant's lock is held from the first look to the last charge, so that no other request comes between.
    pub(super) fn charge<'a>(&self, charges: &Charges<'a>, bounds: &Bounds, now: u64) -> Result<Option<&'a LimitPolicy>, UsedUp<'a>> {
        let mut buckets = self.buckets.lock();
        let known = buckets.len();
        let outcome = charge(&mut buckets, charges, bounds, now);
        if buckets.len() > known {
            // Limits that come and go leave nothing behind for longer than it counts.
            buckets.retain(|bucket| !bucket.is_fresh(now));
        }
        outcome
    }

    #[cfg(test)]
    pub(super) fn cells(&self) -> usize {
        self.buckets.lock().iter().map(Bucket::len).sum()
    }
}

fn charge<'a>(buckets: &mut Vec<Bucket>, charges: &Charges<'a>, bounds: &Bounds, now: u64) -> Result<Option<&'a LimitPolicy>, UsedUp<'a>> {
    let of_mode = |mode| charges.iter().filter(move |(limit, _)| limit.mode == mode);
    let mut granted: SmallVec<[_; 4]> = SmallVec::new();
    let mut used_up = UsedUp::new();
    for (limit, cell) in of_mode(Mode::Enforce) {
        let at = open(buckets, limit, now);
        match buckets[at].ask(*cell, now) {
            Ok(tat) => granted.push((at, *cell, tat)),
            Err(wait) => used_up.push((*limit, wait)),
        }
    }
    if !used_up.is_empty() {
        return Err(used_up);
    }
    for (at, cell, tat) in granted {
        store(buckets, at, cell, tat, bounds, now);
    }
    let mut would_refuse = None;
    for (limit, cell) in of_mode(Mode::Shadow) {
        let at = open(buckets, limit, now);
        match buckets[at].ask(*cell, now) {
            Ok(tat) => store(buckets, at, *cell, tat, bounds, now),
            Err(_) => would_refuse = would_refuse.or(Some(*limit)),
        }
    }
    Ok(would_refuse)
}

/// Where a limit's bucket is: one that follows the limit's quota, or a new one.
fn open(buckets: &mut Vec<Bucket>, limit: &LimitPolicy, now: u64) -> usize {
    match buckets.iter().position(|bucket| bucket.belongs_to(limit)) {
        Some(at) => {
            buckets[at].adopt(limit.quota, now);
            at
        }
        None => {
            buckets.push(Bucket::new(limit));
            buckets.len() - 1
        }
    }
}

fn store(buckets: &mut [Bucket], at: usize, cell: CellKey, tat: u64, bounds: &Bounds, now: u64) {
    if buckets[at].update(cell, tat) {
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
