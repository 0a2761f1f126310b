//! Which objects an object names.

use crate::spec::{IdentitySpec, Kind, ObjectKey, OperatorSpec, Spec};

/// A field that names another object.
pub(crate) struct Reference<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    field: Field,
}

#[derive(Clone, Copy)]
enum Field {
    Zone(usize),
    Identity(usize),
    Peer(usize),
    Tenant,
    Tenants(usize),
    OperatorIssuer(usize),
    OperatorTenant(usize),
}

impl Reference<'_> {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, name: self.name.into() }
    }

    pub(super) fn path(&self) -> String {
        match self.field {
            Field::Zone(i) => format!("spec.dns.zones[{i}]"),
            Field::Identity(i) => format!("spec.identity[{i}].issuer"),
            Field::Peer(i) => format!("spec.peers[{i}]"),
            Field::Tenant => "spec.tenant".to_owned(),
            Field::Tenants(i) => format!("spec.tenants[{i}]"),
            Field::OperatorIssuer(i) => format!("spec.operators[{i}].issuer"),
            Field::OperatorTenant(i) => format!("spec.operators[{i}].tenant"),
        }
    }
}

/// `tenants: ["*"]` names none.
pub(crate) fn references<'a>(spec: &'a Spec) -> Vec<Reference<'a>> {
    let reference = |kind, field, name: &'a str| Reference { kind, name, field };
    let zones =
        |names: &'a [String]| names.iter().enumerate().map(move |(i, name)| reference(Kind::PolicyZone, Field::Zone(i), name.as_str()));
    match spec {
        Spec::Issuer(_) | Spec::PolicyZone(_) => Vec::new(),
        Spec::Platform(platform) => {
            let operator = |(i, operator): (usize, &'a OperatorSpec)| {
                let tenant = operator.tenant.as_deref().map(|name| reference(Kind::Tenant, Field::OperatorTenant(i), name));
                [reference(Kind::Issuer, Field::OperatorIssuer(i), operator.issuer.as_str())].into_iter().chain(tenant)
            };
            let operators = platform.operators.iter().enumerate().flat_map(operator);
            platform.dns.iter().flat_map(|dns| zones(&dns.zones)).chain(operators).collect()
        }
        Spec::Tenant(tenant) => {
            let issuer = |(i, identity): (usize, &'a IdentitySpec)| reference(Kind::Issuer, Field::Identity(i), identity.issuer.as_str());
            let zones = tenant.dns.iter().flat_map(|dns| zones(&dns.zones));
            let peers = tenant.peers.iter().enumerate().map(|(i, name)| reference(Kind::Tenant, Field::Peer(i), name.as_str()));
            tenant.identity.iter().enumerate().map(issuer).chain(zones).chain(peers).collect()
        }
        Spec::Workload(workload) => {
            let shared = workload.tenants.iter().flatten().enumerate().filter(|(_, name)| *name != "*");
            let one = workload.tenant.iter().map(|name| reference(Kind::Tenant, Field::Tenant, name.as_str()));
            let zones = workload.dns.iter().flat_map(|dns| zones(&dns.zones));
            one.chain(shared.map(|(i, name)| reference(Kind::Tenant, Field::Tenants(i), name.as_str()))).chain(zones).collect()
        }
    }
}
