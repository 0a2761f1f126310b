//! Whose a connection is. Takes the workload's policy; yields where the tenant is to be found, and of a connection that says nothing
//! of it the tenant itself. Never looks at where the connection goes.

use ringfence_policy::{
    Deny, Reason, TenantId,
    tenant::{ServedTenants, WorkloadPolicy},
};

/// Where the route takes the tenant from. A parameter of the route and not a part of it: a gate outside the pod will take it from the
/// certificate of its peer, and all that comes after stays the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantSource {
    /// A dedicated workload: all that leaves it is its tenant's.
    Workload(TenantId),
    /// A shared workload: each request says whose it is, by a context that only the inbound side of this sidecar can mint.
    Context,
}

impl TenantSource {
    pub fn of(workload: &WorkloadPolicy) -> Self {
        match &workload.tenants {
            ServedTenants::One(tenant) => TenantSource::Workload(tenant.clone()),
            ServedTenants::Some(_) | ServedTenants::Any => TenantSource::Context,
        }
    }

    /// The tenant of octets that carry no context: TLS, and what nobody can read.
    pub fn of_octets(&self) -> Result<TenantId, Deny> {
        match self {
            TenantSource::Workload(tenant) => Ok(tenant.clone()),
            TenantSource::Context => {
                let detail = "a shared workload's connection must go through CONNECT or plain HTTP, with the context of a tenant's request";
                Err(Deny::new(Reason::EgressContextMissing, detail))
            }
        }
    }
}
