//! One JSON Web Key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2), checked in full when the set is read: no token is ever the first to find out
//! that a key is broken.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    super::json::{self, Text},
    Algorithm, rsa,
};

/// A usable key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<Box<str>>,
    /// What the key is pinned to: one, save for an RSA key without `alg`, which takes the issuer's RSA algorithms.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) verifying: DecodingKey,
}

#[derive(Deserialize)]
struct Jwk<'a> {
    #[serde(borrow)]
    kty: Text<'a>,
    kid: Option<Text<'a>>,
    alg: Option<Text<'a>>,
    #[serde(rename = "use")]
    usage: Option<Text<'a>>,
    key_ops: Option<Vec<Text<'a>>>,
    crv: Option<Text<'a>>,
    x: Option<Text<'a>>,
    y: Option<Text<'a>>,
    n: Option<Text<'a>>,
    e: Option<Text<'a>>,
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
}

impl Key {
    /// Reads a key that can verify one of the `pinned` algorithms. An error says which member is wrong; it never shows key material.
    pub(super) fn parse(jwk: &str, pinned: &[Algorithm]) -> Result<Self, String> {
        json::check_object(jwk).map_err(|error| error.to_string())?;
        let jwk: Jwk<'_> = serde_json::from_str(jwk).map_err(|error| error.to_string())?;
        if jwk.is_private() {
            return Err("a private key stands in a public set: publish only its public half, and replace the key".into());
        }
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("use: must be sig".into());
        }
        if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| **op == *"verify")) {
            return Err("key_ops: must contain verify".into());
        }
        let (suited, verifying) = jwk.material()?;
        let algorithms = match jwk.alg.as_deref().map(str::parse) {
            Some(Err(error)) => return Err(format!("alg: {error}")),
            Some(Ok(algorithm)) if !suited.contains(&algorithm) => return Err(format!("alg: {algorithm} does not suit this kind of key")),
            Some(Ok(algorithm)) => vec![algorithm],
            None => suited.to_vec(),
        };
        let algorithms: Vec<_> = algorithms.into_iter().filter(|algorithm| pinned.contains(algorithm)).collect();
        if algorithms.is_empty() {
            return Err("alg: is none of the issuer's algorithms".into());
        }
        Ok(Self { kid: jwk.kid.map(|kid| (*kid).into()), algorithms, verifying })
    }
}

impl Jwk<'_> {
    /// `d` of every kind of key, the rest of RSA's (RFC 7518 §6.3.2).
    fn is_private(&self) -> bool {
        [self.d, self.p, self.q, self.dp, self.dq, self.qi, self.oth].iter().any(Option::is_some)
    }

    /// The public key, and the algorithms that suit its kind.
    fn material(&self) -> Result<(&'static [Algorithm], DecodingKey), String> {
        match (&*self.kty, self.crv.as_deref()) {
            ("EC", Some("P-256")) => Ok((&[Algorithm::Es256], self.point::<32>(&ECDSA_P256_SHA256_FIXED)?)),
            ("EC", Some("P-384")) => Ok((&[Algorithm::Es384], self.point::<48>(&ECDSA_P384_SHA384_FIXED)?)),
            ("EC", _) => Err("crv: must be P-256 or P-384".into()),
            ("OKP", Some("Ed25519")) => {
                let x: [u8; 32] = sized("x", &self.x)?;
                if has_small_order(x) {
                    return Err("x: must not be a point of small order, under which anybody can sign".into());
                }
                Ok((&[Algorithm::EdDsa], DecodingKey::from_ed_der(&x)))
            }
            ("OKP", _) => Err("crv: must be Ed25519".into()),
            ("RSA", _) => {
                let (n, e) = (octets("n", &self.n)?, octets("e", &self.e)?);
                let (n, e) = rsa::check(&n, &e)?;
                Ok((RSA_ALGORITHMS, DecodingKey::from_rsa_raw_components(n, e)))
            }
            ("oct", _) => Err("kty: must be EC, RSA or OKP; a symmetric key could sign too".into()),
            _ => Err("kty: must be EC, RSA or OKP".into()),
        }
    }

    /// An uncompressed point (SEC 1 §2.3.3), proven to be on the curve.
    fn point<const N: usize>(&self, curve: &'static EcdsaVerificationAlgorithm) -> Result<DecodingKey, String> {
        let (x, y): ([u8; N], [u8; N]) = (sized("x", &self.x)?, sized("y", &self.y)?);
        let point = [&[4], &x[..], &y[..]].concat();
        ParsedPublicKey::new(curve, &point).map_err(|_| "x, y: must be a point of the curve".to_string())?;
        Ok(DecodingKey::from_ec_der(&point))
    }
}

const RSA_ALGORITHMS: &[Algorithm] =
    &[Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512];

fn octets(name: &str, member: &Option<Text<'_>>) -> Result<Vec<u8>, String> {
    let text = member.as_deref().ok_or_else(|| format!("{name}: is required"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name}: must be base64url without padding"))
}

/// RFC 7518 §6.2.1.2: a coordinate has the full length of its field, leading zeros included.
fn sized<const N: usize>(name: &str, member: &Option<Text<'_>>) -> Result<[u8; N], String> {
    octets(name, member)?.try_into().map_err(|_| format!("{name}: must be {N} octets"))
}

/// Whether an Ed25519 public key is one of the eight points whose order divides the cofactor: a signature under such a key takes no
/// secret, and 32 zeros where a key was to be filled in are one of them. Compared by the y coordinate, little-endian, without the sign
/// bit: the five values that those points have, and the second spellings of two of them (p for 0, p + 1 for 1).
///
/// Other octets that are no point at all are not found out here: no signature verifies under them.
fn has_small_order(mut point: [u8; 32]) -> bool {
    const fn near_p(low: u8) -> [u8; 32] {
        let mut y = [0xff; 32];
        (y[0], y[31]) = (low, 0x7f);
        y
    }
    const fn small(low: u8) -> [u8; 32] {
        let mut y = [0; 32];
        y[0] = low;
        y
    }
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3,
            0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c,
            0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    point[31] &= 0x7f;
    // p is 2^255 - 19: its lowest octet is 0xed.
    [small(0), small(1), near_p(0xec), near_p(0xed), near_p(0xee)].contains(&point) || ORDER_8.contains(&point)
}
