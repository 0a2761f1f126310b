//! Idle HTTP/1 connections to one upstream.
//!
//! Those that were used last are warm: hyper reads from them and keeps the buffers that it had. Of the others only the socket is kept, with
//! which hyper begins anew when their tenant asks again. So each of thousands of tenants can have its own connection at rest for little
//! memory, and none of them pays a handshake of TCP for its neighbours.

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
use tokio::{sync::oneshot, time::Instant};

use super::{Connected, Http1};
use crate::hop::limits::{MAX_BARE_UPSTREAM, MAX_WARM_UPSTREAM, UPSTREAM_IDLE};

#[derive(Default)]
pub(super) struct Idle {
    warm: ByAge<Http1>,
    bare: ByAge<Bare>,
}

/// A connection of which hyper has let go, or does so in a moment. Dropping it closes it.
pub(super) struct Bare {
    pub(super) socket: oneshot::Receiver<Connected>,
    _place: Place,
}

/// What was found at rest.
pub(super) enum Rested {
    Warm(Http1),
    Bare(Bare),
}

impl Idle {
    /// The tenant's connection that was used last: the others grow old and are dropped in turn.
    pub(super) fn take(&mut self, tenant: Option<&TenantId>, now: Instant) -> Option<Rested> {
        self.warm.drop_aged(now);
        self.bare.drop_aged(now);
        let tenant = tenant.cloned();
        // Not ready: it was closed, or the end of its last exchange is still being written.
        let warm = self.warm.take(&tenant, |connection| connection.sender.is_ready()).map(Rested::Warm);
        warm.or_else(|| self.bare.take(&tenant, |_| true).map(Rested::Bare))
    }

    pub(super) fn keep(&mut self, connection: Http1, now: Instant) {
        let tenant = connection.tenant.clone();
        self.warm.put(tenant, connection, now);
        if self.warm.len() <= MAX_WARM_UPSTREAM {
            return;
        }
        if let Some(Entry { tenant, since, item }) = self.warm.most_expendable(MAX_WARM_UPSTREAM)
            && item.sender.is_ready()
            && let Some(place) = self.place()
            && let Some(socket) = item.let_go()
        {
            self.bare.put(tenant, Bare { socket, _place: place }, since);
        }
    }

    /// Where the process has none left, this upstream's own connections make room.
    fn place(&mut self) -> Option<Place> {
        let most = self.bare.len();
        Place::take().or_else(|| {
            self.bare.most_expendable(most);
            Place::take()
        })
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
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn put(&mut self, tenant: Option<TenantId>, item: T, since: Instant) {
        self.of.entry(tenant.clone()).or_default().push(self.next);
        self.entries.insert(self.next, Entry { tenant, since, item });
        self.next += 1;
    }

    /// The tenant's last that is fit.
    fn take(&mut self, tenant: &Option<TenantId>, is_fit: impl Fn(&T) -> bool) -> Option<T> {
        let numbers = self.of.get(tenant)?;
        let number = *numbers.iter().rev().find(|number| self.entries.get(number).is_some_and(|entry| is_fit(&entry.item)))?;
        self.remove(number).map(|entry| entry.item)
    }

    /// Takes out what is missed least where there are `most` or more: the oldest of the tenant that came last, if it holds more than its
    /// share of them, else the oldest of all. So no tenant's connections drive out everybody else's.
    fn most_expendable(&mut self, most: usize) -> Option<Entry<T>> {
        let (_, last) = self.entries.last_key_value()?;
        let of_last = self.of.get(&last.tenant)?;
        let share = (most / self.of.len()).max(1);
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
