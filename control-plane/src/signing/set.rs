//! Everything that is published as one file, on its way from whoever holds the key to whoever serves it without.
//!
//! A magic word with the format's version, a seal, and under that seal every resource with its own. The file's seal holds together what the
//! resources' alone do not: nothing can be left out of it, and an older file is known to be older.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use ringfence_xds::{
    generated::resource as proto,
    resource::{Kind, Resource},
    seal::{ConfigKeys, KeyError, Seal, SealError, SigningKey},
    zone::Digest,
};

/// Ends in the version of the format.
const MAGIC: &[u8; 8] = b"RFSET\0\0\x01";
/// What the file's seal is of: no resource is of this type.
const TYPE_URL: &str = "type.googleapis.com/ringfence.v1.SignedSet";
/// A hundred thousand tenants, and as much again of policy zones as a sidecar keeps.
pub const MAX_BYTES: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: not used: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("everything that is published comes to more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("there is no configuration key")]
    Unsigned,
    #[error(transparent)]
    Sign(#[from] KeyError),
}

/// A set of resources by kind and name, as its signer left it.
#[derive(Debug, Default)]
pub struct SignedSet {
    pub epoch: u64,
    resources: HashMap<(Kind, Arc<str>), Resource>,
}

impl SignedSet {
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values()
    }

    /// What is here under the kind and name of a resource.
    pub fn get(&self, resource: &Resource) -> Option<&Resource> {
        self.resources.get(&(resource.kind, resource.name.clone()))
    }

    /// The set in a file, if all of it is under the seal of one of `keys`. What stands in `before` as well is taken from there, neither
    /// verified nor kept twice.
    pub fn read(path: &Path, keys: &ConfigKeys, before: &SignedSet) -> Result<Self, SetError> {
        let at = |error| SetError::File { path: path.into(), error };
        let mut bytes = Vec::new();
        fs::File::open(path).map_err(at)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(at)?;
        decode(bytes.into(), keys, before).map_err(|reason| SetError::Unusable { path: path.into(), reason })
    }
}

/// A set on its way into a file: made of many resources, and sealed by whoever holds the key in no time.
#[derive(Debug)]
pub struct Draft {
    pub epoch: u64,
    body: Vec<u8>,
    digest: Digest,
}

impl Draft {
    pub fn of(epoch: u64, resources: &[Resource]) -> Result<Self, SetError> {
        let stored = |resource: &Resource| proto::StoredResource {
            type_url: resource.kind.type_url().into(),
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            body: resource.bytes.clone(),
            seal: resource.seal.as_ref().map(|seal| seal.to_bytes()).unwrap_or_default(),
        };
        let mut resources: Vec<proto::StoredResource> = resources.iter().map(stored).collect();
        resources.sort_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
        let set = proto::SignedSet { resources };
        if set.encoded_len() as u64 + 1024 > MAX_BYTES {
            return Err(SetError::TooLarge);
        }
        let body = set.encode_to_vec();
        Ok(Self { epoch, digest: Digest::of(&body), body })
    }

    pub fn seal(&self, key: &SigningKey) -> Result<Seal, SetError> {
        Ok(key.sign(TYPE_URL, "", self.epoch, &self.digest)?)
    }

    /// Replaces the file, which its owner alone may read; a crash leaves the old one or the new one.
    pub fn write(&self, path: &Path, seal: &Seal) -> Result<(), SetError> {
        let at = |error| SetError::File { path: path.into(), error };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(at)?;
        for part in [MAGIC.as_slice(), &seal.to_bytes(), &self.body] {
            file.write_all(part).map_err(at)?;
        }
        file.as_file().sync_all().map_err(at)?;
        file.persist(path).map_err(|error| at(error.error))?;
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(at)
    }
}

#[cfg(test)]
pub(super) fn encode(key: &SigningKey, epoch: u64, resources: &[Resource]) -> Result<Vec<u8>, SetError> {
    let draft = Draft::of(epoch, resources)?;
    Ok([MAGIC.as_slice(), &draft.seal(key)?.to_bytes(), &draft.body].concat())
}

pub(super) fn decode(bytes: Bytes, keys: &ConfigKeys, before: &SignedSet) -> Result<SignedSet, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is not a signed set of this version")?;
    let (seal, body) = rest.split_first_chunk::<{ Seal::BYTES }>().ok_or("it is cut short")?;
    let seal = Seal::read(seal).map_err(|error| format!("it {error}"))?;
    keys.verify(TYPE_URL, "", &Digest::of(body), &seal).map_err(|error| format!("it {error}"))?;
    if seal.epoch < before.epoch {
        return Err(format!("it {}", SealError::Earlier { epoch: seal.epoch, in_force: before.epoch }));
    }
    let set = proto::SignedSet::decode(body).map_err(|_| "it cannot be decoded")?;
    let mut names = HashSet::with_capacity(set.resources.len());
    let mut resources = HashMap::with_capacity(set.resources.len());
    for stored in set.resources {
        let kind = Kind::from_type_url(&stored.type_url).ok_or("it holds a resource of an unknown type")?;
        let key = (kind, Arc::from(stored.name.as_str()));
        if !names.insert(key.clone()) {
            return Err(format!("{kind}/{} stands in it twice", stored.name));
        }
        let known = before.resources.get(&key).filter(|known| {
            let seal = known.seal.as_ref().map(|seal| seal.to_bytes()).unwrap_or_default();
            known.bytes == stored.body && seal == stored.seal
        });
        let resource = match known {
            Some(known) => known.clone(),
            None => open(kind, &stored, keys).map_err(|error| format!("{kind}/{} {error}", stored.name))?,
        };
        resources.insert(key, resource);
    }
    Ok(SignedSet { epoch: seal.epoch, resources })
}

fn open(kind: Kind, stored: &proto::StoredResource, keys: &ConfigKeys) -> Result<Resource, String> {
    if kind == Kind::ZoneChunk {
        let digest = stored.name.parse().map_err(|_| "is no chunk's name")?;
        return Ok(Resource::chunk(digest, stored.body.clone()));
    }
    keys.open(kind, &stored.name, stored.body.clone(), &stored.seal).map_err(|error| error.to_string())
}
