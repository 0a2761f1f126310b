//! Idle HTTP/1 connections to one upstream.
//!
//! A few are warm: hyper keeps the buffers that it had. Of the others only the socket is kept, with which hyper begins anew when their tenant
//! asks again. So each of thousands of tenants can have its own connection at rest for little memory, and none of them pays a handshake of
//! TCP for its neighbours.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use ahash::RandomState;
use ringfence_policy::TenantId;
use rustix::process::{Resource, getrlimit};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Connected, Http1};
use crate::hop::limits::{MAX_BARE_UPSTREAM, MAX_WARM_UPSTREAM, UPSTREAM_IDLE};

#[derive(Default)]
pub(super) struct Idle {
    warm: ByAge<Http1>,
    bare: ByAge<Bare>,
}

struct Bare {
    stream: Connected,
    place: Place,
}

/// What was found at rest.
pub(super) enum Rested {
    Warm(Http1),
    Bare(Connected),
}

impl Idle {
    /// One of the tenant's connections, a warm one first, and of either kind the one that was used last: the others grow old and are dropped
    /// in turn.
    pub(super) fn take(&mut self, tenant: Option<&TenantId>, now: Instant) -> Option<Rested> {
        self.warm.drop_aged(now);
        self.bare.drop_aged(now);
        let tenant = tenant.cloned();
        if let Some(warm) = self.warm.take(&tenant) {
            return Some(Rested::Warm(warm));
        }
        loop {
            let Bare { stream, .. } = self.bare.take(&tenant)?;
            if stream.is_quiet() {
                return Some(Rested::Bare(stream));
            }
        }
    }

    /// Where there are enough warm ones, hyper lets go of the newcomer and not of the oldest: the newcomer's buffers are still in the
    /// processor's cache, and the next request gets them.
    pub(super) fn keep(&mut self, connection: Http1, now: Instant) {
        if self.warm.entries.len() < MAX_WARM_UPSTREAM {
            if connection.is_ready() {
                connection.forget_waker();
                self.warm.put(connection.tenant.clone(), connection, now);
            }
        } else if let Some((tenant, stream)) = connection.let_go()
            && let Some(place) = self.place()
        {
            self.bare.put(tenant, Bare { stream, place }, now);
        }
    }

    /// Where the process has none left, one of this upstream's own connections makes room.
    fn place(&mut self) -> Option<Place> {
        Place::take().or_else(|| self.bare.most_expendable().map(|entry| entry.item.place))
    }
}

/// One of the bare connections that the process may keep.
struct Place;

static PLACES_TAKEN: AtomicUsize = AtomicUsize::new(0);

/// A quarter of the descriptors at most: the rest is for those who ask.
static PLACES: LazyLock<usize> = LazyLock::new(|| {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / 4).map_or(MAX_BARE_UPSTREAM, |places| places.min(MAX_BARE_UPSTREAM))
});

impl Place {
    fn take() -> Option<Self> {
        let taken = PLACES_TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < *PLACES).then_some(taken + 1));
        taken.is_ok().then_some(Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PLACES_TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections by tenant, and all of them by age.
struct ByAge<T> {
    /// Numbered as they came: the longest at rest first.
    entries: BTreeMap<u64, Entry<T>>,
    /// The numbers of each tenant's, in the same order; no list is empty. `None`: of public paths.
    of: HashMap<Option<TenantId>, SmallVec<[u64; 2]>, RandomState>,
    next: u64,
}

struct Entry<T> {
    tenant: Option<TenantId>,
    since: Instant,
    item: T,
}

impl<T> Default for ByAge<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), of: HashMap::default(), next: 0 }
    }
}

impl<T> ByAge<T> {
    fn put(&mut self, tenant: Option<TenantId>, item: T, since: Instant) {
        self.of.entry(tenant.clone()).or_default().push(self.next);
        self.entries.insert(self.next, Entry { tenant, since, item });
        self.next += 1;
    }

    /// The tenant's last.
    fn take(&mut self, tenant: &Option<TenantId>) -> Option<T> {
        let number = *self.of.get(tenant)?.last()?;
        self.remove(number).map(|entry| entry.item)
    }

    /// Takes out what is missed least: the oldest of the tenant that came last, if that holds more than its share, else the oldest of all. So
    /// no tenant's connections drive out everybody else's.
    fn most_expendable(&mut self) -> Option<Entry<T>> {
        let (_, last) = self.entries.last_key_value()?;
        let of_last = self.of.get(&last.tenant)?;
        let share = (self.entries.len() / self.of.len()).max(1);
        let oldest = if of_last.len() > share { *of_last.first()? } else { *self.entries.first_key_value()?.0 };
        self.remove(oldest)
    }

    fn drop_aged(&mut self, now: Instant) {
        while let Some((&oldest, entry)) = self.entries.first_key_value()
            && now - entry.since >= UPSTREAM_IDLE
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Entry<T>> {
        let entry = self.entries.remove(&number)?;
        if let Some(numbers) = self.of.get_mut(&entry.tenant) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.of.remove(&entry.tenant);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
