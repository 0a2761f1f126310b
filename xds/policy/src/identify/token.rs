//! The outside of a token: the `Authorization` field (RFC 6750 §2.1), the compact serialisation (RFC 7515 §7.1) and its header.
//! Knows no keys and reads no claims.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    MAX_TOKEN_BYTES,
    algorithm::Algorithm,
    json::{self, Text},
};
use crate::{Deny, Reason};

pub(super) fn malformed(detail: impl Into<std::borrow::Cow<'static, str>>) -> Deny {
    Deny::new(Reason::TokenMalformed, detail)
}

/// The one bearer token of a request, given the values of all its `Authorization` fields.
///
/// 1. no value, or one of another scheme: `token_missing`;
/// 2. more than one value (of whatever scheme): `token_malformed`, since two readers could pick different ones;
/// 3. not `Bearer`, one space and a `b64token`, or longer than [`MAX_TOKEN_BYTES`]: `token_malformed`.
pub fn bearer<'a>(authorization: impl IntoIterator<Item = &'a [u8]>) -> Result<&'a str, Deny> {
    b64token(credentials(authorization)?)
}

/// What stands behind `Bearer` and one space, as [`bearer`] has it, before it is known to be a `b64token`: to look up among tokens that are.
pub fn credentials<'a>(authorization: impl IntoIterator<Item = &'a [u8]>) -> Result<&'a [u8], Deny> {
    let mut values = authorization.into_iter();
    let Some(value) = values.next() else {
        return Err(Deny::new(Reason::TokenMissing, "no Authorization"));
    };
    if values.next().is_some() {
        return Err(malformed("more than one Authorization"));
    }
    let (scheme, token) = match memchr::memchr(b' ', value) {
        Some(space) => (&value[..space], &value[space + 1..]),
        None => (value, &b""[..]),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Deny::new(Reason::TokenMissing, "the scheme of Authorization must be Bearer"));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(malformed(TOO_LONG));
    }
    Ok(token)
}

/// [`credentials`] as the token that they must be.
pub fn b64token(credentials: &[u8]) -> Result<&str, Deny> {
    match std::str::from_utf8(credentials) {
        Ok(token) if is_b64token(token) => Ok(token),
        _ => Err(malformed("Bearer must be followed by one space and a token of the b64token characters")),
    }
}

const TOO_LONG: &str = "the token is longer than 8 KiB";

/// RFC 6750 §2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    // Every octet is looked at, without an early end: the compiler then compares many at a time.
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() | matches!(octet, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && body.bytes().fold(true, |sound, octet| sound & is_allowed(octet))
}

/// A JWS in compact serialisation whose header holds nothing that we would have to understand and do not. Nothing of it is verified.
#[derive(Debug)]
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<Box<str>>,
    /// Header and payload with the dot between them: what was signed.
    pub(super) signing_input: &'a str,
    /// Still base64url.
    pub(super) signature: &'a str,
    payload: &'a str,
}

/// The header parameters that matter (RFC 7515 §4.1, RFC 7516 §4.1, RFC 7797 §3). `jku`, `jwk`, `x5u` and `x5c` are not among them:
/// like any unknown parameter they are ignored, and keys come from our own sets only (RFC 8725 §3.10).
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Text<'a>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    kid: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    typ: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    cty: Option<Text<'a>>,
    #[serde(default, deserialize_with = "json::present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    b64: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    zip: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "json::present")]
    enc: Option<IgnoredAny>,
}

impl<'a> Jws<'a> {
    /// Reads the header, in this order; all but the last are `token_malformed`:
    /// 1. at most [`MAX_TOKEN_BYTES`], exactly three parts, a signature;
    /// 2. the header is strict base64url of one strict JSON object;
    /// 3. none of `crit`, `b64`, `zip`, `enc`: we support no extension, so there is nothing that they could rightly say;
    /// 4. `typ`, where present, is that of a JWT or an access token (RFC 9068 §4), not of another kind of token (RFC 8725 §3.11);
    /// 5. `cty` does not announce a token within the token;
    /// 6. `alg` is one that an issuer may be pinned to, else `token_algorithm`.
    pub(super) fn parse(token: &'a str) -> Result<Self, Deny> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(malformed(TOO_LONG));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("must be header.payload.signature"));
        };
        if signature.is_empty() {
            return Err(malformed("has no signature"));
        }
        let decoded = decode(header).ok_or_else(|| malformed("header: must be UTF-8 in base64url without padding"))?;
        let fault = |error: serde_json::Error| malformed(format!("header: {error}"));
        json::check_object(&decoded).map_err(fault)?;
        let fields: Header<'_> = serde_json::from_str(&decoded).map_err(fault)?;
        if fields.crit.is_some() || fields.b64.is_some() {
            return Err(malformed("header: extensions (crit, b64) are not supported"));
        }
        if fields.zip.is_some() || fields.enc.is_some() {
            return Err(malformed("header: zip and enc belong to encrypted tokens"));
        }
        if fields.typ.is_some_and(|typ| !is_token_type(&typ)) {
            return Err(malformed("header: typ must be JWT or at+jwt"));
        }
        if fields.cty.is_some_and(|cty| media_subtype(&cty).eq_ignore_ascii_case("jwt")) {
            return Err(malformed("header: nested tokens are not supported"));
        }
        let algorithm = fields.alg.parse().map_err(|error| Deny::new(Reason::TokenAlgorithm, format!("header: alg {error}")))?;
        Ok(Self {
            algorithm,
            kid: fields.kid.map(|kid| (*kid).into()),
            signing_input: &token[..header.len() + 1 + payload.len()],
            signature,
            payload,
        })
    }

    /// The decoded payload: unverified, text at least.
    pub(super) fn payload(&self) -> Result<String, Deny> {
        decode(self.payload).ok_or_else(|| malformed("payload: must be UTF-8 in base64url without padding"))
    }
}

/// Strict base64url: no padding, no other characters, unused bits zero (RFC 7515 §2, RFC 4648 §3.5), so that a token has one spelling.
fn decode(part: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn is_token_type(typ: &str) -> bool {
    let typ = media_subtype(typ);
    typ.eq_ignore_ascii_case("jwt") || typ.eq_ignore_ascii_case("at+jwt")
}

/// RFC 7515 §4.1.9: a media type of the header may leave out its `application/`. Case does not matter in either.
fn media_subtype(media_type: &str) -> &str {
    const APPLICATION: &str = "application/";
    match media_type.get(..APPLICATION.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(APPLICATION) => &media_type[APPLICATION.len()..],
        _ => media_type,
    }
}
