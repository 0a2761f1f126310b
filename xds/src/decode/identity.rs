//! `Issuer`.

use ringfence_policy::identify::{
    IssuerPolicy,
    keys::{Algorithm, KeySet},
};

use super::{Fault, Faults, Quoted};
use crate::generated::resource as proto;

/// Seconds that clocks may differ where the spec says nothing.
const DEFAULT_CLOCK_SKEW: u64 = 30;
const MAX_CLOCK_SKEW: u64 = 60;
const MAX_TEXT: usize = 2048;

pub fn issuer(name: &str, body: &proto::Issuer) -> Result<IssuerPolicy, Vec<Fault>> {
    let mut faults = Faults::default();
    let name = faults.name(name);
    if body.issuer.is_empty() || body.issuer.len() > MAX_TEXT {
        faults.add("issuer", format!("must be the exact `iss` of its tokens, at most {MAX_TEXT} bytes"));
    }
    if body.audiences.is_empty() {
        faults.add("audiences", "must have at least one audience: a token for anyone is a token for an attacker");
    }
    for (i, audience) in body.audiences.iter().enumerate() {
        if audience.is_empty() || audience.len() > MAX_TEXT {
            faults.add(format!("audiences[{i}]"), format!("must be 1 to {MAX_TEXT} bytes"));
        }
    }
    if body.algorithms.is_empty() {
        faults.add("algorithms", "must have at least one, e.g. ES256");
    }
    let algorithms: Vec<Algorithm> =
        body.algorithms.iter().enumerate().filter_map(|(i, text)| faults.parse(format!("algorithms[{i}]"), text)).collect();
    let keys = if body.jwks.is_empty() {
        // Not fetched yet: the issuer is known and every token of it refused, so that the rest of the policy need not wait for its keys.
        Some(KeySet::default())
    } else if algorithms.is_empty() {
        // Every key would be unusable, which would only repeat the fault above.
        None
    } else {
        match KeySet::parse(&body.jwks, &algorithms) {
            Ok((keys, _set_aside)) => Some(keys),
            Err(message) => {
                faults.add("jwks", message);
                None
            }
        }
    };
    let tenant_claim: Vec<String> = body.tenant_claim.split('.').map(str::to_owned).collect();
    if tenant_claim.iter().any(String::is_empty) || tenant_claim.len() > 8 || body.tenant_claim.len() > 256 {
        faults.add("tenantClaim", "must be the name of a claim, dots descend (at most 8 deep), e.g. org_id or app.org");
    }
    let clock_skew = if body.clock_skew.is_empty() {
        DEFAULT_CLOCK_SKEW
    } else {
        seconds(&body.clock_skew).filter(|s| *s <= MAX_CLOCK_SKEW).unwrap_or_else(|| {
            faults.add("clockSkew", format!("must be from 0s to {MAX_CLOCK_SKEW}s, not {}", Quoted(&body.clock_skew)));
            0
        })
    };
    let policy = name.zip(keys).map(|(name, keys)| IssuerPolicy {
        name,
        issuer: body.issuer.clone(),
        audiences: body.audiences.clone(),
        keys,
        tenant_claim,
        clock_skew,
    });
    faults.or_some(policy)
}

/// `30s`, `1m`: up to four digits.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 4 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "s" => Some(number),
        "m" => Some(number * 60),
        _ => None,
    }
}
