//! The cells of one limit of one tenant.

use std::num::NonZeroU32;

use indexmap::IndexMap;
use ringfence_policy::{RuleRef, ratelimit::Quota};

use super::{gcra::Gcra, hash_key::AsHashed, state::BucketState};

/// Cells looked at when a new key arrives. Two would do to let go of cells faster than they come.
const EXAMINED: usize = 4;

/// A debt that was run up after the fact is forgotten after a day, as others are.
const MAX_DEBT: u64 = 86_400 * 1_000_000_000;

/// Which cell of a limit: a keyed hash of what it counts by and the token's value, so that a limit which comes to count by something else
/// finds new cells, and its old ones when it comes back.
pub(super) type CellKey = u128;

pub(super) struct Bucket {
    rule: RuleRef,
    /// What the TATs below were reckoned with.
    quota: Quota,
    gcra: Gcra,
    /// TATs, in nanoseconds since the limiter was made.
    cells: IndexMap<CellKey, u64, AsHashed>,
    /// Where eviction goes on looking.
    hand: usize,
    /// The TAT shared by keys that found no room. A key that finds room later starts from here, as it may have been one of them.
    overflow: u64,
    /// No TAT is later than this.
    latest: u64,
}

impl Bucket {
    pub(super) fn new(rule: &RuleRef, quota: Quota) -> Self {
        Self { rule: rule.clone(), quota, gcra: Gcra::new(quota), cells: IndexMap::default(), hand: 0, overflow: 0, latest: 0 }
    }

    /// As another process had it. What finds no room joins those that found none there.
    pub(super) fn restore(state: &BucketState, room: usize, now: u64) -> Option<Self> {
        let quota = state.quota()?;
        let mut bucket = Self::new(&RuleRef::new(&*state.rule), quota);
        let longest = bucket.gcra.window().max(MAX_DEBT);
        let tat = |remaining: u64| now + remaining.min(longest);
        bucket.overflow = tat(state.overflow);
        for (cell, remaining) in state.cells()? {
            if bucket.cells.len() < room {
                bucket.cells.insert(cell, tat(remaining));
            } else {
                bucket.overflow = bucket.overflow.max(tat(remaining));
            }
        }
        bucket.latest = bucket.cells.values().copied().max().unwrap_or(0).max(bucket.overflow);
        Some(bucket)
    }

    pub(super) fn state(&self, now: u64) -> BucketState {
        let mut state = BucketState::new(&self.rule, self.quota, self.overflow.saturating_sub(now));
        // The others are full again.
        self.cells.iter().filter(|(_, tat)| **tat > now).for_each(|(cell, tat)| state.push(*cell, tat - now));
        state
    }

    pub(super) fn belongs_to(&self, rule: &RuleRef) -> bool {
        self.rule == *rule
    }

    pub(super) fn quota(&self) -> Quota {
        self.quota
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
        let (before, after) = (self.gcra.window(), gcra.window());
        let ratio = after as f64 / before as f64;
        let scale = |tat: &mut u64| {
            if let Some(debt) = tat.checked_sub(now) {
                // Rounded up: a change gives nothing away.
                *tat = now + ((debt as f64 * ratio).ceil() as u64).min(if debt > before { MAX_DEBT } else { after });
            }
        };
        self.cells.values_mut().for_each(scale);
        scale(&mut self.overflow);
        scale(&mut self.latest);
        self.quota = quota;
        self.gcra = gcra;
    }

    /// The cell's TAT after so much more; or how long to wait for it. `cost` `None`: as it is, unless it is in debt. Changes nothing.
    pub(super) fn ask(&self, cell: CellKey, cost: Option<NonZeroU32>, now: u64) -> Result<u64, u64> {
        let tat = self.tat(cell);
        match cost {
            Some(cost) => self.gcra.decide(tat, cost, now),
            None => self.gcra.decide(tat, NonZeroU32::MIN, now).map(|_| tat),
        }
    }

    /// The cell's TAT after what cannot be refused any more.
    pub(super) fn owe(&self, cell: CellKey, cost: NonZeroU32, now: u64) -> u64 {
        let debt = self.quota.interval_nanos().saturating_mul(cost.get().into());
        self.tat(cell).max(now).saturating_add(debt).min(now.saturating_add(MAX_DEBT))
    }

    fn tat(&self, cell: CellKey) -> u64 {
        self.cells.get(&cell).copied().unwrap_or(self.overflow)
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
            self.cells = IndexMap::default();
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
