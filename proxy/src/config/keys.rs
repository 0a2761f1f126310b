//! The configuration keys in their file. Whoever rotates them replaces the file while sidecars run, and Kubernetes a link on the way to it:
//! it is read again whenever what it says is about to count.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use ringfence_xds::seal::{ConfigKeys, KeyError};

use crate::telemetry::notice;

/// A public key has some hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("configKeys: {}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("configKeys: {}: {error}", path.display())]
    Keys { path: PathBuf, error: KeyError },
}

#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    /// As it was read last, good or not.
    text: Vec<u8>,
    keys: Arc<ConfigKeys>,
    /// Whether it was told that the file cannot be used.
    told: bool,
}

impl KeyFile {
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let text = read(path)?;
        let keys = parse(path, &text)?;
        Ok(Self { path: path.into(), text, keys, told: false })
    }

    pub fn keys(&self) -> &Arc<ConfigKeys> {
        &self.keys
    }

    /// The keys, if they are others than before. A file that cannot be used leaves those that there were.
    pub fn read_again(&mut self) -> Option<Arc<ConfigKeys>> {
        let read = read(&self.path).and_then(|text| {
            if text == self.text {
                return Ok(None);
            }
            self.text = text;
            parse(&self.path, &self.text).map(Some)
        });
        match read {
            Ok(None) => {
                self.told = false;
                None
            }
            Ok(Some(keys)) => {
                self.told = false;
                self.keys = keys.clone();
                notice(format_args!("configKeys: {}: policy is what these keys have signed from now on", self.path.display()));
                Some(keys)
            }
            Err(error) => {
                if !self.told {
                    notice(format_args!("{error}; those that were read before go on counting"));
                }
                self.told = true;
                None
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
    read.map_err(|error| KeyFileError::File { path: path.into(), error })?;
    Ok(text)
}

fn parse(path: &Path, text: &[u8]) -> Result<Arc<ConfigKeys>, KeyFileError> {
    ConfigKeys::from_pem(text).map(Arc::new).map_err(|error| KeyFileError::Keys { path: path.into(), error })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use ringfence_xds::{
        generated::resource as proto,
        resource::{Kind, Resource},
        seal::SigningKey,
    };

    use super::*;

    fn counts(keys: &ConfigKeys, key: &SigningKey) -> bool {
        let sealed = key.seal(Resource::new("acme", &proto::Tenant::default()), 1).unwrap();
        keys.open(Kind::Tenant, "acme", sealed.bytes.clone(), &sealed.seal.unwrap().to_bytes()).is_ok()
    }

    #[test]
    fn what_kubernetes_mounts_is_replaced_by_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let [old, new] = [(); 2].map(|()| SigningKey::generate().unwrap().0);
        let both = [old.public_pem(), new.public_pem()].concat();
        for (version, text) in [("..1", &old.public_pem()), ("..2", &both), ("..3", &new.public_pem())] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config-keys.pem"), text).unwrap();
        }
        let mount = |version: &str| {
            symlink(version, at("..next")).unwrap();
            fs::rename(at("..next"), at("..data")).unwrap();
        };
        mount("..1");
        symlink("..data/config-keys.pem", at("config-keys.pem")).unwrap();
        let mut file = KeyFile::open(&at("config-keys.pem")).unwrap();
        assert!(counts(file.keys(), &old) && !counts(file.keys(), &new) && file.read_again().is_none());
        mount("..2");
        let keys = file.read_again().unwrap();
        assert!(counts(&keys, &old) && counts(&keys, &new) && file.read_again().is_none());
        mount("..3");
        let keys = file.read_again().unwrap();
        assert!(!counts(&keys, &old) && counts(&keys, &new));
    }

    #[test]
    fn what_is_no_good_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.pem");
        assert!(KeyFile::open(&path).unwrap_err().to_string().contains("keys.pem: No such file"));
        let [old, new] = [(); 2].map(|()| SigningKey::generate().unwrap().0);
        fs::write(&path, old.public_pem()).unwrap();
        let mut file = KeyFile::open(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(file.read_again().is_none() && file.read_again().is_none());
        fs::remove_file(&path).unwrap();
        assert!(file.read_again().is_none() && counts(file.keys(), &old));
        fs::write(&path, new.public_pem()).unwrap();
        assert!(counts(&file.read_again().unwrap(), &new));
    }
}
