//! Who is asking: a bearer token (RFC 6750) that is a JWT (RFC 7519, RFC 8725) of an issuer whose keys we hold.
//!
//! Takes the request's `Authorization` values, the issuers in force and the time; yields `VerifiedClaims`, which only `verify` can make.
//! Never follows anything that the token says about keys, and reads no claim before the signature holds but `iss`, to know whose keys to try.

mod token;

mod algorithm;
pub mod keys;

mod claims;
mod json;

pub use claims::VerifiedClaims;
pub use token::{b64token, bearer, credentials};

use crate::{Deny, IssuerName, Reason, RuleRef};
use keys::KeySet;
use token::Jws;

/// Longest token looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// One issuer in force.
#[derive(Debug)]
pub struct IssuerPolicy {
    pub name: IssuerName,
    /// The exact `iss`.
    pub issuer: String,
    /// At least one; a token must carry one of them.
    pub audiences: Vec<String>,
    pub keys: KeySet,
    /// The claim that names the tenant, as path segments: `app.org` is `["app", "org"]`.
    pub tenant_claim: Vec<String>,
    /// Seconds, at most 60.
    pub clock_skew: u64,
}

/// What `token` says, if one of `issuers` vouches for it at `now` (Unix seconds). Decides, in this order:
/// 1. the form and the header: `token_malformed`, `token_algorithm`;
/// 2. some issuer in force has the token's `iss`, byte for byte: else `token_issuer`;
/// 3. that issuer has a key of the token's `kid`: else `token_key` (fresh keys may help: it may have rotated);
/// 4. the key is pinned to the token's `alg`: else `token_algorithm`;
/// 5. the signature: else `token_signature`;
/// 6. the claims: `token_malformed`, `token_issuer`, `token_audience`, `token_expired`, `token_not_yet_valid`.
///
/// Several issuers may share an `iss` (one identity provider, two sets of audiences): the first that accepts the token decides, and where
/// none does the refusal is that of the one that came furthest, and names it as its rule.
pub fn verify<'a>(token: &str, issuers: impl IntoIterator<Item = &'a IssuerPolicy>, now: u64) -> Result<VerifiedClaims, Deny> {
    let jws = Jws::parse(token)?;
    let payload = jws.payload()?;
    let iss = claims::peek_issuer(&payload)?;
    let mut refusal = Deny::new(Reason::TokenIssuer, "iss: is that of no issuer in force");
    let mut furthest = 0;
    for issuer in issuers.into_iter().filter(|issuer| issuer.issuer == iss) {
        match issuer.keys.verify(&jws).and_then(|()| claims::accept(&payload, issuer, now)) {
            Ok(claims) => return Ok(claims),
            Err(deny) if progress(deny.reason) > furthest => {
                furthest = progress(deny.reason);
                refusal = deny.by(&RuleRef::new(format!("Issuer/{}", issuer.name)));
            }
            Err(_) => {}
        }
    }
    Err(refusal)
}

/// How far a token came before an issuer refused it.
fn progress(reason: Reason) -> u8 {
    match reason {
        Reason::TokenKey => 1,
        Reason::TokenAlgorithm => 2,
        Reason::TokenSignature => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests;
