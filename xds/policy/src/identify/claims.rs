//! What a token says, once its signature holds.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::Visitor};

use super::{
    IssuerPolicy,
    json::{self, Text},
    token::malformed,
};
use crate::{Deny, IssuerName, Reason};

/// What a token says, after its signature, issuer, audience and times held.
///
/// Tens of thousands of these live in a sidecar's cache, so the claims stay the compact text that was signed; one that a policy asks for
/// is looked up in it (about a microsecond per kilobyte, without allocating). Scopes, which most policies ask for, are found beforehand.
#[derive(Clone, Debug)]
pub struct VerifiedClaims {
    issuer: IssuerName,
    subject: Option<Box<str>>,
    tenant_value: Option<Box<str>>,
    expires_at: u64,
    /// With a space between any two.
    scopes: Box<str>,
    /// One JSON object in which no member stands twice.
    payload: Box<str>,
}

impl VerifiedClaims {
    pub fn issuer(&self) -> &IssuerName {
        &self.issuer
    }

    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The value of the issuer's tenant claim; `None` where it is absent or not a plain string (not a string, empty, or with control
    /// characters: such a value names nobody and must not reach a header or a log).
    pub fn tenant_value(&self) -> Option<&str> {
        self.tenant_value.as_deref()
    }

    /// `exp` plus the issuer's clock skew, Unix seconds: from here on the token is worth nothing.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Whether `scope` (RFC 6749 §3.3, space-separated) or `scp` (string or array) carries `wanted`, which has no space.
    pub fn has_scope(&self, wanted: &str) -> bool {
        !wanted.is_empty() && self.scopes.split(' ').any(|scope| scope == wanted)
    }

    /// A claim by its dotted path, as text: strings as they are, numbers and booleans as JSON; `None` for anything else. Dots always
    /// descend: a claim whose own name holds a dot cannot be named.
    pub fn claim(&self, path: &str) -> Option<Cow<'_, str>> {
        json::at(&self.payload, path.split('.')).and_then(json::scalar)
    }
}

/// The registered claims (RFC 7519 §4.1) that decide.
#[derive(Deserialize)]
struct Registered<'a> {
    #[serde(borrow, default, deserialize_with = "json::present")]
    iss: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    sub: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    aud: Option<OneOrMany<'a>>,
    #[serde(default, deserialize_with = "json::present")]
    exp: Option<NumericDate>,
    #[serde(default, deserialize_with = "json::present")]
    nbf: Option<NumericDate>,
    #[serde(default, deserialize_with = "json::present")]
    iat: Option<NumericDate>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a string or an array of strings")]
enum OneOrMany<'a> {
    #[serde(borrow)]
    One(Text<'a>),
    Many(Vec<Text<'a>>),
}

/// RFC 7519 §2: seconds since the epoch, fractions allowed. Kept rounded up and not below zero, which compares with whole seconds just
/// as the exact value does: `now < exp` and `nbf <= now` are the same for a date and for its ceiling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NumericDate(u64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumericDateVisitor)
    }
}

struct NumericDateVisitor;

impl Visitor<'_> for NumericDateVisitor {
    type Value = NumericDate;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number of seconds since 1970")
    }
    fn visit_u64<E>(self, seconds: u64) -> Result<NumericDate, E> {
        Ok(NumericDate(seconds))
    }
    fn visit_i64<E>(self, seconds: i64) -> Result<NumericDate, E> {
        Ok(NumericDate(u64::try_from(seconds).unwrap_or(0)))
    }
    fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
        if !seconds.is_finite() {
            return Err(E::custom("must be finite"));
        }
        // A float cast saturates: what is too large becomes the end of time, what is negative its beginning.
        Ok(NumericDate(seconds.ceil() as u64))
    }
}

/// The `iss` of an unverified payload: says only whose keys to try.
pub(super) fn peek_issuer(payload: &str) -> Result<Cow<'_, str>, Deny> {
    match json::member(payload, "iss") {
        Ok(Some(iss)) => json::string(iss).ok_or_else(|| malformed("iss: must be a string")),
        Ok(None) => Err(Deny::new(Reason::TokenIssuer, "iss: is required")),
        Err(error) => Err(malformed(format!("payload: {error}"))),
    }
}

/// The claims of a payload whose signature holds by a key of `issuer`, at `now` (Unix seconds), in this order:
/// 1. one strict JSON object whose registered claims have their types, else `token_malformed`;
/// 2. `iss` is the issuer's, byte for byte, else `token_issuer`;
/// 3. `aud` names one of the issuer's audiences, else `token_audience`;
/// 4. `exp` is there (else `token_malformed`) and `now` is before `exp` + skew, else `token_expired`;
/// 5. `nbf` and `iat`, where present, are not after `now` + skew, else `token_not_yet_valid`.
pub(super) fn accept(payload: &str, issuer: &IssuerPolicy, now: u64) -> Result<VerifiedClaims, Deny> {
    let fault = |error: serde_json::Error| malformed(format!("payload: {error}"));
    json::check_object(payload).map_err(fault)?;
    let claims: Registered<'_> = serde_json::from_str(payload).map_err(fault)?;

    if claims.iss.is_none_or(|iss| *iss != *issuer.issuer) {
        return Err(Deny::new(Reason::TokenIssuer, "iss: is not the issuer's"));
    }
    let wanted = |audience: &Text<'_>| issuer.audiences.iter().any(|ours| **audience == **ours);
    let meant_for_us = match &claims.aud {
        Some(OneOrMany::One(audience)) => wanted(audience),
        Some(OneOrMany::Many(audiences)) => audiences.iter().any(wanted),
        None => false,
    };
    if !meant_for_us {
        return Err(Deny::new(Reason::TokenAudience, "aud: names none of the issuer's audiences"));
    }
    let Some(NumericDate(exp)) = claims.exp else {
        return Err(malformed("exp: is required"));
    };
    let expires_at = exp.saturating_add(issuer.clock_skew);
    if now >= expires_at {
        return Err(Deny::new(Reason::TokenExpired, format!("exp: {exp} has passed at {now}")));
    }
    let latest = NumericDate(now.saturating_add(issuer.clock_skew));
    for (name, date) in [("nbf", claims.nbf), ("iat", claims.iat)] {
        if let Some(date) = date.filter(|date| *date > latest) {
            return Err(Deny::new(Reason::TokenNotYetValid, format!("{name}: {} lies in the future at {now}", date.0)));
        }
    }

    let tenant = json::at(payload, issuer.tenant_claim.iter().map(String::as_str)).and_then(json::string);
    Ok(VerifiedClaims {
        issuer: issuer.name.clone(),
        subject: claims.sub.map(|sub| (*sub).into()),
        tenant_value: tenant.filter(|value| is_plain(value)).map(Into::into),
        expires_at,
        scopes: scopes(payload),
        payload: payload.into(),
    })
}

/// An element of an array that has a space in it is no scope, and must not become two.
fn scopes(payload: &str) -> Box<str> {
    let claim = |name| json::member(payload, name).ok().flatten();
    let mut all = claim("scope").and_then(json::string).unwrap_or_default().into_owned();
    let mut add = |scopes: &str| {
        all.push(' ');
        all.push_str(scopes);
    };
    match claim("scp").map(serde_json::from_str::<OneOrMany<'_>>) {
        Some(Ok(OneOrMany::One(scopes))) => add(&scopes),
        Some(Ok(OneOrMany::Many(scopes))) => scopes.iter().filter(|scope| !scope.contains(' ')).for_each(|scope| add(scope)),
        Some(Err(_)) | None => {}
    }
    all.into()
}

fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(char::is_control)
}
