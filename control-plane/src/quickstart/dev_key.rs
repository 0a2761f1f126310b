//! The development issuer's signing key: ES256 (RFC 7518 §3.4), PKCS #8 in PEM on disk, its public half as a JWK set.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Map, Value};

use crate::pem::pem;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the development key is no PKCS #8 private key in PEM")]
    Pem,
    #[error("the development key is no P-256 key")]
    NotP256,
    #[error("the system gave no key")]
    Generate,
    #[error("the key cannot be written as JSON: {0}")]
    Encode(serde_json::Error),
    #[error("cannot sign: {0}")]
    Sign(jsonwebtoken::errors::Error),
}

pub struct DevKey {
    pkcs8: Vec<u8>,
    public: Jwk,
    /// The key's thumbprint (RFC 7638): the same key has the same name wherever it is read.
    kid: String,
}

impl DevKey {
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::Generate)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        Self::from_pkcs8(pkcs8.as_ref().to_vec())
    }

    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::Pem)?;
        Self::from_pkcs8(der.secret_pkcs8_der().to_vec())
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, KeyError> {
        let mut public = Jwk::from_encoding_key(&EncodingKey::from_ec_der(&pkcs8), Algorithm::ES256).map_err(|_| KeyError::NotP256)?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::NotP256)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { pkcs8, public, kid })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// The public half, as JSON text.
    pub fn jwks(&self) -> Result<String, KeyError> {
        let set = JwkSet { keys: vec![self.public.clone()] };
        serde_json::to_string_pretty(&set).map(|text| text + "\n").map_err(KeyError::Encode)
    }

    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, KeyError> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8)).map_err(KeyError::Sign)
    }
}
