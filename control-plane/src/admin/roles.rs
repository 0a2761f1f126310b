//! Who may ask what of the control plane.
//!
//! | | platform-admin | viewer | tenant-admin | nobody |
//! |---|---|---|---|---|
//! | health | yes | yes | yes | yes |
//! | status | all | all | of the own tenant | no |
//! | resources | all | no | of the own tenant | no |
//! | metrics | yes | yes | no: they are of all tenants together | no |
//!
//! Whoever opens the Unix socket, which is the control plane's own user, is a platform admin; join tokens and rotations are asked for there
//! alone.

use std::sync::Arc;

use ringfence_xds::policy::{
    TenantId,
    identify::{self, IssuerPolicy, VerifiedClaims},
};

use crate::spec::quoted;

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Health,
    /// Which sidecars enforce what is published, and what they refused.
    Status,
    /// What one workload's sidecar is told.
    Resources,
    Metrics,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    PlatformAdmin,
    Viewer,
    TenantAdmin(TenantId),
}

/// How much of what an endpoint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent<'a> {
    All,
    /// As if there were no other tenant: workloads that serve it alone.
    Tenant(&'a TenantId),
}

/// Without a role only health is told.
pub fn may(role: Option<&Role>, endpoint: Endpoint) -> Option<Extent<'_>> {
    use Endpoint::{Health, Metrics, Resources, Status};
    match (role, endpoint) {
        (_, Health) => Some(Extent::All),
        (Some(Role::PlatformAdmin), Status | Resources | Metrics) => Some(Extent::All),
        (Some(Role::Viewer), Status | Metrics) => Some(Extent::All),
        (Some(Role::TenantAdmin(tenant)), Status | Resources) => Some(Extent::Tenant(tenant)),
        (Some(Role::Viewer | Role::TenantAdmin(_)) | None, _) => None,
    }
}

impl Role {
    /// As an operator writes it; the field at fault, and what would be right.
    pub(crate) fn read(role: &str, tenant: Option<&str>) -> Result<Self, (&'static str, String)> {
        let role = match (role, tenant) {
            ("platform-admin", None) => Role::PlatformAdmin,
            ("viewer", None) => Role::Viewer,
            ("tenant-admin", Some(tenant)) => Role::TenantAdmin(tenant.parse().map_err(|error| (".tenant", format!("{error}")))?),
            ("tenant-admin", None) => return Err((".tenant", "must name the tenant of a tenant-admin".to_owned())),
            ("platform-admin" | "viewer", Some(_)) => return Err((".tenant", "is a tenant-admin's alone".to_owned())),
            (other, _) => return Err((".role", format!("must be platform-admin, tenant-admin or viewer, not {}", quoted(other)))),
        };
        Ok(role)
    }
}

/// Someone who was given a role.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Name of the Issuer object.
    pub issuer: String,
    pub subject: String,
    pub role: Role,
}

/// The role of whoever sent this `Authorization`. The caller learns from a refusal that it is one, and nothing else.
///
/// Where one subject was given two roles, the first counts.
pub fn identify_operator<'a>(
    authorization: impl IntoIterator<Item = &'a [u8]>,
    issuers: &[Arc<IssuerPolicy>],
    operators: &'a [Operator],
    now: u64,
) -> Option<&'a Role> {
    let token = identify::bearer(authorization).ok()?;
    let claims: VerifiedClaims = identify::verify(token, issuers.iter().map(|issuer| &**issuer), now).ok()?;
    let subject = claims.subject()?;
    let operator = operators.iter().find(|operator| operator.issuer == claims.issuer().as_str() && operator.subject == subject);
    operator.map(|operator| &operator.role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_at_each_endpoint() {
        let acme: TenantId = "acme".parse().unwrap();
        let (all, own) = (Some(Extent::All), Some(Extent::Tenant(&acme)));
        let (admin, viewer, of_tenant) = (Role::PlatformAdmin, Role::Viewer, Role::TenantAdmin(acme.clone()));
        for (endpoint, wanted) in [Endpoint::Health, Endpoint::Status, Endpoint::Resources, Endpoint::Metrics].into_iter().zip([
            [all, all, all, all],
            [all, all, own, None],
            [all, None, own, None],
            [all, all, None, None],
        ]) {
            let told = [Some(&admin), Some(&viewer), Some(&of_tenant), None].map(|role| may(role, endpoint));
            assert_eq!(told, wanted, "{endpoint:?}");
        }
    }

    #[test]
    fn a_role_is_written_whole() {
        let acme = || Role::TenantAdmin("acme".parse().unwrap());
        for (role, tenant, wanted) in [
            ("platform-admin", None, Ok(Role::PlatformAdmin)),
            ("viewer", None, Ok(Role::Viewer)),
            ("tenant-admin", Some("acme"), Ok(acme())),
            ("tenant-admin", None, Err(".tenant")),
            ("tenant-admin", Some("Acme"), Err(".tenant")),
            ("viewer", Some("acme"), Err(".tenant")),
            ("platform-admin", Some("acme"), Err(".tenant")),
            ("admin", None, Err(".role")),
            ("", Some("acme"), Err(".role")),
        ] {
            assert_eq!(Role::read(role, tenant).map_err(|(field, _)| field), wanted, "{role} {tenant:?}");
        }
    }
}
