//! `spec.kubernetes` of a Tenant or the Platform, as it stands by itself. No sidecar is told of it.

use crate::{
    spec::{Fault, Object, Spec},
    tenancy::{Wrong, wrong_with_platform, wrong_with_tenant},
};

pub(super) fn check(object: &Object, faults: &mut Vec<Fault>) {
    let wrong = match &object.spec {
        Spec::Tenant(tenant) => wrong_with_tenant(&object.key.name, tenant.kubernetes.as_deref()),
        Spec::Platform(platform) => wrong_with_platform(platform.kubernetes.as_ref()),
        Spec::Issuer(_) | Spec::PolicyZone(_) | Spec::Workload(_) => Vec::new(),
    };
    faults.extend(wrong.into_iter().map(|Wrong { path, message }| object.fault(format!("spec.{path}"), message)));
}
