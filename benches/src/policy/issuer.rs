//! The issuer of one run: a key for each algorithm that its tokens are signed with.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value, json};

use crate::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Es256,
    /// With a modulus of 2,048 bits.
    Rs256,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        })
    }
}

pub(crate) struct Issuer {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    random: SystemRandom,
}

/// Octets of a P-256 coordinate, and of an RSA modulus.
const COORDINATE: usize = 32;
const MODULUS: usize = 256;
/// What stands behind the modulus in the DER of an RSA public key (RFC 8017 §A.1.1): the exponent 65537, which `generate` always takes.
const EXPONENT: [u8; 5] = [2, 3, 1, 0, 1];

impl Issuer {
    pub(crate) fn generate() -> Result<Self, Error> {
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(key)?;
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).map_err(key)?;
        Ok(Self { ec, rsa, random: SystemRandom::new() })
    }

    /// Both public keys (RFC 7517).
    pub(crate) fn jwks(&self) -> Result<Value, Error> {
        let text = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        // Uncompressed: 4, x, y.
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(COORDINATE);
        let rsa = self.rsa.public_key().as_ref().strip_suffix(&EXPONENT).ok_or_else(|| key(Unspecified))?;
        let n = &rsa[rsa.len() - MODULUS..];
        Ok(json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": Algorithm::Es256.to_string(), "x": text(x), "y": text(y) },
            { "kty": "RSA", "alg": "RS256", "use": "sig", "kid": Algorithm::Rs256.to_string(), "n": text(n), "e": "AQAB" },
        ] }))
    }

    /// The public key as PEM (RFC 7468 §13), for programs that read no JWKS.
    pub(crate) fn pem(&self, algorithm: Algorithm) -> Result<String, Error> {
        let der: PublicKeyX509Der<'_> = match algorithm {
            Algorithm::Es256 => self.ec.public_key().as_der(),
            Algorithm::Rs256 => self.rsa.public_key().as_der(),
        }
        .map_err(key)?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        Ok(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
    }

    /// In compact form (RFC 7515 §7.1).
    pub(crate) fn sign(&self, algorithm: Algorithm, claims: &Map<String, Value>) -> Result<String, Error> {
        let name = algorithm.to_string();
        let header = json!({ "alg": name, "typ": "JWT", "kid": name });
        let text = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed = format!("{}.{}", text(header.to_string().as_bytes()), text(&serde_json::to_vec(claims)?));
        let signature = match algorithm {
            Algorithm::Es256 => text(self.ec.sign(&self.random, signed.as_bytes()).map_err(key)?.as_ref()),
            Algorithm::Rs256 => {
                let mut signature = [0; MODULUS];
                self.rsa.sign(&RSA_PKCS1_SHA256, &self.random, signed.as_bytes(), &mut signature).map_err(key)?;
                text(&signature)
            }
        };
        Ok(format!("{signed}.{signature}"))
    }
}

fn key(_: Unspecified) -> Error {
    Error::Unexpected("the issuer's keys: the library made no key or signature".into())
}
