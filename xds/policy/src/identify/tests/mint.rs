//! Tokens and key sets made on the spot: the tests hold no key of anybody's.

use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    Reason,
    identify::{
        IssuerPolicy, VerifiedClaims,
        keys::{Algorithm, KeySet},
        verify,
    },
};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const SKEW: u64 = 30;
pub(crate) const ISS: &str = "https://idp.test/";

pub(crate) static EC: LazyLock<Signer> = LazyLock::new(|| Signer::ec("ec"));
pub(crate) static ED: LazyLock<Signer> = LazyLock::new(|| Signer { kid: "ed", pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()) });
pub(crate) static RSA: LazyLock<Signer> =
    LazyLock::new(|| Signer { kid: "rsa", pair: Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())) });
/// A key that is in no set.
pub(crate) static STRANGER: LazyLock<Signer> = LazyLock::new(|| Signer::ec("ec"));

pub(crate) struct Signer {
    pub(crate) kid: &'static str,
    pair: Pair,
}

enum Pair {
    Ec { fixed: EcdsaKeyPair, der: EcdsaKeyPair },
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    pub(crate) fn ec(kid: &'static str) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let read = |form| EcdsaKeyPair::from_pkcs8(form, pkcs8.as_ref()).unwrap();
        Self { kid, pair: Pair::Ec { fixed: read(&ECDSA_P256_SHA256_FIXED_SIGNING), der: read(&ECDSA_P256_SHA256_ASN1_SIGNING) } }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match &self.pair {
            Pair::Ec { .. } => Algorithm::Es256,
            Pair::Ed(_) => Algorithm::EdDsa,
            Pair::Rsa(_) => Algorithm::Rs256,
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ec { fixed, .. } => {
                let (x, y) = fixed.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}),
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({"kty": "RSA", "n": b64(n.big_endian_without_leading_zero()), "e": b64(e.big_endian_without_leading_zero())})
            }
        };
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm().as_str().into();
        jwk
    }

    pub(crate) fn header(&self) -> String {
        json!({"alg": self.algorithm().as_str(), "typ": "JWT", "kid": self.kid}).to_string()
    }

    pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", b64(header), b64(payload));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ec { fixed, .. } => fixed.sign(&random, input.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(input.as_bytes()).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{input}.{}", b64(signature))
    }

    /// An ECDSA signature in the ASN.1 form of other protocols.
    pub(crate) fn sign_der(&self, header: &str, payload: &str) -> String {
        let Pair::Ec { der, .. } = &self.pair else { panic!("not an EC key") };
        let input = format!("{}.{}", b64(header), b64(payload));
        let signature = der.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", b64(signature))
    }

    pub(crate) fn token(&self, payload: &str) -> String {
        self.sign(&self.header(), payload)
    }
}

pub(crate) fn b64(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// Good claims, one of them replaced by (or, if new, added as) what `raw` says; `None` leaves it out.
pub(crate) fn claims_with(name: &str, raw: Option<&str>) -> String {
    let base = [
        ("iss", format!("{ISS:?}")),
        ("aud", r#""api""#.to_string()),
        ("sub", r#""someone""#.to_string()),
        ("org", r#""acme""#.to_string()),
        ("iat", (NOW - 10).to_string()),
        ("exp", (NOW + 300).to_string()),
    ];
    let mut members: Vec<_> = base.iter().filter(|(known, _)| *known != name).map(|(name, raw)| format!("{name:?}:{raw}")).collect();
    members.extend(raw.map(|raw| format!("{name:?}:{raw}")));
    format!("{{{}}}", members.join(","))
}

pub(crate) fn good_claims() -> String {
    claims_with("jti", Some(r#""1""#))
}

pub(crate) fn key_set(signers: &[&Signer]) -> KeySet {
    let jwks = json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string();
    let (set, faults) = KeySet::parse(jwks.as_bytes(), &Algorithm::ALL).unwrap();
    assert_eq!(faults, []);
    set
}

pub(crate) fn issuer(keys: KeySet) -> IssuerPolicy {
    IssuerPolicy {
        name: "corp".parse().unwrap(),
        issuer: ISS.into(),
        audiences: vec!["api".into(), "api2".into()],
        keys,
        tenant_claim: vec!["org".into()],
        clock_skew: SKEW,
    }
}

pub(crate) fn verdict(token: &str, issuers: &[IssuerPolicy], now: u64) -> Result<VerifiedClaims, Reason> {
    verify(token, issuers, now).map_err(|deny| deny.reason)
}
