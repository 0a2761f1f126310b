//! Whose request a shared workload serves while it asks for something outside.
//!
//! A workload that serves several tenants has no tenant of its own, and nothing in a connection that it opens says on whose behalf. So the
//! inbound side gives each request that it hands to such a workload a context, and the outbound side asks for it back:
//!
//! | the application gets | and sends it on with what it asks for on that request's behalf |
//! |---|---|
//! | `x-ringfence-context: TOKEN` | as the same field, on plain HTTP and on CONNECT |
//! | | or as the credentials of its proxy: `http://context:TOKEN@127.0.0.1:15001` (Basic), or `Proxy-Authorization: Bearer TOKEN` |
//!
//! The second way is open to every HTTP client library that can be told of a proxy; connections must then not be shared between requests
//! of different tenants, which a proxy URL of its own for each ensures. What comes without a context is refused: by 407 with a challenge
//! where a proxy was asked, since some clients (libcurl, and so git) keep their credentials until then, by 403 where the connection was
//! captured. One that is forged, expired or contradicted by another in the same request is refused by 403. It never leaves the sidecar. A
//! workload of one tenant neither gets nor needs one; what it sends in its place is dropped unread.
//!
//! A context is a bearer token for one tenant's egress, good at the process that minted it, at one that takes over from it and nowhere else:
//! the key is made at start and never stored. It proves that the workload has served a request of that tenant in the last minutes, not that it serves it still:
//! a shared workload is trusted not to mix up its tenants' contexts, as it is with their data.

use aws_lc_rs::{
    error::Unspecified,
    hmac::{self, HMAC_SHA256, Key},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use ringfence_policy::{Deny, Reason, TenantId};

/// The field that carries a context, both ways.
pub const CONTEXT: HeaderName = HeaderName::from_static("x-ringfence-context");

/// Seconds for which a context is good: longer than an application works on one request and on what it queued for it, and short enough
/// that one found in a log is of no use. A tunnel that was opened with it may last longer; policy alone ends that.
pub const LIFETIME: u64 = 15 * 60;

/// The first octet, so that what is minted after an upgrade of the format is not misread.
const VERSION: u8 = 1;
const TAG: usize = 32;
/// Before the tenant's name: the version, and the expiry in Unix seconds.
const PREFIX: usize = 1 + 8;
/// Characters of the longest token: a tenant's name has at most 63.
const LONGEST: usize = (PREFIX + 63 + TAG).div_ceil(3) * 4;

/// Octets of the key.
const KEY: usize = 32;

/// Mints and verifies contexts with a key of this process.
pub struct Contexts {
    octets: [u8; KEY],
    key: Key,
}

impl Contexts {
    /// Fails where the system has no random numbers. They are the kernel's: AWS-LC's generator first gathers entropy from the jitter of the
    /// processor's clock for some 30 ms, and every start would wait for it.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut octets = [0; KEY];
        getrandom::fill(&mut octets)?;
        Ok(Self { key: Key::new(HMAC_SHA256, &octets), octets })
    }

    /// With the key of the process that this one takes over from; `None`: it has not its length.
    pub fn with_key(octets: &[u8]) -> Option<Self> {
        let octets: [u8; KEY] = octets.try_into().ok()?;
        Some(Self { key: Key::new(HMAC_SHA256, &octets), octets })
    }

    /// A secret, for such a process alone.
    pub fn key(&self) -> &[u8] {
        &self.octets
    }

    /// `now`: Unix seconds.
    pub fn mint(&self, tenant: &TenantId, now: u64) -> Option<HeaderValue> {
        let mut token = Vec::with_capacity(PREFIX + tenant.as_str().len() + TAG);
        token.push(VERSION);
        token.extend(now.saturating_add(LIFETIME).to_be_bytes());
        token.extend(tenant.as_str().as_bytes());
        let tag = hmac::sign(&self.key, &token);
        token.extend(tag.as_ref());
        // Cannot fail: base64url is visible ASCII.
        HeaderValue::try_from(BASE64_URL_SAFE_NO_PAD.encode(token)).ok()
    }

    /// The tenant for whom `token` was minted. `now`: Unix seconds.
    pub fn verify(&self, token: &[u8], now: u64) -> Result<TenantId, Deny> {
        let invalid = |why: &'static str| Deny::new(Reason::EgressContextInvalid, why);
        if token.len() > LONGEST {
            return Err(invalid("the context is longer than any"));
        }
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid("the context must be base64url without padding"))?;
        let signed = token.len().checked_sub(TAG).filter(|signed| *signed > PREFIX).ok_or_else(|| invalid("the context is cut short"))?;
        let (signed, tag) = token.split_at(signed);
        // In constant time.
        hmac::verify(&self.key, signed, tag).map_err(|Unspecified| invalid("the context was not minted by this process"))?;
        let (&version, rest) = signed.split_first().ok_or_else(|| invalid("the context is cut short"))?;
        let (expiry, tenant) = rest.split_first_chunk().ok_or_else(|| invalid("the context is cut short"))?;
        if version != VERSION {
            return Err(invalid("the context is of another version"));
        }
        if u64::from_be_bytes(*expiry) <= now {
            return Err(invalid("the context has expired"));
        }
        let tenant = std::str::from_utf8(tenant).ok().and_then(|name| name.parse().ok());
        tenant.ok_or_else(|| invalid("the context names no tenant"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn verdict(contexts: &Contexts, token: &[u8], now: u64) -> Result<String, String> {
        contexts.verify(token, now).map(|tenant| tenant.to_string()).map_err(|deny| {
            assert_eq!(deny.reason, Reason::EgressContextInvalid);
            deny.detail.into_owned()
        })
    }

    #[test]
    fn a_context_names_its_tenant_until_it_expires() {
        let contexts = Contexts::new().unwrap();
        for name in ["acme", "a", &"x".repeat(63)] {
            let token = contexts.mint(&name.parse().unwrap(), NOW).unwrap();
            for (now, expected) in [(NOW, true), (NOW + LIFETIME - 1, true), (NOW + LIFETIME, false), (u64::MAX, false)] {
                let verdict = verdict(&contexts, token.as_bytes(), now);
                assert_eq!(verdict.is_ok_and(|tenant| tenant == name), expected, "{name} at {now}");
            }
        }
    }

    #[test]
    fn nothing_else_is_a_context() {
        let contexts = Contexts::new().unwrap();
        let token = contexts.mint(&"acme".parse().unwrap(), NOW).unwrap();
        let of_another_process = Contexts::new().unwrap().mint(&"acme".parse().unwrap(), NOW).unwrap();
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
        let renamed = [&decoded[..PREFIX], b"evil", &decoded[PREFIX + 4..]].concat();
        let extended = [&decoded[..1], &u64::MAX.to_be_bytes(), &decoded[PREFIX..]].concat();
        let signed = |content: &[u8]| {
            let tag = hmac::sign(&contexts.key, content);
            BASE64_URL_SAFE_NO_PAD.encode([content, tag.as_ref()].concat())
        };
        let later = &u64::MAX.to_be_bytes()[..];
        let encode = |octets: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(octets);
        for (name, token, expected) in [
            ("another process's", of_another_process.to_str().unwrap().to_owned(), "not minted"),
            ("another tenant's name", encode(&renamed), "not minted"),
            ("another expiry", encode(&extended), "not minted"),
            ("one octet less", encode(&decoded[..decoded.len() - 1]), "not minted"),
            ("nothing", String::new(), "cut short"),
            ("a tag alone", encode(&decoded[decoded.len() - TAG..]), "cut short"),
            ("padding", format!("{}=", token.to_str().unwrap()), "base64url"),
            ("spaces", format!(" {}", token.to_str().unwrap()), "base64url"),
            ("too much", "A".repeat(LONGEST + 1), "longer"),
            ("another version", signed(&[&[2], later, b"acme"].concat()), "version"),
            ("no tenant's name", signed(&[&[VERSION], later, b"Acme"].concat()), "names no tenant"),
        ] {
            let message = verdict(&contexts, token.as_bytes(), NOW).expect_err(name);
            assert!(message.contains(expected), "{name}: {message}");
        }
    }

    #[test]
    fn a_successor_with_the_key_verifies_what_was_minted_before() {
        let contexts = Contexts::new().unwrap();
        let token = contexts.mint(&"acme".parse().unwrap(), NOW).unwrap();
        let successor = Contexts::with_key(contexts.key()).unwrap();
        assert_eq!(verdict(&successor, token.as_bytes(), NOW), Ok("acme".into()));
        assert!(Contexts::with_key(&contexts.key()[1..]).is_none());
    }

    #[test]
    fn every_octet_counts() {
        let contexts = Contexts::new().unwrap();
        let token = contexts.mint(&"acme".parse().unwrap(), NOW).unwrap();
        for at in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(contexts.verify(&changed, NOW).is_err(), "octet {at}");
        }
    }
}
