//! Where the configuration key is kept.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use ringfence_xds::seal::{ConfigKeys, SigningKey};

use super::SigningError;

/// PKCS#8 in PEM.
pub(super) const PRIVATE_KEY: &str = "config.key";
/// SubjectPublicKeyInfo in PEM: what sidecars are given as `configKeys`.
pub const PUBLIC_KEY: &str = "config.pub";

/// The key in a file of the operator's.
pub(super) fn read(path: &Path) -> Result<SigningKey, SigningError> {
    let at = |error| SigningError::File { path: path.into(), error };
    let pem = fs::read(path).map_err(at)?;
    if fs::metadata(path).map_err(at)?.permissions().mode() & 0o007 != 0 {
        return Err(SigningError::Exposed { path: path.into() });
    }
    SigningKey::from_pem(&pem).map_err(|error| SigningError::Key { path: path.into(), error })
}

/// The key in `dir`, made with mode 0600 where there is none.
pub(super) fn read_or_make(dir: &Path) -> Result<SigningKey, SigningError> {
    let path = dir.join(PRIVATE_KEY);
    if path.exists() {
        return read(&path);
    }
    let (key, pem) = SigningKey::generate().map_err(|error| SigningError::Key { path: path.clone(), error })?;
    keep(&path, pem.as_bytes(), true).map_err(|error| SigningError::File { path, error })?;
    Ok(key)
}

/// Leaves the public key, in PEM, in the directory [`DIR`](super::DIR) of a control plane's state.
pub fn publish(state: &Path, pem: &str) -> Result<(), SigningError> {
    let dir = &state.join(super::DIR);
    let path = dir.join(PUBLIC_KEY);
    if fs::read(&path).is_ok_and(|there| there == pem.as_bytes()) {
        return Ok(());
    }
    keep(&path, pem.as_bytes(), false).map_err(|error| SigningError::File { path, error })
}

/// Whole or not at all; `new`: never in place of another.
fn keep(path: &Path, bytes: &[u8], new: bool) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?; // 0600
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    let kept = if new { file.persist_noclobber(path) } else { file.persist(path) };
    kept.map(drop).map_err(|error| error.error)
}

/// Of a private key in a file of the operator's, what its seals are checked by.
pub fn public_keys(path: &Path) -> Result<ConfigKeys, SigningError> {
    let pem = read(path)?.public_pem();
    ConfigKeys::from_pem(pem.as_bytes()).map_err(|error| SigningError::Key { path: path.into(), error })
}

/// The public keys in a file.
pub fn config_keys(path: &Path) -> Result<ConfigKeys, SigningError> {
    let pem = fs::read(path).map_err(|error| SigningError::File { path: path.into(), error })?;
    ConfigKeys::from_pem(&pem).map_err(|error| SigningError::Key { path: path.into(), error })
}
