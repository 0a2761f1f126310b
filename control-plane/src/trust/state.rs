//! What outlives the process: the authorities with their keys, in one file that is replaced whole. Only its owner may have been at it;
//! whatever else is found is refused, and never made anew.

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::pem::pem;

use super::{
    authority::Authority,
    rotation::{Member, Phase, Rotation},
};

/// The authorities, and their keys.
const FILE: &str = "authorities.json";
/// The trust bundle in PEM, for sidecars that have none yet.
const BUNDLE: &str = "bundle.pem";
const MAX_BYTES: u64 = 1024 * 1024;

/// Why the state is not what it has to be.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {message}", path.display())]
    Bad { path: PathBuf, message: String },
}

/// The directory `trust/` of a control plane's state.
#[derive(Clone, Debug)]
pub(super) struct StateDir(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    trust_domain: String,
    sequence: u64,
    /// In seconds.
    longest_ttl: u64,
    /// The oldest first.
    authorities: Vec<WrittenAuthority>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenAuthority {
    /// PEM.
    certificate: String,
    /// PKCS#8 in PEM; none of the operator's own.
    key: Option<String>,
    phase: Phase,
}

impl StateDir {
    /// Makes it if it is missing.
    pub(super) fn open(path: PathBuf) -> Result<Self, StateError> {
        let io = |error| StateError::Io { path: path.clone(), error };
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        let metadata = fs::symlink_metadata(&path).map_err(io)?;
        if !metadata.is_dir() {
            return Err(StateError::Bad { path, message: "must be a directory".into() });
        }
        is_ours_alone(&path, &metadata)?;
        Ok(Self(path))
    }

    pub(super) fn bundle(&self) -> PathBuf {
        self.0.join(BUNDLE)
    }

    /// What was saved last; `None`: nothing was ever.
    pub(super) fn load(&self) -> Result<Option<Rotation>, StateError> {
        let path = self.0.join(FILE);
        let bad = |message: String| StateError::Bad { path: path.clone(), message };
        let Some(text) = read_private(&path)? else {
            return match fs::symlink_metadata(self.bundle()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                _ => Err(bad(format!(
                    "is missing, and {BUNDLE} beside it is not: bring it back, or remove both and let every sidecar join anew"
                ))),
            };
        };
        let written: Written = serde_json::from_slice(&text).map_err(|error| bad(format!("is damaged: {error}")))?;
        let trust_domain = written.trust_domain.parse().map_err(|error| bad(format!("trustDomain: {error}")))?;
        let member = |(i, authority): (usize, WrittenAuthority)| {
            let bad = |error: &dyn std::fmt::Display| bad(format!("authorities[{i}]: {error}"));
            let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).map_err(|error| bad(&error))?;
            let read = |key: String| Authority::read(&certificate, &key, Vec::new());
            let held = authority.key.map(read).transpose().map_err(|error| bad(&error))?;
            Ok(Member { certificate, authority: held.map(Arc::new), phase: authority.phase })
        };
        let members = written.authorities.into_iter().enumerate().map(member).collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(bad("is damaged: it has no authorities".into()));
        }
        let longest_ttl = Duration::from_secs(written.longest_ttl);
        Ok(Some(Rotation { trust_domain, sequence: written.sequence, members, given: None, longest_ttl }))
    }

    /// In the place of what was there, whole or not at all.
    pub(super) fn save(&self, rotation: &Rotation) -> Result<(), StateError> {
        let authority = |member: &Member| WrittenAuthority {
            certificate: pem("CERTIFICATE", &member.certificate),
            key: member.authority.as_ref().map(|authority| authority.key_pem()),
            phase: member.phase,
        };
        let written = Written {
            trust_domain: rotation.trust_domain.to_string(),
            sequence: rotation.sequence,
            longest_ttl: rotation.longest_ttl.as_secs(),
            authorities: rotation.members.iter().map(authority).collect(),
        };
        let path = self.0.join(FILE);
        let json = serde_json::to_vec_pretty(&written).map_err(|error| StateError::Io { path: path.clone(), error: error.into() })?;
        self.replace(&path, &json, true)?;
        let bundle: String = rotation.members.iter().map(|member| pem("CERTIFICATE", &member.certificate)).collect();
        // After a crash it is written anew from the other.
        self.replace(&self.bundle(), bundle.as_bytes(), false)
    }

    /// `durable`: it is to be there after a loss of power.
    fn replace(&self, path: &Path, content: &[u8], durable: bool) -> Result<(), StateError> {
        if fs::read(path).is_ok_and(|there| there == content) {
            return Ok(());
        }
        let replace = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?; // 0600
            file.write_all(content)?;
            if durable {
                file.as_file().sync_all()?;
            }
            file.persist(path).map_err(|error| error.error)?;
            if durable { fs::File::open(&self.0)?.sync_all() } else { Ok(()) }
        };
        replace().map_err(|error| StateError::Io { path: path.into(), error })
    }
}

/// A file of secrets; `None`: there is none.
pub(super) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let io = |error| StateError::Io { path: path.into(), error };
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(StateError::Bad { path: path.into(), message: "must be a file".into() });
    }
    is_ours_alone(path, &metadata)?;
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(io)?;
    Ok(Some(text))
}

fn is_ours_alone(path: &Path, metadata: &fs::Metadata) -> Result<(), StateError> {
    let bad = |message: &str| Err(StateError::Bad { path: path.into(), message: message.into() });
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return bad("must belong to the user that runs this");
    }
    if metadata.mode() & 0o077 != 0 {
        return bad("must be its owner's alone: chmod go-rwx");
    }
    Ok(())
}
