//! Watches the directory by inotify: no polling, and quiet while nobody writes.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::files::Change;

/// An edit is taken up when nothing more happened for so long …
const QUIET: Duration = Duration::from_millis(40);
/// … a removal a little later: editors take the old file away before they put the new one in its place …
const QUIET_AFTER_REMOVAL: Duration = Duration::from_millis(200);
/// … and a steady stream of edits at least this often.
const AT_LEAST_EVERY: Duration = Duration::from_millis(400);

pub struct Watch {
    watcher: RecommendedWatcher,
    events: mpsc::UnboundedReceiver<notify::Result<Event>>,
    /// Directories outside the served one that hold files it refers to.
    outside: HashSet<PathBuf>,
    dir: PathBuf,
}

impl Watch {
    /// `dir` must be the same path under which files are read. `state`: a directory within, where sidecars write logs all the time.
    pub fn new(dir: &Path, state: &Path) -> notify::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let state = state.to_owned();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let is_edit = |event: &Event| event.paths.is_empty() || !event.paths.iter().all(|path| path.starts_with(&state));
            if event.as_ref().map_or(true, is_edit) {
                // The receiver is gone only when the process ends.
                let _ = sender.send(event);
            }
        })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Self { watcher, events, outside: HashSet::new(), dir: dir.to_owned() })
    }

    /// Watches a file that an object refers to, wherever it lies.
    pub fn also(&mut self, file: &Path) -> notify::Result<()> {
        let Some(parent) = file.parent().filter(|parent| !parent.starts_with(&self.dir)) else { return Ok(()) };
        if self.outside.insert(parent.to_owned()) {
            self.watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }

    /// Waits for a burst of edits to end and tells what it changed; `None`: the watcher is gone.
    pub async fn burst(&mut self) -> Option<Vec<Change>> {
        let mut changes = Vec::new();
        let mut settled = false;
        while !settled {
            let event = self.events.recv().await?;
            settled = note(event, &mut changes).is_some();
        }
        let latest = Instant::now() + AT_LEAST_EVERY;
        let mut until = Instant::now() + QUIET;
        loop {
            if changes.last().is_some_and(|change| matches!(change, Change::Settled(path) if !path.exists())) {
                until = until.max(Instant::now() + QUIET_AFTER_REMOVAL);
            }
            match timeout_at(until.min(latest), self.events.recv()).await {
                Ok(Some(event)) => {
                    note(event, &mut changes);
                    until = Instant::now() + QUIET;
                }
                Ok(None) => return None,
                Err(_) => return Some(changes),
            }
        }
    }
}

/// Adds what an event means; `Some` where something is ready to be read.
fn note(event: notify::Result<Event>, changes: &mut Vec<Change>) -> Option<()> {
    let Ok(event) = event else {
        changes.push(Change::Everything);
        return Some(());
    };
    if event.need_rescan() {
        changes.push(Change::Everything);
        return Some(());
    }
    let mut ready = None;
    for path in event.paths {
        // Kubernetes swaps a mounted ConfigMap by renaming this link.
        if path.file_name().is_some_and(|name| name == "..data") {
            changes.push(Change::Everything);
            ready = Some(());
            continue;
        }
        let change = match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => Change::Writing(path),
            // A file made by `open` is closed later; a link, or a directory that was made, is whole at once.
            EventKind::Create(CreateKind::File) if is_being_written(&path) => Change::Writing(path),
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => Change::Settled(path),
            EventKind::Modify(ModifyKind::Name(_)) => Change::Settled(path),
            _ => continue,
        };
        if matches!(change, Change::Settled(_)) {
            ready = Some(());
        }
        // One long write is many events.
        if changes.last() != Some(&change) {
            changes.push(change);
        }
    }
    ready
}

fn is_being_written(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_sidecars_write_is_no_edit_and_a_long_write_is_one_change() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (state, yaml) = (dir.join("state"), dir.join("acme.yaml"));
        fs::create_dir(&state).unwrap();
        let mut watch = Watch::new(&dir, &state).unwrap();
        let mut file = fs::File::create(&yaml).unwrap();
        for _ in 0..100 {
            fs::write(state.join("access.log"), "line").unwrap();
            std::io::Write::write_all(&mut file, b"more").unwrap();
        }
        drop(file);
        let changes = watch.burst().await.unwrap();
        assert_eq!(changes, [Change::Writing(yaml.clone()), Change::Settled(yaml)]);
    }
}
