//! The cells of one limit of one tenant.

use std::sync::Arc;

use indexmap::IndexMap;
use ringfence_policy::ratelimit::{LimitPolicy, Quota};

use super::gcra::Gcra;

/// Cells looked at when a new key arrives. Two would do to let go of cells faster than they come.
const EXAMINED: usize = 4;

/// Which cell of a limit: a keyed hash of what it counts by and the token's value, so that a limit which comes to count by something else
/// finds new cells, and its old ones when it comes back.
pub(super) type CellKey = u128;

pub(super) struct Bucket {
    name: Arc<str>,
    /// What the TATs below were reckoned with.
    quota: Quota,
    gcra: Gcra,
    /// TATs, in nanoseconds since the limiter was made.
    cells: IndexMap<CellKey, u64>,
    /// Where eviction goes on looking.
    hand: usize,
    /// The TAT shared by keys that found no room. A key that finds room later starts from here, as it may have been one of them.
    overflow: u64,
    /// No TAT is later than this.
    latest: u64,
}

impl Bucket {
    pub(super) fn new(limit: &LimitPolicy) -> Self {
        Self {
            name: limit.name.clone(),
            quota: limit.quota,
            gcra: Gcra::new(limit.quota),
            cells: IndexMap::new(),
            hand: 0,
            overflow: 0,
            latest: 0,
        }
    }

    pub(super) fn belongs_to(&self, limit: &LimitPolicy) -> bool {
        Arc::ptr_eq(&self.name, &limit.name) || self.name == limit.name
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether every cell is full again, so that nothing is lost with the bucket.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.latest <= now
    }

    /// Goes over to another quota: a cell that was drained to six tenths still is.
    ///
    /// All cells at once: each one's share at this moment could not be told later. It takes some 3 ns a cell (`tests/cost.rs`).
    pub(super) fn adopt(&mut self, quota: Quota, now: u64) {
        if quota == self.quota {
            return;
        }
        let gcra = Gcra::new(quota);
        let ratio = gcra.window() as f64 / self.gcra.window() as f64;
        let scale = |tat: &mut u64| {
            if let Some(debt) = tat.checked_sub(now) {
                // Rounded up: a change gives nothing away.
                *tat = now + ((debt as f64 * ratio).ceil() as u64).min(gcra.window());
            }
        };
        self.cells.values_mut().for_each(scale);
        scale(&mut self.overflow);
        scale(&mut self.latest);
        self.quota = quota;
        self.gcra = gcra;
    }

    /// The cell's TAT after one request more; or how long to wait for it. Changes nothing.
    pub(super) fn ask(&self, cell: CellKey, now: u64) -> Result<u64, u64> {
        self.gcra.decide(self.cells.get(&cell).copied().unwrap_or(self.overflow), now)
    }

    /// Stores what `ask` told, where the cell has its place.
    pub(super) fn update(&mut self, cell: CellKey, tat: u64) -> bool {
        let Some(held) = self.cells.get_mut(&cell) else { return false };
        *held = tat;
        self.latest = self.latest.max(tat);
        true
    }

    /// Stores what `ask` told of a cell that has no place yet.
    pub(super) fn insert(&mut self, cell: CellKey, tat: u64, room: bool) {
        self.latest = self.latest.max(tat);
        if room {
            self.cells.insert(cell, tat);
        } else {
            self.overflow = tat;
        }
    }

    /// Lets go of some cells that are full again: they cannot be told from new ones. No other cell ever goes.
    pub(super) fn evict(&mut self, now: u64) {
        if self.is_fresh(now) {
            // Also gives back what a crowd of keys took.
            self.cells = IndexMap::new();
        }
        for _ in 0..EXAMINED {
            if self.hand >= self.cells.len() {
                self.hand = 0;
            }
            match self.cells.get_index(self.hand) {
                Some((_, tat)) if *tat <= now => drop(self.cells.swap_remove_index(self.hand)),
                Some(_) => self.hand += 1,
                None => return,
            }
        }
    }
}
