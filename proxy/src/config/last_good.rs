//! The last known good on disk: what this sidecar enforces if it restarts while the control plane is away.
//!
//! One file, readable by its owner alone, replaced atomically: a magic word with the format's version, the SHA-256 of the rest, and the
//! resources as they came. Anything unexpected in it (damage, another workload's, another user's, a future format) means no configuration.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use prost::Message;
use ringfence_xds::{
    generated::resource as proto,
    resource::{Kind, Resource},
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
    Unusable { path: PathBuf, reason: &'static str },
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

    /// `Ok(None)`: there is none yet.
    pub fn load(&self) -> Result<Option<Vec<Resource>>, LastGoodError> {
        let bytes = private_file::read(&self.path, MAX_BYTES).map_err(|error| match error {
            PrivateFileError::Io(error) => LastGoodError::Io { path: self.path.clone(), error },
            // Whoever else could have written the file could have written any policy.
            PrivateFileError::Exposed(reason) => self.unusable(reason),
        })?;
        bytes.map(|bytes| decode(&bytes, &self.workload).map_err(|reason| self.unusable(reason))).transpose()
    }

    fn unusable(&self, reason: &'static str) -> LastGoodError {
        LastGoodError::Unusable { path: self.path.clone(), reason }
    }

    /// Replaces the file; a crash leaves the old one or the new one.
    pub fn store<'a>(&self, resources: impl Iterator<Item = &'a Resource>) -> Result<(), LastGoodError> {
        let bytes = encode(&self.workload, resources);
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

fn encode<'a>(workload: &str, resources: impl Iterator<Item = &'a Resource>) -> Vec<u8> {
    let mut resources: Vec<proto::StoredResource> = resources
        .map(|resource| proto::StoredResource {
            type_url: resource.kind.type_url().into(),
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            body: resource.bytes.clone(),
        })
        .collect();
    resources.sort_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
    let body = proto::LastGood { workload: workload.into(), resources }.encode_to_vec();
    [MAGIC.as_slice(), &Sha256::digest(&body), &body].concat()
}

fn decode(bytes: &[u8], workload: &str) -> Result<Vec<Resource>, &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is not a last known good of this version")?;
    let (checksum, body) = rest.split_at_checked(CHECKSUM_BYTES).ok_or("it is cut short")?;
    if *Sha256::digest(body) != *checksum {
        return Err("its checksum is wrong");
    }
    let stored = proto::LastGood::decode(body).map_err(|_| "it cannot be decoded")?;
    if stored.workload != workload {
        return Err("it is another workload's");
    }
    stored
        .resources
        .into_iter()
        .map(|stored| {
            let kind = Kind::from_type_url(&stored.type_url).ok_or("it holds a resource of an unknown type")?;
            Ok(Resource { kind, name: stored.name.into(), version: stored.version.into(), bytes: stored.body })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use proptest::prelude::*;

    fn resources() -> Vec<Resource> {
        vec![
            Resource::new("platform", &proto::Platform { in_flight: 7, ..Default::default() }),
            Resource::new("acme-api", &proto::Workload { tenant: "acme".into(), ..Default::default() }),
        ]
    }

    fn stored(dir: &Path) -> LastGood {
        let last_good = LastGood::new(dir, "acme-api").unwrap();
        last_good.store(resources().iter()).unwrap();
        last_good
    }

    #[test]
    fn what_is_stored_is_loaded_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let last_good = LastGood::new(&state, "acme-api").unwrap();
        assert!(last_good.load().unwrap().is_none());
        assert!(LastGood::new(&state, "acme-api").unwrap_err().to_string().ends_with("another sidecar uses this directory"));
        drop(last_good);
        let last_good = stored(&state);
        assert_eq!(last_good.load().unwrap().unwrap(), resources());
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(state.join("last-good")).unwrap().mode() & 0o777, 0o600);
        last_good.store(std::iter::empty()).unwrap();
        assert!(last_good.load().unwrap().unwrap().is_empty());
    }

    #[test]
    fn a_foreign_or_exposed_file_is_no_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let reason = |last_good: &LastGood| match last_good.load().unwrap_err() {
            LastGoodError::Unusable { reason, .. } => reason,
            other => panic!("{other}"),
        };
        drop(stored(dir.path()));
        let globex = LastGood::new(dir.path(), "globex-api").unwrap();
        assert_eq!(reason(&globex), "it is another workload's");
        drop(globex);
        let last_good = LastGood::new(dir.path(), "acme-api").unwrap();
        fs::set_permissions(&last_good.path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(reason(&last_good), "others than its owner may read or write it");
        fs::remove_file(&last_good.path).unwrap();
        fs::write(dir.path().join("elsewhere"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &last_good.path).unwrap();
        assert!(matches!(last_good.load(), Err(LastGoodError::Io { .. })), "a link is not followed");
        fs::remove_file(&last_good.path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &last_good.path, rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(reason(&last_good), "it is not a regular file");
    }

    #[test]
    fn the_lock_goes_to_who_inherits_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = stored(dir.path());
        let second = LastGood::inherit(dir.path(), "acme-api", first.lock().unwrap()).unwrap();
        drop(first);
        assert!(LastGood::new(dir.path(), "acme-api").unwrap_err().is_busy());
        assert_eq!(second.load().unwrap().unwrap(), resources());
        second.sign().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(LOCK)).unwrap(), format!("{}\n", std::process::id()));
        drop(second);
        let elsewhere = tempfile::tempdir().unwrap();
        let other = LastGood::new(elsewhere.path(), "acme-api").unwrap();
        drop(LastGood::new(dir.path(), "acme-api").unwrap());
        let error = LastGood::inherit(dir.path(), "acme-api", other.lock().unwrap()).unwrap_err();
        assert!(!error.is_busy() && error.to_string().ends_with("is not this directory's"), "{error}");
    }

    proptest! {
        #[test]
        fn any_damage_is_seen(position in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
            let good = encode("acme-api", resources().iter());
            let mut flipped = good.clone();
            flipped[position.index(good.len())] ^= flip;
            prop_assert!(decode(&flipped, "acme-api").is_err());
            prop_assert!(decode(&good[..cut.index(good.len())], "acme-api").is_err());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, "acme-api");
            let _ = decode(&[MAGIC.as_slice(), &Sha256::digest(&bytes), &bytes].concat(), "acme-api");
        }
    }
}
