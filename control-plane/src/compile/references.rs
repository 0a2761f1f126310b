//! Which objects an object names.

use crate::spec::{IdentitySpec, Kind, ObjectKey, Spec};

/// A field that names another object.
pub(crate) struct Reference<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    list: Option<usize>,
}

impl Reference<'_> {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, name: self.name.into() }
    }

    pub(super) fn path(&self) -> String {
        match (self.kind, self.list) {
            (Kind::PolicyZone, Some(i)) => format!("spec.dns.zones[{i}]"),
            (Kind::Issuer, Some(i)) => format!("spec.identity[{i}].issuer"),
            (_, Some(i)) => format!("spec.tenants[{i}]"),
            (_, None) => "spec.tenant".to_owned(),
        }
    }
}

/// `tenants: ["*"]` names none.
pub(crate) fn references<'a>(spec: &'a Spec) -> Vec<Reference<'a>> {
    let reference = |kind, list, name: &'a str| Reference { kind, name, list };
    let zones = |names: &'a [String]| names.iter().enumerate().map(move |(i, name)| reference(Kind::PolicyZone, Some(i), name.as_str()));
    match spec {
        Spec::Issuer(_) | Spec::PolicyZone(_) => Vec::new(),
        Spec::Platform(platform) => platform.dns.iter().flat_map(|dns| zones(&dns.zones)).collect(),
        Spec::Tenant(tenant) => {
            let issuer = |(i, identity): (usize, &'a IdentitySpec)| reference(Kind::Issuer, Some(i), identity.issuer.as_str());
            let zones = tenant.dns.iter().flat_map(|dns| zones(&dns.zones));
            tenant.identity.iter().enumerate().map(issuer).chain(zones).collect()
        }
        Spec::Workload(workload) => {
            let shared = workload.tenants.iter().flatten().enumerate().filter(|(_, name)| *name != "*");
            let one = workload.tenant.iter().map(|name| reference(Kind::Tenant, None, name.as_str()));
            let zones = workload.dns.iter().flat_map(|dns| zones(&dns.zones));
            one.chain(shared.map(|(i, name)| reference(Kind::Tenant, Some(i), name.as_str()))).chain(zones).collect()
        }
    }
}
