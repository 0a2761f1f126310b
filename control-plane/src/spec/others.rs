//! The other files that objects are made of.

use std::{io, path::Path};

use super::directory::{read_at_most, read_bounded};
use crate::zones::{self, MAX_TEXT_BYTES, Outcome};

pub trait Others {
    fn text(&mut self, path: &Path) -> io::Result<Vec<u8>>;

    /// The policy zone that the file holds, whose own name is `name`. An error is one of reading it.
    fn zone(&mut self, path: &Path, name: &str) -> io::Result<Outcome> {
        self.text(path).map(|text| zones::compile(&text, name))
    }
}

/// Files as they are at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Others for Disk {
    fn text(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        read_bounded(path)
    }

    fn zone(&mut self, path: &Path, name: &str) -> io::Result<Outcome> {
        read_at_most(path, MAX_TEXT_BYTES).map(|text| zones::compile(&text, name))
    }
}

impl<F: FnMut(&Path) -> io::Result<Vec<u8>>> Others for F {
    fn text(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self(path)
    }
}
