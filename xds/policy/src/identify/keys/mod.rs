//! The keys of an issuer (RFC 7517): unusable ones are set aside one by one, never the set.

mod jwk;
mod rsa;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::token::{Jws, malformed};
use crate::{Deny, Reason};
use jwk::Key;

pub use super::algorithm::{Algorithm, AlgorithmError};

/// Longest key set looked at, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 1024 * 1024;

/// Most keys of one set, usable or not.
pub const MAX_KEYS: usize = 256;

/// Most keys that one token is tried against, which bounds what a forged one costs.
pub const MAX_CANDIDATES: usize = 4;

/// The usable keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why one key of a set is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// Position in `keys`.
    pub index: usize,
    pub reason: String,
}

/// A JWK set (RFC 7517 §5). Members besides `keys` are ignored, as the RFC says.
#[derive(Deserialize)]
struct Document<'a> {
    /// Each as it is written, so that one that is broken spoils no other.
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Reads a JWK set and keeps the keys that can verify one of `algorithms`. An error is one of the whole document
    /// (too large, not JSON, no `keys` array, no usable key at all).
    pub fn parse(jwks: &[u8], algorithms: &[Algorithm]) -> Result<(Self, Vec<KeyFault>), String> {
        if jwks.len() > MAX_KEY_SET_BYTES {
            return Err("a key set must not be longer than 1 MiB".into());
        }
        let jwks = std::str::from_utf8(jwks).map_err(|error| format!("must be a JWK set: {error}"))?;
        if !jwks.trim_start().starts_with('{') {
            return Err("must be a JWK set: a JSON object with an array `keys`".into());
        }
        let document: Document<'_> = serde_json::from_str(jwks).map_err(|error| format!("must be a JWK set: {error}"))?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!("keys: must not be more than {MAX_KEYS}"));
        }

        let mut set = Self::default();
        let mut faults = Vec::new();
        for (index, raw) in document.keys.iter().enumerate() {
            match Key::parse(raw.get(), algorithms).and_then(|key| set.add(key)) {
                Ok(()) => {}
                Err(reason) => faults.push(KeyFault { index, reason }),
            }
        }
        if set.keys.is_empty() {
            return Err(match faults.first() {
                Some(first) => format!("keys: none of the {} is usable; the first: {}", faults.len(), first.reason),
                None => "keys: must not be empty".into(),
            });
        }
        Ok((set, faults))
    }

    /// Count of usable keys; one at least, unless the set is the default one.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys may share a `kid` (RFC 7517 §4.5 wants them distinct but does not insist), up to what one token is tried against.
    fn add(&mut self, key: Key) -> Result<(), String> {
        let namesakes = self.keys.iter().filter(|other| key.kid.is_some() && other.kid == key.kid).count();
        if namesakes >= MAX_CANDIDATES {
            return Err(format!("kid: stands on {MAX_CANDIDATES} keys already"));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Whether the signature of `jws` is that of one of these keys, used with the algorithm that it is pinned to.
    pub(super) fn verify(&self, jws: &Jws<'_>) -> Result<(), Deny> {
        let named = |key: &&Key| jws.kid.is_none() || key.kid == jws.kid;
        let pinned = |key: &&Key| key.algorithms.contains(&jws.algorithm);
        if !self.keys.iter().any(|key| named(&key)) {
            return Err(Deny::new(Reason::TokenKey, "kid: is that of no usable key of the issuer"));
        }
        let candidates = || self.keys.iter().filter(named).filter(pinned);
        match candidates().count() {
            0 => return Err(Deny::new(Reason::TokenAlgorithm, "alg: is not that of the issuer's key")),
            1..=MAX_CANDIDATES => {}
            _ => return Err(Deny::new(Reason::TokenKey, "kid: is required, too many keys could be meant")),
        }
        for key in candidates() {
            match jsonwebtoken::crypto::verify(jws.signature, jws.signing_input.as_bytes(), &key.verifying, jws.algorithm.jsonwebtoken()) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // The key was checked when the set was read: what fails here is the decoding of the signature.
                Err(_) => return Err(malformed("signature: must be base64url without padding")),
            }
        }
        Err(Deny::new(Reason::TokenSignature, "the signature is not that of the issuer's key"))
    }
}

#[cfg(test)]
mod tests;
