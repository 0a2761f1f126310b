//! The end of an upstream that is another by now: what is under way there may go on for a while, and is cut then.

use std::cell::Cell;

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Leaving {
    begun: Cell<bool>,
    cut: Cell<bool>,
    told: Notify,
}

impl Leaving {
    /// Nothing new goes there.
    pub(crate) fn begin(&self) {
        self.begun.set(true);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    pub(crate) fn cut(&self) {
        self.cut.set(true);
        self.told.notify_waiters();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Resolves when what is left is to be cut.
    pub(crate) async fn over(&self) {
        let told = self.told.notified();
        if !self.is_cut() {
            told.await;
        }
    }
}
