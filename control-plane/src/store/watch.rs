//! Watches directories by inotify: no polling, and no wake-up while nobody writes what concerns us.
//!
//! Knows which files are being written at the moment, which were written since they were last read, and when an edit is over. Whoever
//! reads a directory tells of it (`tree`) before the first look into it, at each reading anew: the kernel watches directories, not names,
//! so that one that was replaced, renamed or made again is another.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    fs, io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout_at},
};

use crate::spec::is_object_file;

/// An edit is taken up when nothing more happened for so long …
const QUIET: Duration = Duration::from_millis(40);
/// … a removal a little later: editors take the old file away before they put the new one in its place …
const QUIET_AFTER_REMOVAL: Duration = Duration::from_millis(200);
/// … and a steady stream of edits at least this often.
const AT_LEAST_EVERY: Duration = Duration::from_millis(400);
/// Links followed on the way to one file, as the kernel has it.
const MAX_LINKS: usize = 40;

#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    /// What is watched, by its real path.
    dirs: HashMap<WatchDescriptor, PathBuf>,
    descriptors: HashMap<PathBuf, WatchDescriptor>,
    /// Of those: the ones in which every name that is not hidden may matter.
    trees: HashSet<PathBuf>,
    /// Directory entries elsewhere that matter: files that objects are made of, and the links on the way to anything that is read.
    entries: HashSet<PathBuf>,
    /// Directories that cannot be watched, and why.
    pub failures: BTreeMap<PathBuf, String>,
    /// Opened for writing and not closed yet.
    writing: HashSet<PathBuf>,
    /// Closed after writing, replaced or gone since `begin`.
    touched: HashSet<PathBuf>,
    /// Events were lost: anything may have been touched.
    lost: bool,
    edit: Option<Edit>,
}

/// An edit that is to be taken up.
#[derive(Debug)]
struct Edit {
    first: Instant,
    last: Instant,
    /// What was taken away last.
    removed: Option<PathBuf>,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init().map_err(|error| match rustix::io::Errno::from_io_error(&error) {
            // Of descriptors, or of what is meant for inotify alone (inotify_init(2)).
            Some(rustix::io::Errno::MFILE) => io::Error::new(error.kind(), format!("{error} (or raise fs.inotify.max_user_instances)")),
            _ => error,
        })?;
        Ok(Self {
            inotify,
            dirs: HashMap::new(),
            descriptors: HashMap::new(),
            trees: HashSet::new(),
            entries: HashSet::new(),
            failures: BTreeMap::new(),
            writing: HashSet::new(),
            touched: HashSet::new(),
            lost: false,
            edit: None,
        })
    }

    /// Returns when there is an edit and it is over. Nothing is lost when the future is dropped before.
    pub async fn settled(&mut self) -> io::Result<()> {
        loop {
            self.drain();
            let due = self.edit.as_ref().map(Edit::due);
            #[expect(
                deprecated,
                reason = "unsound for what can be closed meanwhile; the borrow keeps this open, and the new form is unsafe"
            )]
            let kernel = AsyncFd::with_interest(self.inotify.as_fd(), Interest::READABLE)?;
            match due {
                None => drop(kernel.readable().await?),
                Some(due) => match timeout_at(due, kernel.readable()).await {
                    Ok(ready) => drop(ready?),
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    /// A reading begins: what was touched until now will be read by it, and what it will not name again is forgotten at `end`.
    pub(super) fn begin(&mut self) {
        self.drain();
        self.edit = None;
        self.trees.clear();
        self.entries.clear();
        self.failures.clear();
    }

    /// A directory all of which matters, by its real path. Before it is looked into.
    pub(super) fn tree(&mut self, dir: &Path) {
        self.watch(dir, true);
        self.trees.insert(dir.to_owned());
    }

    /// The directory entries that decide what `path` leads to, links and missing ones included, wherever they are. Yields where it leads.
    pub(super) fn entry(&mut self, path: &Path) -> PathBuf {
        let mut at = PathBuf::from("/");
        let mut ahead: Vec<OsString> = Vec::new();
        push(&mut ahead, path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let entry = at.join(&name);
            let link = fs::symlink_metadata(&entry).map(|metadata| metadata.is_symlink());
            if let (Ok(false), false) = (&link, ahead.is_empty()) {
                at = entry;
                continue;
            }
            // Before it is looked at again, by whoever reads.
            self.watch(&at, ahead.is_empty());
            self.entries.insert(entry.clone());
            match link {
                Ok(true) if links < MAX_LINKS => {
                    links += 1;
                    let Ok(target) = fs::read_link(&entry) else { return entry };
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    push(&mut ahead, &target);
                }
                _ => return entry,
            }
        }
        at
    }

    /// The reading is done: what it did not name is watched no more.
    pub(super) fn end(&mut self) {
        let elsewhere: HashSet<&Path> = self.entries.iter().filter_map(|entry| entry.parent()).collect();
        let left: Vec<PathBuf> =
            self.descriptors.keys().filter(|dir| !self.trees.contains(*dir) && !elsewhere.contains(&***dir)).cloned().collect();
        for dir in left {
            self.forget(&dir);
        }
        let watched = |path: &Path| path.parent().is_some_and(|dir| self.descriptors.contains_key(dir));
        // Its closing would not be told any more.
        self.writing.retain(|path| watched(path));
        self.touched.clear();
        self.lost = false;
    }

    pub(super) fn is_writing(&self, path: &Path) -> bool {
        self.writing.contains(path)
    }

    pub(super) fn is_touched(&self, path: &Path) -> bool {
        self.lost || self.touched.contains(path)
    }

    /// `contents`: of the files in it too, not only of its entries.
    fn watch(&mut self, dir: &Path, contents: bool) {
        let mut mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::ATTRIB;
        mask |= WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR | WatchMask::MASK_ADD;
        if contents {
            mask |= WatchMask::MODIFY | WatchMask::CLOSE_WRITE;
        }
        match self.inotify.watches().add(dir, mask) {
            Ok(descriptor) => {
                if self.descriptors.get(dir) != Some(&descriptor) {
                    self.forget(dir);
                    self.descriptors.insert(dir.to_owned(), descriptor.clone());
                    self.dirs.insert(descriptor, dir.to_owned());
                }
            }
            // Gone again: its own directory tells of that.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => {
                // ENOSPC.
                let limit = error.kind() == io::ErrorKind::StorageFull;
                let why = if limit { "raise fs.inotify.max_user_watches".to_owned() } else { error.to_string() };
                self.failures.insert(dir.to_owned(), format!("cannot be watched, so that edits would go unseen: {why}"));
            }
        }
    }

    fn forget(&mut self, dir: &Path) {
        if let Some(descriptor) = self.descriptors.remove(dir)
            && self.dirs.get(&descriptor).is_some_and(|known| known == dir)
        {
            self.dirs.remove(&descriptor);
            // Fails where the directory is gone, and its watch with it.
            let _ = self.inotify.watches().remove(descriptor);
        }
    }

    /// Takes in what the kernel has to tell, without waiting.
    pub(super) fn drain(&mut self) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let events: Vec<_> = match self.inotify.read_events(&mut buffer) {
                Ok(events) => events.map(|event| event.to_owned()).collect(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(),
            };
            for event in events {
                self.take(event.mask, &event.wd, event.name);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn has_edit(&self) -> bool {
        self.edit.is_some()
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        // Whether these were closed will never be known.
        self.writing.clear();
        self.changed(None);
    }

    fn take(&mut self, mask: EventMask, descriptor: &WatchDescriptor, name: Option<OsString>) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            return self.lose();
        }
        let Some(dir) = self.dirs.get(descriptor) else { return };
        let Some(name) = name else {
            // Of the directory itself.
            if mask.contains(EventMask::IGNORED) {
                let dir = dir.clone();
                self.dirs.remove(descriptor);
                if self.descriptors.get(&dir) == Some(descriptor) {
                    self.descriptors.remove(&dir);
                }
            }
            if mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED) {
                self.changed(None);
            }
            return;
        };
        let path = dir.join(&name);
        let named = self.entries.contains(&path);
        let of_a_tree = self.trees.contains(dir) && !name.as_encoded_bytes().starts_with(b".");
        if !named && !of_a_tree {
            return;
        }
        // Other files of a tree are nobody's business; what has no such name may be a directory or a link to one.
        let of_an_object = named || is_object_file(&path);
        let is_dir = mask.contains(EventMask::ISDIR);
        let written = mask.contains(EventMask::MODIFY);
        if written || (mask.contains(EventMask::CREATE) && !is_dir && is_being_written(&path)) {
            if of_an_object {
                self.writing.insert(path);
            }
        } else if of_an_object || !mask.intersects(EventMask::CLOSE_WRITE | EventMask::ATTRIB) {
            if !mask.contains(EventMask::ATTRIB) {
                self.writing.remove(&path);
            }
            self.touched.insert(path.clone());
            self.changed(mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM).then_some(path));
        }
    }

    fn changed(&mut self, removed: Option<PathBuf>) {
        let now = Instant::now();
        match &mut self.edit {
            Some(edit) => (edit.last, edit.removed) = (now, removed),
            None => self.edit = Some(Edit { first: now, last: now, removed }),
        }
    }
}

impl Edit {
    /// When it is over, unless more happens.
    fn due(&self) -> Instant {
        let quiet = match &self.removed {
            Some(path) if !path.exists() => QUIET_AFTER_REMOVAL,
            _ => QUIET,
        };
        (self.last + quiet).min(self.first + AT_LEAST_EVERY)
    }
}

/// The parts of `path`, the first on top.
fn push(ahead: &mut Vec<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => ahead.push(name.to_owned()),
            Component::ParentDir => ahead.push("..".into()),
            _ => {}
        }
    }
}

/// A file that was made by `open` is closed later; a link is whole at once.
fn is_being_written(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}
