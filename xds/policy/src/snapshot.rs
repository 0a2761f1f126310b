//! The consistent set of policy in force at one sidecar. Immutable: a push makes another.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Deny, IssuerName, Reason, TenantId, TrustBundle,
    budget::Budget,
    identify::{IssuerPolicy, VerifiedClaims},
    rpz,
    tenant::{PlatformPolicy, ServedTenants, TenantPolicy, WorkloadPolicy},
};

#[derive(Debug)]
pub struct Snapshot {
    /// Count of swaps in this process.
    pub generation: u64,
    /// Changes only when an issuer or a key changes: claims that were verified may be remembered as long as it stands.
    pub identity_generation: u64,
    pub workload: Arc<WorkloadPolicy>,
    pub platform: PlatformPolicy,
    /// Who vouches for peers. `None`: nobody, so that none is believed.
    pub trust: Option<Arc<TrustBundle>>,
    pub tenants: HashMap<TenantId, Arc<TenantPolicy>>,
    pub issuers: Vec<Arc<IssuerPolicy>>,
    /// What was pushed, for people to look at; decides nothing.
    pub versions: Vec<ResourceVersion>,
    /// (issuer, claim value) -> tenant.
    pub bindings: HashMap<IssuerName, HashMap<String, TenantId>>,
    /// What the workload's DNS queries go through: the platform's zones, then those of its tenant, or its own where it is shared, for no
    /// query tells whose it is. Empty without `Workload.spec.dns`. `None`: one of them, or the tenant, cannot be had, so that no query may
    /// be answered.
    pub zones: Option<rpz::Policy>,
    /// What those queries count against.
    pub budget: Budget,
}

/// One resource that the snapshot was made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceVersion {
    pub kind: &'static str,
    pub name: Arc<str>,
    pub version: Arc<str>,
}

/// What a snapshot says of a verified token's tenant.
#[derive(Debug)]
pub enum TenantAnswer<'a> {
    Known(&'a Arc<TenantPolicy>),
    /// A workload that serves any tenant, and one that it has not met: ask the control plane who this is.
    Unlearnt {
        issuer: &'a IssuerName,
        value: &'a str,
    },
}

impl Snapshot {
    /// Whose token this is. The only way to a tenant's policy on the inbound route.
    pub fn tenant_of<'a>(&'a self, claims: &'a VerifiedClaims) -> Result<TenantAnswer<'a>, Deny> {
        let Some(value) = claims.tenant_value() else {
            return Err(Deny::new(Reason::TenantMissing, "the issuer's tenant claim is absent or not a plain string"));
        };
        let id = self.bindings.get(claims.issuer()).and_then(|values| values.get(value));
        match (id, &self.workload.tenants) {
            (Some(id), _) => match self.tenants.get(id) {
                Some(tenant) => Ok(TenantAnswer::Known(tenant)),
                None => Err(Deny::new(Reason::ConfigAbsent, "the tenant's policy has not arrived")),
            },
            (None, ServedTenants::One(_)) => Err(Deny::new(Reason::TenantMismatch, "the token's tenant is not the workload's")),
            (None, ServedTenants::Some(_)) => Err(Deny::new(Reason::TenantUnknown, "the token's tenant is none of the workload's")),
            (None, ServedTenants::Any) => Ok(TenantAnswer::Unlearnt { issuer: claims.issuer(), value }),
        }
    }
}
