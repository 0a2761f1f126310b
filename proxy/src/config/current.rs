//! The one pointer to the policy in force.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ringfence_policy::Snapshot;
use tokio::sync::watch;

/// Pinned once per request, connection or query; what was pinned stays whole however often it is swapped meanwhile.
#[derive(Debug, Default)]
pub struct Current {
    snapshot: ArcSwapOption<Snapshot>,
    /// The generation in force, for those who outlive the policy that they were decided under.
    generation: watch::Sender<u64>,
}

impl Current {
    /// `None`: there is no policy, which denies.
    pub fn pin(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// Tells of every swap from now on. Whoever subscribes before pinning misses none.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        self.snapshot.store(Some(snapshot));
        self.generation.send_replace(generation);
    }
}
