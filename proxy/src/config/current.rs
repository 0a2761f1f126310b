//! The one pointer to the policy in force.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ringfence_policy::Snapshot;

/// Pinned once per request, connection or query; what was pinned stays whole however often it is swapped meanwhile.
#[derive(Debug, Default)]
pub struct Current(ArcSwapOption<Snapshot>);

impl Current {
    /// `None`: there is no policy, which denies.
    pub fn pin(&self) -> Option<Arc<Snapshot>> {
        self.0.load_full()
    }

    pub(crate) fn swap(&self, snapshot: Arc<Snapshot>) {
        self.0.store(Some(snapshot));
    }
}
