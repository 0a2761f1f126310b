//! What was published last, in a file: a control plane whose directory has faults at its start serves that until they are mended, as one
//! that runs goes on with what it had.
//!
//! Nothing is served again that is older than what sidecars may have acknowledged: the file is of use only if nothing was signed after it
//! here, and where that is not all (a restored backup, another host with the same key), they find out by the seals, which stay as they are.
//! Whoever looked at those anew would make old policy new. So nothing is fetched for it either.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ringfence_xds::resource::{Kind, Resource};

use crate::{
    fleet::Fleet,
    say::say,
    signing::{
        self,
        set::{SetError, SignedSet},
    },
};

/// Below the state directory.
const FILE: &str = "published";
/// Between two writes: all of it is written each time.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum LastError {
    #[error(transparent)]
    Signing(#[from] signing::SigningError),
    #[error(transparent)]
    Set(#[from] SetError),
    #[error("{}: it was signed at epoch {epoch}, and something at {last} after it: sidecars may have that", path.display())]
    Outdated { path: PathBuf, epoch: u64, last: u64 },
}

/// For `status`, as long as it is in force.
pub(super) fn told(place: &str) -> String {
    format!(
        "ringfence: {place} has had faults ever since the start: what was published before is served until all are mended, \
         with issuers' keys and zones as they were then"
    )
}

/// What may be served again; `None`, and said unless there never was any: nothing.
pub(super) fn load(state: &Path) -> Option<Vec<Resource>> {
    let path = state.join(FILE);
    if !path.exists() {
        return None;
    }
    let read = || {
        let keys = signing::config_keys(&signing::public_key(state))?;
        let set = SignedSet::read(&path, &keys, &SignedSet::default())?;
        let last = signing::last_epoch(state);
        if set.epoch < last {
            return Err(LastError::Outdated { path: path.clone(), epoch: set.epoch, last });
        }
        // Whom to believe has a file of its own.
        Ok(set.resources().filter(|resource| resource.kind != Kind::TrustBundle).cloned().collect())
    };
    match read() {
        Ok(resources) => Some(resources),
        Err(error) => {
            say(format_args!("ringfence: what was published before cannot be served: {error}"));
            None
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct LastPublished {
    path: PathBuf,
    fleet: Arc<Fleet>,
    /// The epoch of what the file holds; 0: not known.
    written: Arc<AtomicU64>,
}

impl LastPublished {
    pub(super) fn of(state: &Path, fleet: &Arc<Fleet>) -> Self {
        Self { path: state.join(FILE), fleet: fleet.clone(), written: Arc::default() }
    }

    /// Writes what is published, if the file does not hold it.
    pub(super) fn keep(&self) {
        if self.fleet.epoch().is_none_or(|epoch| epoch == self.written.load(Ordering::Relaxed)) {
            return;
        }
        match self.fleet.write_signed(&self.path) {
            Ok(epoch) => self.written.store(epoch, Ordering::Relaxed),
            Err(error) => say(format_args!("ringfence: {error}: a start with faults in the directory will not serve what is in force now")),
        }
    }

    /// Keeps what is published, until the process ends.
    pub(super) async fn follow(self) {
        let mut changes = self.fleet.changes();
        loop {
            let last = self.clone();
            // It fails where the process ends.
            let _ = tokio::task::spawn_blocking(move || last.keep()).await;
            tokio::time::sleep(AT_MOST_EVERY).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}
