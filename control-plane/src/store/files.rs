//! The texts of a directory's files as they were when their writers last closed them: a half-written file is never seen.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::watch::Watch;
use crate::spec::{self, Met, Scan};

#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    watch: Watch,
    texts: HashMap<PathBuf, Text>,
    /// Where the listed files that are no links lie.
    real: HashMap<PathBuf, PathBuf>,
    /// Read anew since `begin`, and what was there before.
    replaced: HashMap<PathBuf, Option<Text>>,
    /// Found to be current since `begin`.
    current: HashSet<PathBuf>,
}

#[derive(Clone, Debug)]
struct Text {
    /// Where its path leads.
    real: PathBuf,
    stamp: Stamp,
    bytes: Arc<[u8]>,
}

/// Tells whether a file is another, or written to, where no event could: behind links, or while events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Files {
    /// `dir`: absolute.
    pub fn new(dir: &Path, watch: Watch) -> Self {
        Self { dir: dir.to_owned(), watch, texts: HashMap::new(), real: HashMap::new(), replaced: HashMap::new(), current: HashSet::new() }
    }

    /// Returns when something was edited, and its writers are done. May be dropped at any time.
    pub async fn settled(&mut self) -> io::Result<()> {
        self.watch.settled().await
    }

    /// A reading begins.
    pub fn begin(&mut self) {
        self.watch.begin();
        self.replaced.clear();
        self.current.clear();
    }

    /// Ends a reading; `false`: something that it read was opened for writing meanwhile. It is as before then, for the next.
    pub fn end(&mut self) -> bool {
        self.watch.drain();
        let mut whole = true;
        for (path, before) in self.replaced.drain() {
            let torn = self.texts.get(&path).is_some_and(|text| self.watch.is_writing(&text.real));
            if torn {
                whole = false;
                match before {
                    Some(text) => self.texts.insert(path, text),
                    None => self.texts.remove(&path),
                };
            }
        }
        if whole {
            self.texts.retain(|path, _| self.current.contains(path));
            self.watch.end();
        }
        whole
    }

    /// The object files below the directory, and the directories that cannot be read.
    pub fn list(&mut self) -> io::Result<Scan> {
        self.watch.entry(&self.dir);
        // Without its parent's word only this goes unseen: that the directory itself is replaced.
        self.watch.failures.clear();
        let mut scan = spec::scan(&self.dir, |met| match met {
            Met::Folder(dir) => self.watch.tree(dir),
            Met::Link(link) => drop(self.watch.entry(link)),
        })?;
        // A new file that is still being written is not there yet.
        scan.files.retain(|path, real| self.texts.contains_key(path) || !real.as_deref().is_some_and(|real| self.watch.is_writing(real)));
        self.real = scan.files.iter().filter_map(|(path, real)| Some((path.clone(), real.clone()?))).collect();
        // An editor may take the old file away before it writes the new one: until that is closed, the old text counts.
        let being_replaced = self.texts.iter().filter(|(path, text)| spec::is_object_file(path) && self.watch.is_writing(&text.real));
        for (path, text) in being_replaced {
            scan.files.entry(path.clone()).or_insert_with(|| Some(text.real.clone()));
        }
        Ok(scan)
    }

    /// The directories that cannot be watched, and why.
    pub fn unwatched(&self) -> &BTreeMap<PathBuf, String> {
        &self.watch.failures
    }

    /// The text of a file: from memory while nothing has happened to it, and while it is being written.
    pub fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        if self.current.contains(path)
            && let Some(text) = self.texts.get(path)
        {
            return Ok(text.bytes.clone());
        }
        let text = self.look(path)?;
        self.current.insert(path.to_owned());
        Ok(text)
    }

    fn look(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        let real = match self.real.get(path) {
            Some(real) => real.clone(),
            None => self.watch.entry(path),
        };
        let known = self.texts.get(path);
        if self.watch.is_writing(&real) {
            let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "it is still being written");
            return known.map(|text| text.bytes.clone()).ok_or_else(busy);
        }
        let stamp = Stamp::of(&fs::metadata(path)?);
        if let Some(text) = known
            && (text.stamp, &text.real) == (stamp, &real)
            && !self.watch.is_touched(&real)
        {
            return Ok(text.bytes.clone());
        }
        let bytes: Arc<[u8]> = spec::read_bounded(path)?.into();
        let before = self.texts.insert(path.to_owned(), Text { real, stamp, bytes: bytes.clone() });
        self.replaced.insert(path.to_owned(), before);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
