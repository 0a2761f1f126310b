//! The SVID on disk with its key: a sidecar that restarts is who it was, though its join token is used up.
//!
//! One PEM file, readable by its owner alone: the key, then the chain. It needs no checksum: it is verified like one that has just been
//! issued, and any flipped bit is in something that a signature or the key's own consistency covers.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use pem::Pem;
use ringfence_policy::TrustBundle;
use ringfence_xds::trust::Svid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    Me,
    svid::{self, SvidError},
};
use crate::private_file::{self, PrivateFileError};

/// A chain and an RSA key of 8192 bits are well below.
const MAX_BYTES: u64 = 256 * 1024;

/// Why there is none to go on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: PrivateFileError },
    #[error("{}: not used: it is not a private key and its certificates in PEM", path.display())]
    Damaged { path: PathBuf },
    #[error("{}: not used: {error}", path.display())]
    Unusable { path: PathBuf, error: SvidError },
}

#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
}

impl Kept {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("svid.pem") }
    }

    /// `Ok(None)`: there is none yet.
    pub(super) fn load(&self, bundle: &TrustBundle, me: &Me, now: Duration) -> Result<Option<Svid>, KeptError> {
        let file = private_file::read(&self.path, MAX_BYTES).map_err(|error| KeptError::File { path: self.path.clone(), error })?;
        let Some(pem) = file.map(Zeroizing::new) else { return Ok(None) };
        let damaged = || KeptError::Damaged { path: self.path.clone() };
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| damaged())?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| damaged())?;
        let verified = svid::verified(chain, &key, bundle, me, now);
        verified.map(Some).map_err(|error| KeptError::Unusable { path: self.path.clone(), error })
    }

    /// Replaces it.
    pub(super) fn store(&self, chain: &[CertificateDer<'_>], key: &PrivatePkcs8KeyDer<'_>) -> io::Result<()> {
        let key = Zeroizing::new(pem::encode(&Pem::new("PRIVATE KEY", key.secret_pkcs8_der())));
        let chain: Vec<Pem> = chain.iter().map(|certificate| Pem::new("CERTIFICATE", certificate.to_vec())).collect();
        let pem = Zeroizing::new([key.as_str(), &pem::encode_many(&chain)].concat());
        private_file::replace(&self.path, pem.as_bytes())
    }
}

#[cfg(test)]
mod tests;
