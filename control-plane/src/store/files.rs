//! The texts of a directory's files as they were when their writers last closed them: a half-written file is never seen.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Largest file read, in bytes.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Directories below the one that is served; deeper ones are most likely a loop of links.
const MAX_DEPTH: usize = 32;

/// What happened to a path, as the watcher saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody opened it for writing and has not closed it yet.
    Writing(PathBuf),
    /// It was closed after writing, renamed here, or is gone.
    Settled(PathBuf),
    /// Anything may have changed.
    Everything,
}

#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    texts: HashMap<PathBuf, Arc<[u8]>>,
    writing: HashSet<PathBuf>,
}

impl Files {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), texts: HashMap::new(), writing: HashSet::new() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn note(&mut self, change: Change) {
        match change {
            Change::Writing(path) => {
                self.writing.insert(path);
            }
            Change::Settled(path) => {
                self.writing.remove(&path);
                // A directory that came or went takes its files along.
                self.texts.retain(|known, _| !known.starts_with(&path));
            }
            Change::Everything => {
                self.writing.clear();
                self.texts.clear();
            }
        }
    }

    /// The `*.yaml` and `*.yml` files below the directory, in order. Hidden files and directories are not looked at.
    pub fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = BTreeSet::new();
        let mut ahead = vec![(self.dir.clone(), 0)];
        while let Some((dir, depth)) = ahead.pop() {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                // Removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => continue,
                Err(error) => return Err(with_path(error, &dir)),
            };
            for entry in entries {
                let path = entry.map_err(|error| with_path(error, &dir))?.path();
                if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                    continue;
                }
                let extension = path.extension().and_then(|extension| extension.to_str());
                if path.is_dir() {
                    if depth < MAX_DEPTH {
                        ahead.push((path, depth + 1));
                    }
                } else if matches!(extension, Some("yaml" | "yml")) && (!self.writing.contains(&path) || self.texts.contains_key(&path)) {
                    // A new file that is still being written is not there yet.
                    found.insert(path);
                }
            }
        }
        // An editor may take the old file away before it writes the new one: until that is closed, the old text counts.
        let replaced = self.writing.iter().filter(|path| self.texts.contains_key(*path));
        found.extend(replaced.filter(|path| matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml"))).cloned());
        Ok(found.into_iter().collect())
    }

    /// The text of a file: from memory while nothing has happened to it, and while it is being written.
    pub fn read(&mut self, path: &Path) -> io::Result<Arc<[u8]>> {
        if let Some(text) = self.texts.get(path) {
            return Ok(text.clone());
        }
        let size = fs::metadata(path)?.len();
        if size > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {MAX_FILE_BYTES} bytes")));
        }
        let text: Arc<[u8]> = fs::read(path)?.into();
        self.texts.insert(path.to_owned(), text.clone());
        Ok(text)
    }
}

fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &Files) -> Vec<String> {
        files.list().unwrap().iter().map(|path| path.strip_prefix(&files.dir).unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_directory_is_read_recursively_and_hidden_things_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b.yaml", "a/c.yml", "a/note.txt", ".hidden.yaml", ".git/d.yaml"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        assert_eq!(names(&Files::new(dir.path())), ["a/c.yml", "b.yaml"]);
        assert!(Files::new(&dir.path().join("missing")).list().unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_file_that_is_being_written_keeps_its_old_text_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old.yaml"), dir.path().join("new.yaml"));
        fs::write(&old, "before").unwrap();
        let mut files = Files::new(dir.path());
        assert_eq!(&*files.read(&old).unwrap(), b"before");

        fs::write(&old, "aft").unwrap();
        fs::write(&new, "ha").unwrap();
        files.note(Change::Writing(old.clone()));
        files.note(Change::Writing(new.clone()));
        assert_eq!(names(&files), ["old.yaml"], "a new file is not there before it is whole");
        assert_eq!(&*files.read(&old).unwrap(), b"before");
        fs::remove_file(&old).unwrap();
        assert_eq!(names(&files), ["old.yaml"], "nor is an old one gone while it is replaced");

        fs::write(&old, "after").unwrap();
        files.note(Change::Settled(old.clone()));
        files.note(Change::Settled(new.clone()));
        assert_eq!(names(&files), ["new.yaml", "old.yaml"]);
        assert_eq!(&*files.read(&old).unwrap(), b"after");
        fs::remove_file(&old).unwrap();
        files.note(Change::Settled(old));
        assert_eq!(names(&files), ["new.yaml"]);
    }
}
