//! Which objects an object names.

use crate::spec::{Kind, ObjectKey, Spec};

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
            (Kind::Issuer, Some(i)) => format!("spec.identity[{i}].issuer"),
            (_, Some(i)) => format!("spec.tenants[{i}]"),
            (_, None) => "spec.tenant".to_owned(),
        }
    }
}

/// `tenants: ["*"]` names none.
pub(crate) fn references(spec: &Spec) -> Vec<Reference<'_>> {
    let reference = |kind, list, name| Reference { kind, name, list };
    match spec {
        Spec::Platform(_) | Spec::Issuer(_) => Vec::new(),
        Spec::Tenant(tenant) => {
            tenant.identity.iter().enumerate().map(|(i, identity)| reference(Kind::Issuer, Some(i), identity.issuer.as_str())).collect()
        }
        Spec::Workload(workload) => {
            let shared = workload.tenants.iter().flatten().enumerate().filter(|(_, name)| *name != "*");
            let one = workload.tenant.iter().map(|name| reference(Kind::Tenant, None, name.as_str()));
            one.chain(shared.map(|(i, name)| reference(Kind::Tenant, Some(i), name.as_str()))).collect()
        }
    }
}
