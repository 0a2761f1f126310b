//! One file that others replace.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::watch::Watch;

#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    watch: Watch,
}

impl WatchedFile {
    /// What happens to the file from now on is told by `edited`.
    pub fn new(path: &Path) -> io::Result<Self> {
        let mut watched = Self { path: std::path::absolute(path)?, watch: Watch::new()? };
        watched.look();
        match watched.watch.failures.first_key_value() {
            Some((dir, why)) => Err(io::Error::other(format!("{} {why}", dir.display()))),
            None => Ok(watched),
        }
    }

    /// Returns when the file was replaced or written to, and its writer is done. May be dropped at any time.
    pub async fn edited(&mut self) -> io::Result<()> {
        self.watch.settled().await?;
        self.look();
        Ok(())
    }

    /// Links on the way to the file may lead elsewhere by now.
    fn look(&mut self) {
        self.watch.begin();
        self.watch.entry(&self.path);
        self.watch.end();
    }
}
