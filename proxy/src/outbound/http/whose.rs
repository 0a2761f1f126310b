//! Says whose a request is. Takes the request's fields and the pinned policy; yields the tenant. Never looks at where the request goes.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, header::PROXY_AUTHORIZATION};
use ringfence_policy::{
    Deny, Reason, Snapshot, TenantId,
    tenant::{ServedTenants, WorkloadPolicy},
};

use crate::{
    context::{CONTEXT, Contexts},
    outbound::tenant::TenantSource,
};

/// The user name under which proxy credentials carry a context.
const USER: &[u8] = b"context:";
/// Octets of credentials, encoded: more than any context needs.
const LONGEST: usize = 512;

/// `now`: Unix seconds.
pub(super) fn whose(headers: &HeaderMap, snapshot: &Snapshot, contexts: &Contexts, now: u64) -> Result<TenantId, Deny> {
    match TenantSource::of(&snapshot.workload) {
        TenantSource::Workload(tenant) => Ok(tenant),
        TenantSource::Context => {
            let Some(token) = context(headers)? else {
                return Err(Deny::new(Reason::EgressContextMissing, "neither x-ringfence-context nor proxy credentials carry a context"));
            };
            let tenant = contexts.verify(&token, now)?;
            is_served(&tenant, &snapshot.workload).then_some(tenant).ok_or_else(|| invalid("its tenant is not served here any more"))
        }
    }
}

/// The one context that the fields carry, wherever and however often.
fn context(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Deny> {
    let fields = headers.get_all(CONTEXT).iter().map(|value| Ok(value.as_bytes().to_vec()));
    let credentials = headers.get_all(PROXY_AUTHORIZATION).iter().map(credentials);
    let mut only: Option<Vec<u8>> = None;
    for context in fields.chain(credentials) {
        let context = context?;
        if only.as_ref().is_some_and(|first| *first != context) {
            return Err(invalid("two contexts disagree"));
        }
        only = Some(context);
    }
    Ok(only)
}

/// `Basic base64("context:TOKEN")` (RFC 7617) or `Bearer TOKEN` (RFC 6750 §2.1).
fn credentials(value: &HeaderValue) -> Result<Vec<u8>, Deny> {
    let refuse = || invalid("proxy credentials must be Basic, of the user `context`, or Bearer");
    let text = value.as_bytes();
    if text.len() > LONGEST {
        return Err(refuse());
    }
    let space = text.iter().position(|&octet| octet == b' ').ok_or_else(refuse)?;
    let (scheme, rest) = (&text[..space], text[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(refuse());
    }
    let plain = BASE64_STANDARD.decode(rest).map_err(|_| refuse())?;
    plain.strip_prefix(USER).map(<[u8]>::to_vec).ok_or_else(refuse)
}

fn is_served(tenant: &TenantId, workload: &WorkloadPolicy) -> bool {
    match &workload.tenants {
        ServedTenants::One(only) => only == tenant,
        ServedTenants::Some(tenants) => tenants.contains(tenant),
        ServedTenants::Any => true,
    }
}

fn invalid(why: &'static str) -> Deny {
    Deny::new(Reason::EgressContextInvalid, why)
}
