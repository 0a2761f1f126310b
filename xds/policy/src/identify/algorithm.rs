//! The signature algorithms that an issuer may be pinned to.

use std::{fmt, str::FromStr};

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

/// Why a string names no algorithm that an issuer may be pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    #[error("must be asymmetric: a key that verifies must not be able to sign, so HS256, HS384, HS512 and none are never accepted")]
    NotAsymmetric,
    #[error("must be one of ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA")]
    Unknown,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 9] = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::EdDsa,
    ];

    /// The JWA name, as it stands in `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    pub(super) const fn jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
            Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
            Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::Ps384 => jsonwebtoken::Algorithm::PS384,
            Algorithm::Ps512 => jsonwebtoken::Algorithm::PS512,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = AlgorithmError;

    /// Names are case-sensitive (RFC 7515 §4.1.1).
    fn from_str(name: &str) -> Result<Self, AlgorithmError> {
        match Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name) {
            Some(algorithm) => Ok(algorithm),
            None if matches!(name, "HS256" | "HS384" | "HS512" | "none") => Err(AlgorithmError::NotAsymmetric),
            None => Err(AlgorithmError::Unknown),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_jwa_and_asymmetric() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        let cases = [
            ("HS256", AlgorithmError::NotAsymmetric),
            ("HS384", AlgorithmError::NotAsymmetric),
            ("HS512", AlgorithmError::NotAsymmetric),
            ("none", AlgorithmError::NotAsymmetric),
            ("None", AlgorithmError::Unknown),
            ("rs256", AlgorithmError::Unknown),
            ("RS256 ", AlgorithmError::Unknown),
            ("ES512", AlgorithmError::Unknown),
            ("ES256K", AlgorithmError::Unknown),
            ("", AlgorithmError::Unknown),
        ];
        for (name, error) in cases {
            assert_eq!(name.parse::<Algorithm>(), Err(error), "{name}");
        }
    }
}
