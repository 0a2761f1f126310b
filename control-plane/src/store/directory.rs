//! A directory's objects as they are written at the moment.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    catalog::Written,
    files::{Content, Files},
    watch::Watch,
};
use crate::spec::{self, Fault, Parsed, Scan};

/// Readings in a row that writers may spoil before the rest of an edit waits for the next.
const MAX_READINGS: usize = 16;

#[derive(Debug)]
pub(crate) struct Directory {
    files: Files,
    parsed: HashMap<PathBuf, Reading>,
}

/// A file's objects, and the texts that they were made of.
#[derive(Debug)]
struct Reading {
    contents: Vec<(PathBuf, Option<Content>)>,
    parsed: Parsed,
}

impl Directory {
    /// `dir`: absolute; a link is followed wherever it leads at the time.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { files: Files::new(dir, Watch::new()?), parsed: HashMap::new() })
    }

    /// Returns when something was edited, and its writers are done. May be dropped at any time.
    pub(crate) async fn edited(&mut self) -> io::Result<()> {
        self.files.settled().await
    }

    /// Reads what changed since the last time. An error is one of the directory itself.
    pub(crate) fn read(&mut self) -> io::Result<Written> {
        let scan = self.read_all()?;
        let mut written = Written { faults: scan.faults().collect(), ..Written::default() };
        for path in scan.files.keys() {
            let Some(Reading { parsed, .. }) = self.parsed.get(path) else { continue };
            written.add(parsed);
        }
        let unwatched = |(dir, why): (&PathBuf, &String)| Fault::of_file(&dir.as_path().into(), why.clone());
        written.unwatched = self.files.unwatched().iter().map(unwatched).collect();
        Ok(written)
    }

    #[cfg(test)]
    pub(super) fn objects(&self) -> Vec<Arc<spec::Object>> {
        self.parsed.values().flat_map(|reading| reading.parsed.objects.iter().cloned()).collect()
    }

    /// Brings `parsed` up to date with the files.
    fn read_all(&mut self) -> io::Result<Scan> {
        for _ in 0..MAX_READINGS {
            self.files.begin();
            let scan = self.files.list()?;
            let mut readings: HashMap<PathBuf, Reading> = HashMap::with_capacity(scan.files.len());
            for path in scan.files.keys() {
                let reading = match self.parsed.remove(path) {
                    Some(reading) if self.is_current(&reading) => reading,
                    _ => self.read_file(path),
                };
                readings.insert(path.clone(), reading);
            }
            self.parsed = readings;
            if self.files.end() {
                return Ok(scan);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the directory is written to all the time"))
    }

    fn is_current(&mut self, reading: &Reading) -> bool {
        reading.contents.iter().all(|(path, old)| match old {
            Some(old) => self.files.reread(path, old).is_ok_and(|new| new.is_same(old)),
            // It could not be read; whether it can be by now is found out by doing so.
            None => false,
        })
    }

    fn read_file(&mut self, path: &Path) -> Reading {
        let file: Arc<Path> = path.into();
        let text = match self.files.read(path) {
            Ok(text) => text,
            Err(error) => {
                let fault = spec::unreadable(&file, &error);
                return Reading { contents: vec![(path.into(), None)], parsed: Parsed { faults: vec![fault], ..Parsed::default() } };
            }
        };
        let parsed = spec::parse(&file, &text, &mut self.files);
        let mut contents = vec![(path.to_owned(), Some(Content::Text(text)))];
        contents.extend(parsed.needs.iter().map(|path| (path.clone(), self.files.known(path))));
        Reading { contents, parsed }
    }
}
