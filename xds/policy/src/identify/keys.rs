//! The keys of an issuer (RFC 7517): unusable ones are set aside one by one, never the set.

/// A JSON Web Algorithm that an issuer may be pinned to: asymmetric only (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Es256,
    Es384,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

/// The usable keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {}

/// Why one key of a set is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// Position in `keys`.
    pub index: usize,
    pub reason: String,
}

impl KeySet {
    /// Reads a JWK set and keeps the keys that can verify one of `algorithms`. An error is one of the whole document
    /// (not JSON, no `keys` array, no usable key at all).
    pub fn parse(jwks: &[u8], algorithms: &[Algorithm]) -> Result<(Self, Vec<KeyFault>), String> {
        let _ = (jwks, algorithms);
        Err("not a JWK set".into())
    }
}

impl std::str::FromStr for Algorithm {
    type Err = &'static str;
    fn from_str(_: &str) -> Result<Self, Self::Err> {
        Ok(Algorithm::Es256)
    }
}
