//! The last known good on disk: what this sidecar enforces if it restarts while the control plane is away.
//!
//! One file, readable by its owner alone, replaced atomically: a magic word with the format's version, the SHA-256 of the rest, and the
//! resources as they came. Anything unexpected in it (damage, another workload's, another user's, a future format, a seal that is not good)
//! means no configuration. The checksum tells damage, the seals tell whose policy it is; that the whole file is not an older one, nothing can.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message;
use ringfence_xds::{
    generated::resource as proto,
    resource::{Kind, Resource},
    seal::{ConfigKeys, Floor, KeyId},
    zone,
};
use sha2::{Digest, Sha256};

use crate::private_file::{self, PrivateFileError};

/// Ends in the version of the format.
const MAGIC: &[u8; 8] = b"RFLKG\0\0\x01";
const LOCK: &str = "lock";
const CHECKSUM_BYTES: usize = 32;
/// A shared workload of ten thousand tenants takes some ten megabytes.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: not used: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub resources: Vec<Resource>,
    /// As `Client::floors` tells them.
    pub floors: Vec<(Kind, String, Floor)>,
}

impl LastGoodError {
    /// Whether another sidecar uses the directory.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::ResourceBusy)
    }
}

/// The file of one workload, this process's alone as long as it lives.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
    workload: String,
    /// Locked for as long as any process has it open; holds our process id for whoever wants to know who that is.
    lock: fs::File,
}

impl LastGood {
    /// Makes `dir` (0700) if it is missing.
    pub fn new(dir: &Path, workload: &str) -> Result<Self, LastGoodError> {
        let io = |error| LastGoodError::Io { path: dir.into(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let lock = lock(&dir.join(LOCK)).map_err(io)?;
        Ok(Self { path: dir.join("last-good"), workload: workload.into(), lock })
    }

    /// With the lock of another sidecar, which hands the directory over.
    pub fn inherit(dir: &Path, workload: &str, lock: fs::File) -> Result<Self, LastGoodError> {
        let io = |error| LastGoodError::Io { path: dir.into(), error };
        let (ours, theirs) = (fs::metadata(dir.join(LOCK)).map_err(io)?, lock.metadata().map_err(io)?);
        if (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()) {
            return Err(io(io::Error::other("the other sidecar's lock is not this directory's")));
        }
        Ok(Self { path: dir.join("last-good"), workload: workload.into(), lock })
    }

    /// Says who has the lock now.
    pub fn sign(&self) -> Result<(), LastGoodError> {
        sign(&self.lock).map_err(|error| LastGoodError::Io { path: self.path.clone(), error })
    }

    /// The lock, for another process: who has it has the directory.
    pub fn lock(&self) -> io::Result<fs::File> {
        self.lock.try_clone()
    }

    /// `Ok(None)`: there is none yet. With `keys`, each resource is under the seal of one of them.
    pub fn load(&self, keys: Option<&ConfigKeys>) -> Result<Option<Stored>, LastGoodError> {
        let bytes = private_file::read(&self.path, MAX_BYTES).map_err(|error| match error {
            PrivateFileError::Io(error) => LastGoodError::Io { path: self.path.clone(), error },
            // Whoever else could have written the file could have written any policy.
            PrivateFileError::Exposed(reason) => self.unusable(reason),
        })?;
        bytes.map(|bytes| decode(&bytes, &self.workload, keys).map_err(|reason| self.unusable(reason))).transpose()
    }

    fn unusable(&self, reason: impl Into<String>) -> LastGoodError {
        LastGoodError::Unusable { path: self.path.clone(), reason: reason.into() }
    }

    /// Replaces the file; a crash leaves the old one or the new one.
    pub fn store<'a>(
        &self,
        resources: impl Iterator<Item = &'a Resource>,
        floors: impl Iterator<Item = (Kind, &'a str, Floor)>,
    ) -> Result<(), LastGoodError> {
        let bytes = encode(&self.workload, resources, floors);
        private_file::replace(&self.path, &bytes).map_err(|error| LastGoodError::Io { path: self.path.clone(), error })
    }
}

/// Two sidecars with one state directory would each take the other's file for their own.
fn lock(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another sidecar uses this directory"));
        }
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    sign(&file)?;
    Ok(file)
}

fn sign(file: &fs::File) -> io::Result<()> {
    file.set_len(0)?;
    // Where its other users' position is matters to nobody.
    file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
}

fn encode<'a>(
    workload: &str,
    resources: impl Iterator<Item = &'a Resource>,
    floors: impl Iterator<Item = (Kind, &'a str, Floor)>,
) -> Vec<u8> {
    let mut resources: Vec<proto::StoredResource> = resources
        .map(|resource| proto::StoredResource {
            type_url: resource.kind.type_url().into(),
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            // Copied: a clone would make a shared one of the `Bytes` that is held, whose counter stays allocated.
            body: Bytes::copy_from_slice(&resource.bytes),
            seal: resource.seal.as_ref().map(|seal| seal.to_bytes()).unwrap_or_default(),
        })
        .collect();
    resources.sort_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
    let floors = floors.map(|(kind, name, floor)| proto::StoredFloor {
        type_url: kind.type_url().into(),
        name: name.into(),
        epoch: floor.epoch,
        digest: floor.digest.0.to_vec().into(),
        key: floor.key.map(|key| key.0),
    });
    let body = proto::LastGood { workload: workload.into(), resources, floors: floors.collect() }.encode_to_vec();
    [MAGIC.as_slice(), &Sha256::digest(&body), &body].concat()
}

fn decode(bytes: &[u8], workload: &str, keys: Option<&ConfigKeys>) -> Result<Stored, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is not a last known good of this version")?;
    let (checksum, body) = rest.split_at_checked(CHECKSUM_BYTES).ok_or("it is cut short")?;
    if *Sha256::digest(body) != *checksum {
        return Err("its checksum is wrong".into());
    }
    let stored = proto::LastGood::decode(body).map_err(|_| "it cannot be decoded")?;
    if stored.workload != workload {
        return Err("it is another workload's".into());
    }
    let floor = |stored: proto::StoredFloor| {
        let digest = stored.digest.as_ref().try_into().map_err(|_| "it cannot be decoded")?;
        let floor = Floor { epoch: stored.epoch, digest: zone::Digest(digest), key: stored.key.map(KeyId) };
        Ok((kind(&stored.type_url)?, stored.name, floor))
    };
    Ok(Stored {
        resources: stored.resources.into_iter().map(|stored| resource(stored, keys)).collect::<Result<_, _>>()?,
        floors: stored.floors.into_iter().map(floor).collect::<Result<_, String>>()?,
    })
}

fn kind(type_url: &str) -> Result<Kind, &'static str> {
    Kind::from_type_url(type_url).ok_or("it holds a resource of an unknown type")
}

fn resource(stored: proto::StoredResource, keys: Option<&ConfigKeys>) -> Result<Resource, String> {
    let proto::StoredResource { type_url, name, version, body, seal } = stored;
    let kind = kind(&type_url)?;
    match keys {
        Some(keys) => keys.open(kind, &name, body, &seal).map_err(|error| format!("{kind}/{name} {error}")),
        None => Ok(Resource { kind, name: name.into(), version: version.into(), bytes: body, seal: None }),
    }
}

#[cfg(test)]
mod tests;
