//! Third stage. Takes an identified request; yields it admitted, or says which limit it exceeds. Never looks at what the request asks for
//! beyond method and path.

use std::time::Instant;

use ringfence_policy::path::NormalPath;

use super::identify::Identified;
use crate::limiter::{Admitted, Exceeded, Limiter, Request};

pub(super) fn limit(
    identified: &Identified,
    method: &str,
    path: &NormalPath<'_>,
    limiter: &Limiter,
    now: Instant,
) -> Result<Admitted, Exceeded> {
    let claims = &identified.token.claims;
    let request = Request { method, path, subject: claims.subject(), claim: &|name| claims.claim(name) };
    limiter.charge(&request, &identified.tenant, identified.snapshot.platform.in_flight(&identified.tenant), now)
}
