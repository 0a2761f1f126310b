//! Epochs: higher with each publication, also after a restart, after the loss of what was kept, and after a clock that jumped ahead.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::shared::SharedEpoch;
use crate::say::say;

/// The latest, in decimal.
const FILE: &str = "config.epoch";

/// Milliseconds since 1970, or one more than the last where the clock says less.
#[derive(Debug)]
pub(super) struct Epochs {
    file: Option<PathBuf>,
    shared: Option<Arc<SharedEpoch>>,
    last: u64,
    /// Whether it was said that the file cannot be written.
    told: bool,
}

impl Epochs {
    /// A file that is not there, or damaged, leaves the clock alone to say how late it is.
    pub(super) fn open(dir: Option<&Path>) -> Self {
        let file = dir.map(|dir| dir.join(FILE));
        let kept = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        Self { file, shared: None, last: kept.and_then(|text| text.trim().parse().ok()).unwrap_or_default(), told: false }
    }

    /// Of a replica among others.
    pub(super) fn shared(shared: Arc<SharedEpoch>) -> Self {
        Self { file: None, shared: Some(shared), last: 0, told: false }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The next. `now`: see [`now`].
    pub(super) fn at(&mut self, now: u64) -> u64 {
        if let Some(shared) = &self.shared {
            self.last = self.last.max(shared.others());
        }
        self.last = now.max(self.last.saturating_add(1));
        if let Some(shared) = &self.shared {
            shared.used(self.last);
        }
        if let Some(file) = &self.file {
            match keep(file, self.last) {
                Ok(()) => self.told = false,
                Err(error) if !self.told => {
                    self.told = true;
                    say(format_args!("ringfence: {}: {error}: the clock alone says how late it is", file.display()));
                }
                Err(_) => {}
            }
        }
        self.last
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Not synced: what a crash takes the clock still knows.
fn keep(file: &Path, epoch: u64) -> io::Result<()> {
    let mut temporary = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new(".")))?;
    writeln!(temporary, "{epoch}")?;
    temporary.persist(file).map(drop).map_err(|error| error.error)
}
