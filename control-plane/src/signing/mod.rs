//! The configuration key: what is published goes under its seal, so that sidecars need not believe whoever brings it.
//!
//! 1. `key`: the private key, from a file;
//! 2. `epoch`: when something is signed, as a number that only grows;
//! 3. `shared`: both of replicas, in a Secret of Kubernetes;
//! 4. `set`: everything that is published as one signed file, for control planes that serve it without the key.

mod epoch;
mod key;
pub mod set;
pub mod shared;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use ringfence_xds::{
    generated::resource as proto,
    resource::{Kind, PLATFORM, Resource},
    seal::{KeyError, SigningKey},
};

use crate::{compile::Delta, kubernetes::secret::SecretError};
use epoch::Epochs;

pub use key::{PUBLIC_KEY, config_keys, public_keys, publish};

/// Where a control plane with the state directory `state` leaves its public key.
pub(crate) fn public_key(state: &Path) -> PathBuf {
    state.join(DIR).join(PUBLIC_KEY)
}

/// The epoch at which something was signed last with the state directory `state`; 0: not known.
pub(crate) fn last_epoch(state: &Path) -> u64 {
    Epochs::open(Some(&state.join(DIR))).last()
}

/// Below the state directory.
pub const DIR: &str = "trust";

/// Why there is no key, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Key { path: PathBuf, error: KeyError },
    #[error("{}: others may read or write it: chmod o-rwx", path.display())]
    Exposed { path: PathBuf },
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Whoever holds the key.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    epochs: Epochs,
}

impl Signer {
    /// By the key in `file`, else by the one in the state directory, which is made where there is none. The public key is left beside the
    /// epoch in the state directory. `None`: there is no place for a key.
    pub fn open(state: Option<&Path>, file: Option<&Path>) -> Result<Option<Self>, SigningError> {
        let dir = state.map(|state| state.join(DIR));
        let key = match (file, &dir) {
            (Some(file), _) => key::read(file)?,
            (None, Some(dir)) => key::read_or_make(dir)?,
            (None, None) => return Ok(None),
        };
        if let Some(state) = state {
            publish(state, &key.public_pem())?;
        }
        Ok(Some(Self { key, epochs: Epochs::open(dir.as_deref()) }))
    }

    /// For what is kept nowhere: epochs go by the clock.
    pub fn new(key: SigningKey) -> Self {
        Self { key, epochs: Epochs::open(None) }
    }

    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// What there is before anything is published.
    pub(crate) fn begin(&mut self) -> Result<Delta, KeyError> {
        self.seal(Delta { upserts: vec![no_platform()], removed: Vec::new() })
    }

    /// Seals what is published, at one epoch. A removal nobody can sign; a Platform, without which more would be allowed than with it, gives
    /// way to one that says nothing.
    pub fn seal(&mut self, delta: Delta) -> Result<Delta, KeyError> {
        self.seal_at(delta, epoch::now())
    }

    /// `now`: in milliseconds since 1970.
    pub(crate) fn seal_at(&mut self, delta: Delta, now: u64) -> Result<Delta, KeyError> {
        let Delta { mut upserts, mut removed } = delta;
        let before = removed.len();
        removed.retain(|(kind, _)| *kind != Kind::Platform);
        if removed.len() != before {
            upserts.push(no_platform());
        }
        let epoch = self.epochs.at(now);
        let upserts = upserts.into_iter().map(|resource| self.key.seal(resource, epoch)).collect::<Result<_, _>>()?;
        Ok(Delta { upserts, removed })
    }

    /// The epoch of the latest publication.
    pub fn epoch(&self) -> u64 {
        self.epochs.last()
    }
}

pub(crate) fn no_platform() -> Resource {
    Resource::new(PLATFORM, &proto::Platform::default())
}
