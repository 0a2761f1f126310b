//! The texts of a directory's files as they were when their writers last closed them: a half-written file is never seen.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::watch::Watch;
use crate::{
    feed::transfer::{Checksum, Kept},
    plane::STATE_DIR,
    spec::{self, Met, Others, Scan},
    zones::{self, MAX_TEXT_BYTES, Outcome},
};
use ringfence_xds::{policy::rpz, zone::Digest};

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
    content: Content,
}

/// What was read of a file. Of a zone's text, which may be long, only what it comes to is kept.
#[derive(Clone, Debug)]
pub enum Content {
    Text(Arc<[u8]>),
    Zone {
        text: Digest,
        name: Arc<str>,
        outcome: Outcome,
    },
    /// What a transfer has left.
    Transferred {
        checksum: Checksum,
        origin: rpz::Name,
        outcome: Option<Outcome>,
    },
}

impl Content {
    /// Whether the file said the same.
    pub fn is_same(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::Text(new), Content::Text(old)) => Arc::ptr_eq(new, old) || new == old,
            (Content::Zone { text: new, .. }, Content::Zone { text: old, .. }) => new == old,
            (Content::Transferred { checksum: new, .. }, Content::Transferred { checksum: old, .. }) => new == old,
            _ => false,
        }
    }
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
        let read = |_: Option<&Content>| Ok(Content::Text(spec::read_bounded(path)?.into()));
        match self.content(path, |content| matches!(content, Content::Text(_)), read)? {
            Content::Text(text) => Ok(text),
            Content::Zone { .. } | Content::Transferred { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// What is known of a file since `begin`; `None`: it could not be read.
    pub fn known(&self, path: &Path) -> Option<Content> {
        self.current.contains(path).then(|| self.texts.get(path)).flatten().map(|text| text.content.clone())
    }

    /// What a file holds now, for whoever read it before as `like`.
    pub fn reread(&mut self, path: &Path, like: &Content) -> io::Result<Content> {
        match like {
            Content::Text(_) => self.read(path).map(Content::Text),
            Content::Zone { name, .. } => self.read_zone(path, name),
            Content::Transferred { origin, .. } => self.read_transferred(path, origin),
        }
    }

    /// The zone that a file holds, compiled when its text has changed.
    fn read_zone(&mut self, path: &Path, name: &str) -> io::Result<Content> {
        let is_it = |content: &Content| matches!(content, Content::Zone { name: known, .. } if **known == *name);
        self.content(path, is_it, |known| {
            let bytes = spec::read_at_most(path, MAX_TEXT_BYTES)?;
            let digest = Digest::of(&bytes);
            Ok(match known {
                Some(same @ Content::Zone { text, .. }) if *text == digest && is_it(same) => same.clone(),
                _ => Content::Zone { text: digest, name: name.into(), outcome: zones::compile(&bytes, name) },
            })
        })
    }

    /// The zone that a transfer has left, compiled when it is another.
    fn read_transferred(&mut self, path: &Path, origin: &rpz::Name) -> io::Result<Content> {
        let is_it = |content: &Content| matches!(content, Content::Transferred { origin: known, .. } if known == origin);
        self.content(path, is_it, |known| {
            let kept = Kept::at(path);
            let now = kept.checksum()?;
            Ok(match known {
                Some(same @ Content::Transferred { checksum, .. }) if *checksum == now && is_it(same) => same.clone(),
                _ => Content::Transferred { checksum: now, origin: origin.clone(), outcome: kept.compile(origin) },
            })
        })
    }

    /// `fits`: whether what is known is what is asked for; `read`: reads the file, of which that was known before.
    fn content(
        &mut self,
        path: &Path,
        fits: impl Fn(&Content) -> bool,
        read: impl FnOnce(Option<&Content>) -> io::Result<Content>,
    ) -> io::Result<Content> {
        if self.current.contains(path)
            && let Some(text) = self.texts.get(path)
            && fits(&text.content)
        {
            return Ok(text.content.clone());
        }
        let content = self.look(path, fits, read)?;
        self.current.insert(path.to_owned());
        Ok(content)
    }

    fn look(
        &mut self,
        path: &Path,
        fits: impl Fn(&Content) -> bool,
        read: impl FnOnce(Option<&Content>) -> io::Result<Content>,
    ) -> io::Result<Content> {
        let real = match self.real.get(path) {
            Some(real) => real.clone(),
            None => self.watch.entry(path),
        };
        let known = self.texts.get(path).filter(|text| fits(&text.content));
        if self.watch.is_writing(&real) {
            let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "it is still being written");
            return known.map(|text| text.content.clone()).ok_or_else(busy);
        }
        let stamp = Stamp::of(&fs::metadata(path)?);
        if let Some(text) = known
            && (text.stamp, &text.real) == (stamp, &real)
            && !self.watch.is_touched(&real)
        {
            return Ok(text.content.clone());
        }
        let content = read(known.map(|text| &text.content))?;
        let before = self.texts.insert(path.to_owned(), Text { real, stamp, content: content.clone() });
        // Read twice for two uses: what was there before the first is what there was.
        self.replaced.entry(path.to_owned()).or_insert(before);
        Ok(content)
    }
}

impl Others for &mut Files {
    fn text(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.read(path).map(|text| text.to_vec())
    }

    fn zone(&mut self, path: &Path, name: &str) -> io::Result<Outcome> {
        match self.read_zone(path, name)? {
            Content::Zone { outcome, .. } => Ok(outcome),
            Content::Text(_) | Content::Transferred { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn transferred(&mut self, name: &str, origin: &rpz::Name) -> Option<(PathBuf, Option<Outcome>)> {
        let kept = Kept::new(&self.dir.join(STATE_DIR), name);
        let outcome = match self.read_transferred(kept.path(), origin) {
            Ok(Content::Transferred { outcome, .. }) => outcome,
            _ => None,
        };
        Some((kept.path().to_owned(), outcome))
    }
}

#[cfg(test)]
mod tests;
