//! The last transferred zone on disk: its records in wire form, one after the other, and a checksum. What is in force is compiled from it,
//! and changes are put into it; in memory it never stands whole.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use ringfence_policy::rpz::{Name, Record};
use ringfence_xds::zone::MAX_ZONE_BYTES;
use tempfile::NamedTempFile;

use crate::zones::{self, Outcome};

const MAGIC: &[u8; 16] = b"ringfence-zone-1";
/// Below the state directory.
const DIR: &str = "zones";
/// What the names of zones that are being written begin with: no PolicyZone's does.
const DRAFT: &str = ".draft-";

pub(crate) type Checksum = [u8; SHA256_OUTPUT_LEN];

/// Why changes cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("removes {0} records that are not there")]
    NotThere(usize),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// Why a zone cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("has {0}")]
    Unusable(String),
    #[error("cannot be kept: {0}")]
    Io(#[from] io::Error),
}

/// The file of one zone.
#[derive(Clone, Debug)]
pub struct Kept(PathBuf);

impl Kept {
    /// `name`: of the PolicyZone, a DNS label, which no path can be made of.
    pub fn new(state_dir: &Path, name: &str) -> Self {
        Self(state_dir.join(DIR).join(name))
    }

    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The SOA record of the zone that is there, if it is the one named `origin`.
    pub(super) fn soa(&self, origin: &Name) -> Option<Record> {
        let soa = Records::open(&self.0).ok()?.next()?.ok()?;
        (soa.owner == *origin).then_some(soa)
    }

    /// What tells one content from another.
    pub(crate) fn checksum(&self) -> io::Result<Checksum> {
        let mut checksum = Checksum::default();
        let mut file = File::open(&self.0)?;
        file.seek(SeekFrom::End(-(SHA256_OUTPUT_LEN as i64)))?;
        file.read_exact(&mut checksum)?;
        Ok(checksum)
    }

    /// The zone named `origin`. `None`: it is not there, or damaged; it will be transferred again.
    pub(crate) fn compile(&self, origin: &Name) -> Option<Outcome> {
        compile(&self.0, origin).ok().flatten()
    }

    /// Makes the changes to a copy, which then takes the zone's place.
    pub(super) fn apply(&self, changes: Changes) -> Result<(), ApplyError> {
        let Changes { soa, mut removed, mut added, .. } = changes;
        let mut draft = Draft::new(self, &soa)?;
        for record in Records::open(&self.0)?.skip(1) {
            let record = record?;
            let key = key(&record);
            match removed.get_mut(&key) {
                Some(found) => *found = true,
                // It would stand there twice.
                None if added.contains_key(&key) => {}
                None => draft.put(&record)?,
            }
        }
        match removed.values().filter(|found| !**found).count() {
            0 => {}
            missing => return Err(ApplyError::NotThere(missing)),
        }
        for (_, record) in added.drain() {
            draft.put(&record)?;
        }
        Ok(draft.finish()?)
    }

    /// The serial, and the owners as they would be written in the zone.
    #[cfg(test)]
    pub(super) fn shown(&self) -> Vec<String> {
        let Ok(mut records) = Records::open(&self.0) else { return Vec::new() };
        let soa = records.next().unwrap().unwrap();
        let serial = super::soa::Soa::of(&soa).unwrap().serial.0.to_string();
        let origin = format!(".{}", soa.owner);
        let owners = records.map(|record| record.unwrap().owner.to_string());
        let mut shown: Vec<String> = owners.map(|owner| owner.strip_suffix(&origin).map(str::to_owned).unwrap_or(owner)).collect();
        shown.sort();
        shown.insert(0, serial);
        shown
    }

    /// Of a zone that is no longer wanted.
    pub(super) fn forget(&self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what a control plane has left that was killed while it wrote. Call it before the first transfer begins.
pub(super) fn remove_drafts(state_dir: &Path) {
    // Where nothing was ever kept, or nothing can be written, there is nothing to remove.
    let Ok(entries) = fs::read_dir(state_dir.join(DIR)) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes())) {
        let _ = fs::remove_file(entry.path());
    }
}

fn compile(path: &Path, origin: &Name) -> io::Result<Option<Outcome>> {
    let mut records = Records::open(path)?.peekable();
    match records.peek() {
        Some(Ok(soa)) if soa.owner == *origin => zones::compile_records(origin, records).map(Some),
        _ => Ok(None),
    }
}

/// A record but for its TTL, by which no two differ (RFC 2181 §5.2).
type Key = Box<[u8]>;

fn key(record: &Record) -> Key {
    [record.owner.as_wire(), &record.rtype.to_be_bytes(), &record.rdata].concat().into()
}

/// What an incremental transfer comes to.
#[derive(Debug)]
pub(super) struct Changes {
    /// The new one.
    soa: Record,
    /// Of what was there before, and whether it was found.
    removed: HashMap<Key, bool>,
    added: HashMap<Key, Record>,
}

impl Changes {
    pub(super) fn new(soa: Record) -> Self {
        Self { soa, removed: HashMap::new(), added: HashMap::new() }
    }

    pub(super) fn remove(&mut self, record: &Record) -> Result<(), ApplyError> {
        let key = key(record);
        // Added by a change before this one; else it was there from the start, and only once.
        if self.added.remove(&key).is_none() && self.removed.insert(key, false).is_some() {
            return Err(ApplyError::NotThere(1));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, record: Record) {
        self.added.insert(key(&record), record);
    }
}

/// A zone that is being written. Dropped before its end it leaves nothing; killed, what [`remove_drafts`] removes.
pub(super) struct Draft {
    file: BufWriter<NamedTempFile>,
    digest: digest::Context,
    octets: u64,
    path: PathBuf,
    origin: Name,
}

impl Draft {
    pub(super) fn new(kept: &Kept, soa: &Record) -> io::Result<Self> {
        let path = kept.0.clone();
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // Made with mode 0600.
        let file = BufWriter::new(tempfile::Builder::new().prefix(DRAFT).tempfile_in(dir)?);
        let mut draft = Self { file, digest: digest::Context::new(&SHA256), octets: 0, path, origin: soa.owner.clone() };
        draft.write(MAGIC)?;
        draft.put(soa)?;
        Ok(draft)
    }

    /// Octets that a record takes.
    pub(super) fn octets(record: &Record) -> u64 {
        (record.owner.as_wire().len() + 2 + 4 + 2 + record.rdata.len()) as u64
    }

    /// Owner, type, TTL, length of the data, data.
    pub(super) fn put(&mut self, record: &Record) -> io::Result<()> {
        let length = u16::try_from(record.rdata.len()).map_err(io::Error::other)?;
        self.write(record.owner.as_wire())?;
        self.write(&record.rtype.to_be_bytes())?;
        self.write(&record.ttl.to_be_bytes())?;
        self.write(&length.to_be_bytes())?;
        self.write(&record.rdata)
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.digest.update(octets);
        self.octets += octets.len() as u64;
        self.file.write_all(octets)
    }

    /// The zone takes the place of the one before, whole or not at all.
    pub(super) fn finish(mut self) -> Result<(), KeepError> {
        let checksum = self.digest.finish();
        self.file.write_all(checksum.as_ref())?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        // What cannot come into force must not take the place of what is. Compiled, a zone is not twice as long.
        if self.octets > MAX_ZONE_BYTES / 2
            && let Some(Err(faults)) = compile(file.path(), &self.origin)?
        {
            return Err(KeepError::Unusable(faults.into_iter().next().map(|fault| fault.message).unwrap_or_default()));
        }
        file.persist(&self.path).map_err(io::Error::from)?;
        Ok(())
    }
}

/// The records of a file, the SOA record first. The last thing is an error where the file is damaged.
struct Records {
    file: BufReader<File>,
    /// Octets of records that are still to come.
    left: u64,
    digest: Option<digest::Context>,
}

impl Records {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut records = Self {
            file: BufReader::new(file),
            left: length.saturating_sub(SHA256_OUTPUT_LEN as u64),
            digest: Some(digest::Context::new(&SHA256)),
        };
        if records.octets::<{ MAGIC.len() }>()? != *MAGIC {
            return Err(damaged());
        }
        Ok(records)
    }

    fn octets<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut octets = [0; N];
        self.fill(&mut octets)?;
        Ok(octets)
    }

    fn fill(&mut self, octets: &mut [u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(octets.len() as u64).ok_or_else(damaged)?;
        self.file.read_exact(octets)?;
        if let Some(digest) = &mut self.digest {
            digest.update(octets);
        }
        Ok(())
    }

    fn record(&mut self) -> io::Result<Record> {
        let mut owner = [0; Name::MAX];
        let mut end = 0;
        loop {
            let [length] = self.octets()?;
            let label = owner.get_mut(end..end + 1 + usize::from(length)).ok_or_else(damaged)?;
            label[0] = length;
            self.fill(&mut label[1..])?;
            end += 1 + usize::from(length);
            if length == 0 {
                break;
            }
        }
        let (owner, _) = Name::from_wire(&owner[..end]).ok_or_else(damaged)?;
        let rtype = u16::from_be_bytes(self.octets()?);
        let ttl = u32::from_be_bytes(self.octets()?);
        let mut rdata = vec![0; u16::from_be_bytes(self.octets()?).into()];
        self.fill(&mut rdata)?;
        Ok(Record { owner, rtype, ttl, rdata })
    }

    fn check(&mut self, digest: digest::Context) -> io::Result<()> {
        let mut checksum = Checksum::default();
        self.file.read_exact(&mut checksum)?;
        if digest.finish().as_ref() == checksum { Ok(()) } else { Err(damaged()) }
    }
}

impl Iterator for Records {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left > 0 {
            let record = self.record();
            if record.is_err() {
                (self.left, self.digest) = (0, None);
            }
            return Some(record);
        }
        let digest = self.digest.take()?;
        self.check(digest).err().map(Err)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}
