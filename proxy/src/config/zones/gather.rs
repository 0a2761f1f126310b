//! One zone on its way: chunks go to its file as they come, and what an older version has of them is copied.

use std::{collections::BTreeMap, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use ringfence_policy::rpz::Zone;
use ringfence_xds::zone::{Digest, HeldZone, Manifest};

use super::place::{Place, Unfinished};

/// Bytes and where in the file they go.
type Copy = (u64, Bytes);

#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) manifest: Arc<Manifest>,
    pub(super) progress: Progress,
}

#[derive(Debug)]
pub(super) enum Progress {
    Awaits(Awaited),
    /// All is there and is being checked.
    Checked,
    /// Nobody has claimed it yet.
    Done(Box<Zone>),
}

/// What is still to come.
#[derive(Debug)]
pub(super) struct Awaited {
    file: Unfinished,
    /// Slices of zones that are open.
    copies: Vec<Copy>,
    /// Each chunk that nothing here has: its size and where it goes.
    missing: BTreeMap<Digest, (u32, Vec<u64>)>,
}

impl Awaited {
    /// `open`: zones that may have some of the chunks.
    pub(super) fn begin<'a>(manifest: &Manifest, open: impl Iterator<Item = &'a HeldZone>, place: &Place) -> io::Result<Self> {
        let open: Vec<(&Zone, _)> = open.filter_map(|held| Some((held.zone.as_ref()?, held.manifest.offsets()))).collect();
        let (mut copies, mut missing) = (Vec::new(), BTreeMap::<Digest, (u32, Vec<u64>)>::new());
        for (offset, piece) in manifest.places() {
            let found = open.iter().find_map(|(zone, offsets)| {
                let at = usize::try_from(*offsets.get(&piece.digest)?).ok()?;
                let end = at.checked_add(piece.size as usize).filter(|end| *end <= zone.as_bytes().len())?;
                Some(zone.as_bytes().slice(at..end))
            });
            match found {
                Some(bytes) => copies.push((offset, bytes)),
                None => missing.entry(piece.digest).or_insert((piece.size, Vec::new())).1.push(offset),
            }
        }
        let file = place.create()?;
        // What does not fit is told at once and not after the last chunk.
        match rustix::fs::fallocate(file.as_file(), rustix::fs::FallocateFlags::empty(), 0, manifest.size) {
            // A file system that cannot tell so early.
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            told => told?,
        }
        Ok(Self { file, copies, missing })
    }

    pub(super) fn missing(&self) -> impl Iterator<Item = &Digest> {
        self.missing.keys()
    }

    pub(super) fn awaits(&self, digest: &Digest) -> bool {
        self.missing.contains_key(digest)
    }

    /// Writes a chunk to where it belongs, if anywhere.
    pub(super) fn take(&mut self, digest: &Digest, data: &[u8]) -> io::Result<()> {
        let Some((size, offsets)) = self.missing.remove(digest) else { return Ok(()) };
        if data.len() != size as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("chunk {digest} is not as long as the zone says")));
        }
        for offset in offsets {
            self.file.as_file().write_all_at(data, offset)?;
        }
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// Makes the zone of it, which takes a while: some hundred milliseconds for ten million rules, and what the disk takes.
    pub(super) fn finish(self, manifest: &Manifest, place: &Place) -> Result<Zone, String> {
        let write = || {
            for (offset, bytes) in &self.copies {
                self.file.as_file().write_all_at(bytes, *offset)?;
            }
            place.finish(&manifest.digest, self.file)
        };
        let bytes = write().map_err(|error: io::Error| format!("cannot be kept: {error}"))?;
        manifest.open(bytes).map_err(|error| {
            // Gone already, if this fails.
            let _ = place.remove(&manifest.digest);
            error.to_string()
        })
    }
}
