//! Whether this sidecar may be sent traffic. Holding a guard delays readiness, dropping it releases; draining ends it.

use std::sync::Arc;

use parking_lot::Mutex;

/// Shared by all who delay or ask. Without any guard taken it is ready: take the guards before the admin listener serves.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is waited for; the same name may stand here twice.
    pending: Vec<&'static str>,
    draining: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Ready,
    /// Waiting for these.
    Starting(Vec<&'static str>),
    /// For good: a sidecar that drains never becomes ready again.
    Draining,
}

/// Delays readiness until it is dropped.
#[derive(Debug)]
#[must_use = "dropped at once, it delays nothing"]
pub struct Pending {
    what: &'static str,
    state: Arc<Mutex<State>>,
}

impl Readiness {
    /// `what` is shown to whoever asks why the sidecar is not ready.
    pub fn delay(&self, what: &'static str) -> Pending {
        self.0.lock().pending.push(what);
        Pending { what, state: Arc::clone(&self.0) }
    }

    pub fn drain(&self) {
        self.0.lock().draining = true;
    }

    pub fn status(&self) -> Status {
        let state = self.0.lock();
        if state.draining {
            Status::Draining
        } else if state.pending.is_empty() {
            Status::Ready
        } else {
            Status::Starting(state.pending.clone())
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if let Some(at) = state.pending.iter().position(|what| *what == self.what) {
            state.pending.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_delay_and_release() {
        let readiness = Readiness::default();
        assert_eq!(readiness.status(), Status::Ready);
        let config = readiness.delay("config");
        let first = readiness.delay("listener");
        let second = readiness.delay("listener");
        assert_eq!(readiness.status(), Status::Starting(vec!["config", "listener", "listener"]));
        drop(first);
        assert_eq!(readiness.status(), Status::Starting(vec!["config", "listener"]));
        drop(config);
        drop(second);
        assert_eq!(readiness.status(), Status::Ready);
    }

    #[test]
    fn draining_is_final() {
        let readiness = Readiness::default();
        let config = readiness.delay("config");
        readiness.clone().drain();
        assert_eq!(readiness.status(), Status::Draining);
        drop(config);
        assert_eq!(readiness.status(), Status::Draining);
    }
}
