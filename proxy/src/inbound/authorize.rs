//! Fourth stage. Takes an identified and admitted request; yields the permit that `forward` asks for. Never knows tokens or counters.

use ringfence_policy::{Deny, TenantId, path::NormalPath, tenant::InboundPolicy};

use super::{headers::Identity, identify::Identified};

/// A request that may reach the workload. Only this file makes one.
pub(super) struct Authorized(Option<Identified>);

impl Authorized {
    /// `None` on a public path.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        self.0.as_ref().map(|identified| &identified.tenant.id)
    }

    /// What the workload is told of the caller; `None` on a public path.
    pub(super) fn identity(&self) -> Option<Identity<'_>> {
        self.0.as_ref().map(|identified| Identity { tenant: identified.tenant.id.as_str(), subject: identified.token.claims.subject() })
    }
}

/// The permit of a path that needs no token, if it is one.
pub(super) fn public(path: &NormalPath<'_>, listener: &InboundPolicy) -> Option<Authorized> {
    listener.public.iter().any(|pattern| pattern.matches(path, None)).then_some(Authorized(None))
}

pub(super) fn authorize(identified: Identified, method: &str, path: &NormalPath<'_>) -> Result<Authorized, Deny> {
    let tenant = &identified.tenant;
    tenant.inbound.authorize(method, path, &tenant.id, |scope| identified.token.claims.has_scope(scope))?;
    Ok(Authorized(Some(identified)))
}
