//! What outlives the process: the authorities with their keys, in one text. Here it is a file that is replaced whole. Only its owner may have been at it;
//! whatever else is found is refused, and never made anew.

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ringfence_xds::policy::TrustBundle;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::{kubernetes::secret::SecretError, pem::pem};

use super::{
    authority::Authority,
    rotation::{Anchor, Phase, Rotation},
};

/// The authorities, and their keys.
pub(super) const FILE: &str = "authorities.json";
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
    #[error(transparent)]
    Secret(#[from] SecretError),
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
        decode(&text).map(Some).map_err(bad)
    }

    /// In the place of what was there, whole or not at all.
    pub(super) fn save(&self, rotation: &Rotation) -> Result<(), StateError> {
        let path = self.0.join(FILE);
        let json = encode(rotation).map_err(|error| StateError::Io { path: path.clone(), error: error.into() })?;
        self.replace(&path, &json, true)?;
        // After a crash it is written anew from the other.
        self.replace(&self.bundle(), bundle_pem(&rotation.bundle()).as_bytes(), false)
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

pub(super) fn encode(rotation: &Rotation) -> serde_json::Result<Vec<u8>> {
    let authority = |anchor: &Anchor| WrittenAuthority {
        certificate: pem("CERTIFICATE", &anchor.certificate),
        key: anchor.authority.as_ref().map(|authority| authority.key_pem()),
        phase: anchor.phase,
    };
    serde_json::to_vec_pretty(&Written {
        trust_domain: rotation.trust_domain.to_string(),
        sequence: rotation.sequence,
        longest_ttl: rotation.longest_ttl.as_secs(),
        authorities: rotation.anchors.iter().map(authority).collect(),
    })
}

/// The error says what is wrong with the text.
pub(super) fn decode(text: &[u8]) -> Result<Rotation, String> {
    let written: Written = serde_json::from_slice(text).map_err(|error| format!("is damaged: {error}"))?;
    let trust_domain = written.trust_domain.parse().map_err(|error| format!("trustDomain: {error}"))?;
    let anchor = |(i, authority): (usize, WrittenAuthority)| {
        let bad = |error: &dyn std::fmt::Display| format!("authorities[{i}]: {error}");
        let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).map_err(|error| bad(&error))?;
        let read = |key: String| Authority::read(&certificate, &key, Vec::new());
        let held = authority.key.map(read).transpose().map_err(|error| bad(&error))?;
        Ok(Anchor { certificate, authority: held.map(Arc::new), phase: authority.phase })
    };
    let anchors = written.authorities.into_iter().enumerate().map(anchor).collect::<Result<Vec<_>, String>>()?;
    if anchors.is_empty() {
        return Err("is damaged: it has no authorities".into());
    }
    let longest_ttl = Duration::from_secs(written.longest_ttl);
    Ok(Rotation { trust_domain, sequence: written.sequence, anchors, given: None, longest_ttl })
}

/// The authorities of a bundle, for whoever is given them in a file.
pub(crate) fn bundle_pem(bundle: &TrustBundle) -> String {
    bundle.authorities.iter().map(|authority| pem("CERTIFICATE", authority)).collect()
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
