//! Seals: the word of the configuration key that a resource is policy, whoever brings it.
//!
//! Ed25519 (RFC 8032) over what the resource is (type URL and name), when it was signed (the epoch, which only grows), and the SHA-256 of
//! its body. A key stands for one installation: two that shared one could be told each other's policy. Not sealed are removals, and chunks
//! of zones (`Kind::is_sealed`).

use std::fmt;

use aws_lc_rs::{
    error::KeyRejected,
    signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem, pem::PemObject};

use crate::{
    resource::{Kind, Resource},
    zone::Digest,
};

/// What a seal is read as: nothing else that this key may ever sign begins with it. Ends in the version of the framing.
const DOMAIN: &[u8] = b"ringfence configuration\0\x01";
const SIGNATURE_BYTES: usize = 64;
/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 §4), up to the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Configuration keys of one sidecar: the present one and the next, and room.
const MAX_KEYS: usize = 16;

/// The first 8 bytes of the SHA-256 of a public key's SubjectPublicKeyInfo in DER. It says which key to try, and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub u64);

impl KeyId {
    fn of(spki: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = Digest::of(spki).0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A resource's seal. Whether it is good, `ConfigKeys` alone can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Of two seals of one name the later has the higher epoch.
    pub epoch: u64,
    pub key: KeyId,
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Seal {
    /// On the wire and on disk: epoch and key, big-endian, and the signature.
    pub const BYTES: usize = 8 + 8 + SIGNATURE_BYTES;

    pub fn to_bytes(&self) -> Bytes {
        [&self.epoch.to_be_bytes()[..], &self.key.0.to_be_bytes(), &self.signature].concat().into()
    }

    /// What stands there. Whether it is good is another question.
    pub fn read(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.is_empty() {
            return Err(SealError::Unsigned);
        }
        let whole: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| SealError::Unreadable)?;
        let unreadable = |()| SealError::Unreadable;
        let (epoch, rest) = whole.split_first_chunk().ok_or(()).map_err(unreadable)?;
        let (key, signature) = rest.split_first_chunk().ok_or(()).map_err(unreadable)?;
        let signature = signature.try_into().map_err(|_| SealError::Unreadable)?;
        Ok(Self { epoch: u64::from_be_bytes(*epoch), key: KeyId(u64::from_be_bytes(*key)), signature })
    }
}

/// What is signed. Every part's length is fixed or stands before it.
fn statement(type_url: &str, name: &str, epoch: u64, digest: &Digest) -> Vec<u8> {
    let mut statement = Vec::with_capacity(DOMAIN.len() + type_url.len() + name.len() + 56);
    statement.extend_from_slice(DOMAIN);
    for text in [type_url, name] {
        statement.extend_from_slice(&(text.len() as u64).to_be_bytes());
        statement.extend_from_slice(text.as_bytes());
    }
    statement.extend_from_slice(&epoch.to_be_bytes());
    statement.extend_from_slice(&digest.0);
    statement
}

/// Why a resource is not taken for the signer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("is not signed")]
    Unsigned,
    #[error("has a seal that is none")]
    Unreadable,
    #[error("was signed by {0}, which is none of the configuration keys")]
    Signer(KeyId),
    #[error("is not what its signature was made for")]
    Signature,
    #[error("was signed at an earlier epoch than what is in force: {epoch}, not {in_force} or later")]
    Earlier { epoch: u64, in_force: u64 },
    #[error("was signed at the epoch of what is in force, {0}, and is another")]
    Same(u64),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("must be PEM: {0:?}")]
    Pem(pem::Error),
    #[error("must hold a PKCS#8 private key of Ed25519: {0}")]
    Private(KeyRejected),
    #[error("must hold PEM public keys of Ed25519 alone: -----BEGIN PUBLIC KEY-----")]
    Public,
    #[error("must hold 1 to {MAX_KEYS} public keys")]
    Count,
    #[error("the system has no random numbers")]
    Random,
    #[error("cannot sign")]
    Sign,
}

/// The key that makes policy of resources.
#[derive(Debug)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: KeyId,
}

impl SigningKey {
    /// A new key, and as `from_pem` reads it.
    pub fn generate() -> Result<(Self, String), KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Random)?;
        Ok((Self::of(pair), pem("PRIVATE KEY", pkcs8.as_ref())))
    }

    /// A PKCS#8 private key in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(KeyError::Pem)?;
        Ok(Self::of(Ed25519KeyPair::from_pkcs8(pkcs8.secret_pkcs8_der()).map_err(KeyError::Private)?))
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let id = KeyId::of(&spki(pair.public_key().as_ref()));
        Self { pair, id }
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// As `ConfigKeys::from_pem` reads it.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &spki(self.pair.public_key().as_ref()))
    }

    /// Signs what is no resource, as `ConfigKeys::verify` checks it.
    pub fn sign(&self, type_url: &str, name: &str, epoch: u64, digest: &Digest) -> Result<Seal, KeyError> {
        let signature = self.pair.try_sign(&statement(type_url, name, epoch, digest)).map_err(|_| KeyError::Sign)?;
        let signature = signature.as_ref().try_into().map_err(|_| KeyError::Sign)?;
        Ok(Seal { epoch, key: self.id, signature })
    }

    /// The resource under this key's seal, in place of any other; of a kind that is not sealed, as it is.
    pub fn seal(&self, resource: Resource, epoch: u64) -> Result<Resource, KeyError> {
        let Resource { kind, name, bytes, .. } = resource;
        if !kind.is_sealed() {
            return Ok(Resource { kind, name, bytes, ..resource });
        }
        let digest = Digest::of(&bytes);
        let seal = self.sign(kind.type_url(), &name, epoch, &digest)?;
        Ok(Resource::sealed(kind, name, bytes, &digest, seal))
    }
}

/// Of what fits one line of 64 characters: both forms of an Ed25519 key have 48 octets at most.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

fn spki(raw: &[u8]) -> Vec<u8> {
    [&SPKI_PREFIX, raw].concat()
}

/// The public keys whose seals count. More than one while one replaces another.
#[derive(Debug)]
pub struct ConfigKeys(Vec<(KeyId, ParsedPublicKey)>);

impl ConfigKeys {
    /// The public keys in a PEM file, as `openssl pkey -pubout` writes them. Nothing else may stand in it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let mut keys: Vec<(KeyId, ParsedPublicKey)> = Vec::new();
        for section in <(pem::SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (section, der) = section.map_err(KeyError::Pem)?;
            if section != pem::SectionKind::PublicKey {
                return Err(KeyError::Public);
            }
            keys.push(public_key(&SubjectPublicKeyInfoDer::from(der))?);
        }
        if (1..=MAX_KEYS).contains(&keys.len()) { Ok(Self(keys)) } else { Err(KeyError::Count) }
    }

    /// Whether one of these keys signed just this.
    pub fn verify(&self, type_url: &str, name: &str, digest: &Digest, seal: &Seal) -> Result<(), SealError> {
        let statement = statement(type_url, name, seal.epoch, digest);
        // Ids are short: two keys may share one.
        let mut keys = self.0.iter().filter(|(id, _)| *id == seal.key).peekable();
        if keys.peek().is_none() {
            return Err(SealError::Signer(seal.key));
        }
        let is_good = keys.any(|(_, key)| key.verify_sig(&statement, &seal.signature).is_ok());
        if is_good { Ok(()) } else { Err(SealError::Signature) }
    }

    /// Whether one of these keys may have made `seal`: where none has, another that is told later may.
    pub fn know(&self, seal: &[u8]) -> bool {
        Seal::read(seal).is_ok_and(|seal| self.hold(seal.key))
    }

    /// Whether one of these keys has this id.
    pub fn hold(&self, key: KeyId) -> bool {
        self.0.iter().any(|(id, _)| *id == key)
    }

    /// The resource that came as `bytes` under `seal`. Its version is made anew: nobody signs one.
    pub fn open(&self, kind: Kind, name: &str, bytes: Bytes, seal: &[u8]) -> Result<Resource, SealError> {
        if !kind.is_sealed() {
            return Ok(Resource::encoded(kind, name, bytes));
        }
        let seal = Seal::read(seal)?;
        let digest = Digest::of(&bytes);
        self.verify(kind.type_url(), name, &digest, &seal)?;
        Ok(Resource::sealed(kind, name, bytes, &digest, seal))
    }
}

fn public_key(spki: &SubjectPublicKeyInfoDer<'_>) -> Result<(KeyId, ParsedPublicKey), KeyError> {
    // One form alone, so that a key has one id.
    let raw = spki.as_ref().strip_prefix(&SPKI_PREFIX).filter(|raw| raw.len() == 32).ok_or(KeyError::Public)?;
    let key = ParsedPublicKey::new(&ED25519, raw).map_err(|_| KeyError::Public)?;
    Ok((KeyId::of(spki), key))
}

/// What the resource of a name may not fall below: the latest that was in force under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    pub epoch: u64,
    /// Of the body.
    pub digest: Digest,
    /// Whose word it is: with the key goes the floor. `None`: unknown, stored by a version that did not say.
    pub key: Option<KeyId>,
}

impl Floor {
    /// Of a sealed resource.
    pub fn of(resource: &Resource) -> Option<Self> {
        let seal = resource.seal.as_ref()?;
        Some(Self { epoch: seal.epoch, digest: Digest::of(&resource.bytes), key: Some(seal.key) })
    }

    /// Whether it is the word of none of `keys`.
    pub fn is_strange(&self, keys: &ConfigKeys) -> bool {
        self.key.is_some_and(|key| !keys.hold(key))
    }

    /// Whether what `next` is of may replace what this is of. The same content may come by any seal: two signers sign it at two times.
    pub fn bears(&self, next: &Floor) -> Result<(), SealError> {
        if next.digest == self.digest || next.epoch > self.epoch {
            Ok(())
        } else if next.epoch == self.epoch {
            Err(SealError::Same(self.epoch))
        } else {
            Err(SealError::Earlier { epoch: next.epoch, in_force: self.epoch })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
