//! The other files that objects are made of.

use std::{
    io,
    path::{Path, PathBuf},
};

use ringfence_xds::policy::rpz;

use super::directory::{read_at_most, read_bounded};
use crate::{
    feed::transfer::Kept,
    zones::{self, MAX_TEXT_BYTES, Outcome},
};

pub trait Others {
    fn text(&mut self, path: &Path) -> io::Result<Vec<u8>>;

    /// The policy zone that the file holds, whose own name is `name`. An error is one of reading it.
    fn zone(&mut self, path: &Path, name: &str) -> io::Result<Outcome> {
        self.text(path).map(|text| zones::compile(&text, name))
    }

    /// What was last transferred of the zone `origin` for the PolicyZone `name`, and the file that it is to be found in. `None`: nothing
    /// that is transferred counts.
    fn transferred(&mut self, _name: &str, _origin: &rpz::Name) -> Option<(PathBuf, Option<Outcome>)> {
        None
    }

    /// Whether objects stand in a cluster, where what they say of namespaces has a meaning, and not in files.
    fn are_in_a_cluster(&self) -> bool {
        false
    }
}

/// Files as they are at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk<'a> {
    /// Where a control plane keeps what it was told. `None`: only what operators write counts.
    pub state_dir: Option<&'a Path>,
}

impl Others for Disk<'_> {
    fn text(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        read_bounded(path)
    }

    fn zone(&mut self, path: &Path, name: &str) -> io::Result<Outcome> {
        read_at_most(path, MAX_TEXT_BYTES).map(|text| zones::compile(&text, name))
    }

    fn transferred(&mut self, name: &str, origin: &rpz::Name) -> Option<(PathBuf, Option<Outcome>)> {
        let kept = Kept::new(self.state_dir?, name);
        Some((kept.path().to_owned(), kept.compile(origin)))
    }
}

impl<F: FnMut(&Path) -> io::Result<Vec<u8>>> Others for F {
    fn text(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self(path)
    }
}
