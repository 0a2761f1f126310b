//! Fourth stage. Takes an identified and admitted request; yields the permit that `forward` asks for. Never knows tokens or counters.

use http::HeaderValue;
use ringfence_policy::{
    Deny, TenantId,
    path::NormalPath,
    tenant::{InboundPolicy, ServedTenants, WorkloadPolicy},
};

use super::{headers::Identity, identify::Identified};

/// A request that may reach the workload. Only this file makes one.
pub(super) struct Authorized(Option<Identified>);

impl Authorized {
    /// `None` on a public path.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        self.0.as_ref().map(|identified| &identified.tenant.id)
    }

    /// The tenant for whom the workload needs a context: one that several share and that may reach out.
    pub(super) fn context_for(&self) -> Option<&TenantId> {
        let identified = self.0.as_ref()?;
        needs_context(&identified.snapshot.workload).then_some(&identified.tenant.id)
    }

    /// What the workload is told of the caller; `None` on a public path.
    pub(super) fn identity<'a>(&'a self, context: Option<&'a HeaderValue>) -> Option<Identity<'a>> {
        let identified = self.0.as_ref()?;
        Some(Identity { tenant: identified.tenant.id.as_str(), subject: identified.token.claims.subject(), context })
    }
}

/// A dedicated workload's tenant is known without one.
fn needs_context(workload: &WorkloadPolicy) -> bool {
    workload.outbound.is_some() && !matches!(workload.tenants, ServedTenants::One(_))
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

#[cfg(test)]
mod tests {
    use ringfence_policy::tenant::{Capture, OutboundPolicy};

    use super::*;

    #[test]
    fn only_shared_workloads_that_reach_out_get_contexts() {
        let acme: TenantId = "acme".parse().unwrap();
        let outbound = OutboundPolicy { listen: "127.0.0.1:15001".parse().unwrap(), capture: Capture::None };
        for (tenants, outbound, expected) in [
            (ServedTenants::One(acme.clone()), Some(outbound.clone()), false),
            (ServedTenants::Some([acme.clone()].into()), Some(outbound.clone()), true),
            (ServedTenants::Any, Some(outbound), true),
            (ServedTenants::Some([acme].into()), None, false),
            (ServedTenants::Any, None, false),
        ] {
            let workload = WorkloadPolicy {
                name: "test".parse().unwrap(),
                tenants,
                issuers: Default::default(),
                inbound: Vec::new(),
                outbound,
                dns: None,
            };
            assert_eq!(needs_context(&workload), expected, "{workload:?}");
        }
    }
}
