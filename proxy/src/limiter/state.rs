//! Counters on their way from one process to the next: all that is not full again, as nanoseconds until it is, so that no clock is shared.
//!
//! | goes | stays |
//! |---|---|
//! | cells of requests, names and free-form octets; names asked for lately; connections a second | requests, connections and lookups under way: they are counted where they are |
//!
//! Time on the way is no time in which anything is earned back: nobody gets more for it.

use std::{
    num::NonZeroU32,
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};

use ringfence_policy::{RuleRef, TenantId, ratelimit::Quota};

use super::{
    Bounds, Limiter,
    bucket::{Bucket, CellKey},
    heir::Heir,
    names::{self, GENERATION},
    tenant::{self, Tenant},
};

const KEY_OCTETS: usize = size_of::<CellKey>();
const CELL_OCTETS: usize = KEY_OCTETS + size_of::<u64>();

/// One tenant's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TenantState {
    /// `None`: of the workload where it is shared.
    #[prost(string, optional, tag = "1")]
    pub tenant: Option<String>,
    #[prost(message, repeated, tag = "2")]
    requests: Vec<BucketState>,
    #[prost(message, repeated, tag = "3")]
    names: Vec<BucketState>,
    #[prost(fixed64, repeated, tag = "4")]
    young: Vec<u64>,
    #[prost(fixed64, repeated, tag = "5")]
    old: Vec<u64>,
    /// Nanoseconds, of its connection rate.
    #[prost(uint64, tag = "6")]
    connections: u64,
}

/// One limit's.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketState {
    #[prost(string, tag = "1")]
    pub(super) rule: String,
    #[prost(string, tag = "2")]
    rate: String,
    #[prost(uint32, tag = "3")]
    burst: u32,
    /// Nanoseconds, of the cell that is shared by those that found no room.
    #[prost(uint64, tag = "4")]
    pub(super) overflow: u64,
    /// Of each cell its key and its nanoseconds, in network order.
    #[prost(bytes = "vec", tag = "5")]
    cells: Vec<u8>,
}

/// A charge that was made where the cells have been handed over already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Charged {
    #[prost(string, optional, tag = "1")]
    pub(super) tenant: Option<String>,
    #[prost(bool, tag = "2")]
    pub(super) is_of_names: bool,
    #[prost(string, tag = "3")]
    pub(super) rule: String,
    #[prost(string, tag = "4")]
    pub(super) rate: String,
    #[prost(uint32, tag = "5")]
    pub(super) burst: u32,
    #[prost(bytes = "vec", tag = "6")]
    pub(super) cell: Vec<u8>,
    #[prost(uint32, tag = "7")]
    pub(super) cost: u32,
}

/// What was sent are no counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its counters cannot be read")]
pub struct MalformedState;

impl BucketState {
    pub(super) fn new(rule: &RuleRef, quota: Quota, overflow: u64) -> Self {
        Self { rule: rule.as_str().into(), rate: quota.rate.to_string(), burst: quota.burst.get(), overflow, cells: Vec::new() }
    }

    pub(super) fn push(&mut self, cell: CellKey, remaining: u64) {
        self.cells.extend(octets(cell));
        self.cells.extend(remaining.to_be_bytes());
    }

    pub(super) fn quota(&self) -> Option<Quota> {
        quota(&self.rate, self.burst)
    }

    pub(super) fn cells(&self) -> Option<impl Iterator<Item = (CellKey, u64)>> {
        let (cells, rest) = self.cells.as_chunks::<CELL_OCTETS>();
        let cell = |octets: &[u8; CELL_OCTETS]| {
            let (key, remaining) = octets.split_first_chunk::<KEY_OCTETS>()?;
            Some((CellKey::from_be_bytes(*key), u64::from_be_bytes(remaining.try_into().ok()?)))
        };
        rest.is_empty().then(|| cells.iter().filter_map(cell))
    }
}

impl Charged {
    fn parts(&self) -> Option<(RuleRef, Quota, CellKey, NonZeroU32)> {
        let cell = CellKey::from_be_bytes(self.cell.as_slice().try_into().ok()?);
        Some((RuleRef::new(&*self.rule), quota(&self.rate, self.burst)?, cell, NonZeroU32::new(self.cost)?))
    }
}

fn quota(rate: &str, burst: u32) -> Option<Quota> {
    Some(Quota { rate: rate.parse().ok()?, burst: NonZeroU32::new(burst)? })
}

pub(super) fn octets(cell: CellKey) -> Vec<u8> {
    cell.to_be_bytes().to_vec()
}

impl Limiter {
    /// Yields each tenant's counters, and tells `heir` what is charged to a tenant from when its were yielded. Nothing is charged in between.
    pub fn bequeath(&self, heir: &SyncSender<Charged>, now: Instant) -> impl Iterator<Item = TenantState> {
        let now = self.nanos(now);
        self.tenants_from_now_on(Some(heir)).into_iter().map(move |(id, tenant)| tenant.bequeath(id, heir, now))
    }

    /// The other process came to nothing: what is charged concerns nobody else again.
    pub fn keep(&self) {
        for (_, tenant) in self.tenants_from_now_on(None) {
            tenant.requests.lock().heir = None;
            tenant.outwards().names.lock().heir = None;
        }
    }

    /// Takes one tenant's counters. Before any request of it is charged.
    pub fn restore(&self, state: &TenantState, now: Instant) -> Result<(), MalformedState> {
        let now = self.nanos(now);
        let tenant = match &state.tenant {
            Some(id) => self.tenant(&id.parse().map_err(|_| MalformedState)?, now),
            None => self.nobodys.clone(),
        };
        tenant.restore(state, &self.bounds, now).ok_or(MalformedState)
    }

    /// Takes note of what another process has charged after it handed over. That was granted and is owed.
    pub fn owe(&self, charged: Charged, now: Instant) -> Result<(), MalformedState> {
        let now = self.nanos(now);
        let (rule, quota, cell, cost) = charged.parts().ok_or(MalformedState)?;
        let tenant = match &charged.tenant {
            Some(id) => self.tenant(&id.parse().map_err(|_| MalformedState)?, now),
            None => self.nobodys.clone(),
        };
        let (mut names, mut requests) = (tenant.outwards().names.lock(), tenant.requests.lock());
        let (buckets, heir, bounds) = if charged.is_of_names {
            let names = &mut *names;
            (&mut names.buckets, &names.heir, &names::BOUNDS)
        } else {
            let requests = &mut *requests;
            (&mut requests.buckets, &requests.heir, &self.bounds)
        };
        tenant::owe(buckets, &rule, quota, cell, cost, bounds, now);
        if let Some(heir) = heir {
            heir.pass_on(charged);
        }
        Ok(())
    }

    /// All that are known, the shared workload's own included; those to come get this heir.
    fn tenants_from_now_on(&self, heir: Option<&SyncSender<Charged>>) -> Vec<(Option<TenantId>, Arc<Tenant>)> {
        let mut tenants = self.tenants.write();
        tenants.heir = heir.cloned();
        let known = tenants.known.iter().map(|(id, tenant)| (Some(id.clone()), tenant.clone()));
        known.chain([(None, self.nobodys.clone())]).collect()
    }
}

impl Tenant {
    fn bequeath(&self, id: Option<TenantId>, heir: &SyncSender<Charged>, now: u64) -> TenantState {
        let heir = Heir::of(id.as_ref(), heir.clone());
        let mut state = TenantState {
            tenant: id.map(|id| id.to_string()),
            connections: self.outwards().connections.remaining(now),
            ..TenantState::default()
        };
        let of = |buckets: &[Bucket]| buckets.iter().filter(|bucket| !bucket.is_fresh(now)).map(|bucket| bucket.state(now)).collect();
        {
            let mut names = self.outwards().names.lock();
            state.names = of(&names.buckets);
            state.young = names.recent.young.iter().copied().collect();
            state.old = names.recent.old.iter().copied().collect();
            names.heir = Some(heir.clone().of_names());
        }
        let mut requests = self.requests.lock();
        state.requests = of(&requests.buckets);
        requests.heir = Some(heir);
        state
    }

    fn restore(&self, state: &TenantState, bounds: &Bounds, now: u64) -> Option<()> {
        let restored = |states: &[BucketState], bounds: &Bounds| -> Option<Vec<Bucket>> {
            let mut room = bounds.cells_per_tenant;
            let bucket = |state: &BucketState| {
                let bucket = Bucket::restore(state, room.min(bounds.cells_per_limit), now)?;
                room -= bucket.len();
                Some(bucket)
            };
            states.iter().map(bucket).collect()
        };
        self.requests.lock().buckets = restored(&state.requests, bounds)?;
        let mut names = self.outwards().names.lock();
        names.buckets = restored(&state.names, &names::BOUNDS)?;
        names.recent.young = state.young.iter().copied().take(GENERATION).collect();
        names.recent.old = state.old.iter().copied().take(GENERATION).collect();
        self.outwards().connections.restore(state.connections, now);
        Some(())
    }
}

#[cfg(test)]
mod tests;
