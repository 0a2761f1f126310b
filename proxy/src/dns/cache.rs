//! Replies remembered, for one thread and one policy: a changed policy gets another cache.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use ahash::RandomState;
use hickory_proto::op::ResponseCode;
use quick_cache::{Weighter, unsync};
use ringfence_policy::tenant::DEFAULT_SERVE_STALE;

use super::{
    answer::{Age, Reply},
    limits::{CACHE_OCTETS, POPULAR, PREFETCH_PART, STALE_QUIET, STALE_TTL},
};

/// What an entry takes besides key and reply: the slot, its share of the table, the allocator's headers.
const OVERHEAD: u64 = 128;
/// A usual entry, for the table's first size.
const USUAL: u64 = 512;

pub(super) struct Cache {
    entries: unsync::Cache<Box<[u8]>, Entry, Octets, RandomState>,
    stale_for: Duration,
}

struct Entry {
    reply: Rc<Reply>,
    stored: Instant,
    /// Uses since it was stored.
    uses: Cell<u32>,
    /// The upstreams have failed, and are not asked for this again before.
    quiet_until: Cell<Option<Instant>>,
}

#[derive(Clone)]
struct Octets;

impl Weighter<Box<[u8]>, Entry> for Octets {
    fn weight(&self, key: &Box<[u8]>, entry: &Entry) -> u64 {
        (key.len() + entry.reply.size()) as u64 + OVERHEAD
    }
}

/// What is known of a question.
pub(super) enum Found<'a> {
    /// `refresh`: it is popular and about to expire.
    Fresh { reply: &'a Rc<Reply>, age: Age, refresh: bool },
    /// It has expired. `quiet`: the upstreams failed a moment ago.
    Stale { reply: &'a Rc<Reply>, quiet: bool },
}

/// How a stale reply's TTLs are told.
pub(super) const STALE: Age = Age::Stale(STALE_TTL);

impl Default for Cache {
    fn default() -> Self {
        Self::new(CACHE_OCTETS)
    }
}

impl Cache {
    pub(super) fn new(octets: u64) -> Self {
        // The hash is keyed: whoever chooses names does not choose which of them meet.
        let entries = unsync::Cache::with((octets / USUAL) as usize, octets, Octets, RandomState::new(), Default::default());
        Self { entries, stale_for: DEFAULT_SERVE_STALE }
    }

    /// How long beyond its TTL an answer may stand in for upstreams that fail.
    pub(super) fn serve_stale(&mut self, for_at_most: Duration) {
        self.stale_for = for_at_most;
    }

    pub(super) fn find(&self, key: &[u8], now: Instant) -> Option<Found<'_>> {
        let entry = self.entries.get(key)?;
        let age = now.saturating_duration_since(entry.stored);
        let lifetime = Duration::from_secs(entry.reply.lifetime.into());
        if age < lifetime {
            let uses = entry.uses.get().saturating_add(1);
            entry.uses.set(uses);
            let refresh = uses >= POPULAR && lifetime - age <= lifetime / PREFETCH_PART && !entry.is_quiet(now);
            // Whole seconds, as TTLs are.
            return Some(Found::Fresh { reply: &entry.reply, age: Age::Seconds(age.as_secs() as u32), refresh });
        }
        entry.may_be_told(now, self.stale_for).then(|| Found::Stale { reply: &entry.reply, quiet: entry.is_quiet(now) })
    }

    /// Until when [`Cache::find`] has this very reply to tell and nothing else to do: before it is time to refresh it. `None`: another
    /// reply stands there by now, or this one is used so little that each use must be counted.
    pub(super) fn told_until(&self, key: &[u8], reply: &Rc<Reply>) -> Option<Instant> {
        let entry = self.entries.peek(key)?;
        let lifetime = Duration::from_secs(reply.lifetime.into());
        let is_popular = entry.uses.get() >= POPULAR;
        (is_popular && Rc::ptr_eq(&entry.reply, reply)).then(|| entry.stored + (lifetime - lifetime / PREFETCH_PART))
    }

    pub(super) fn store(&mut self, key: &[u8], reply: Rc<Reply>, now: Instant) {
        let entry = Entry { reply, stored: now, uses: Cell::new(0), quiet_until: Cell::new(None) };
        self.entries.insert(key.into(), entry);
    }

    /// The upstreams could not answer this. Whether there is an answer still that may stand in.
    pub(super) fn failed(&self, key: &[u8], now: Instant) -> bool {
        match self.entries.peek(key) {
            Some(entry) if entry.may_be_told(now, self.stale_for) => {
                entry.quiet_until.set(Some(now + STALE_QUIET));
                true
            }
            _ => false,
        }
    }

    /// Octets in use.
    #[cfg(test)]
    fn octets(&self) -> u64 {
        self.entries.weight()
    }
}

impl Entry {
    fn is_quiet(&self, now: Instant) -> bool {
        self.quiet_until.get().is_some_and(|until| now < until)
    }

    /// While it is fresh, or may stand in for a better one. A failure is no answer to fall back to.
    fn may_be_told(&self, now: Instant, stale_for: Duration) -> bool {
        let lifetime = Duration::from_secs(self.reply.lifetime.into());
        let is_answer = matches!(self.reply.rcode, ResponseCode::NoError | ResponseCode::NXDomain);
        is_answer && now.saturating_duration_since(self.stored) < lifetime + stale_for
    }
}

#[cfg(test)]
mod tests;
