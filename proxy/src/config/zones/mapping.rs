//! A zone's file as memory. The one place where a file is mapped.
#![allow(unsafe_code, reason = "memory that a file backs is only as constant as the file: see `map`")]

use std::{fs::File, io};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

/// Maps a whole zone, for reading: its pages are the page cache's and no memory of ours, come when they are asked for and may be taken away.
///
/// `file` must never be written to or made shorter again: a change would show in what was checked when it was opened, and a page beyond the
/// end is SIGBUS. Two kinds of file are given: one that has no name, which nobody else can open; and one of ours by name that has mode 0400
/// in a directory of mode 0700 that this process has locked, and that is only ever replaced (rename) or removed (unlink), which leaves the
/// mapped file as it is. Whoever writes to that all the same is our own user, having changed its mode, or root: both can write to our
/// memory without this detour. A sealed memfd would rule out even these, but is memory that no one can take back, and dies with the process.
pub(super) fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: as said above, the file does not change for as long as it is mapped.
    let mapping: Mmap = unsafe { MmapOptions::new().map(file)? };
    Ok(Bytes::from_owner(mapping))
}
