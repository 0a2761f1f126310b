//! Spec -> proto, field by field; the references that a spec makes are looked up on the way.

use std::collections::BTreeSet;

use ringfence_xds::{
    generated::resource as proto,
    resource::{Resource, binding_name},
};

use super::Index;
use crate::spec::{
    AllowSpec, Fault, IssuerSpec, Kind, LimitSpec, MatchSpec, Object, PlatformSpec, Spec, TenantInboundSpec, TenantSpec, TlsSpec,
    WorkloadSpec,
};

pub(super) fn of(object: &Object, index: &Index<'_>, faults: &mut Vec<Fault>) -> Vec<Resource> {
    let name = object.key.name.clone();
    match &object.spec {
        Spec::Platform(spec) => vec![Resource::new(name, &platform(spec))],
        Spec::Issuer(spec) => vec![Resource::new(name, &issuer(spec))],
        Spec::Tenant(spec) => {
            let body = tenant(spec, object, index, faults);
            let binding =
                |issuer: &str, value: &str| Resource::new(binding_name(issuer, value), &proto::Binding { tenant: name.to_string() });
            let bindings: Vec<Resource> =
                body.identity.iter().flat_map(|identity| identity.values.iter().map(|value| binding(&identity.issuer, value))).collect();
            std::iter::once(Resource::new(name.clone(), &body)).chain(bindings).collect()
        }
        Spec::Workload(spec) => vec![Resource::new(name, &workload(spec, object, index, faults))],
    }
}

fn platform(spec: &PlatformSpec) -> proto::Platform {
    proto::Platform { in_flight: spec.in_flight.unwrap_or_default() }
}

fn issuer(spec: &IssuerSpec) -> proto::Issuer {
    proto::Issuer {
        issuer: spec.issuer.clone(),
        audiences: spec.audiences.clone(),
        algorithms: spec.algorithms.clone(),
        jwks: spec.jwks.text.clone(),
        tenant_claim: spec.tenant_claim.clone(),
        clock_skew: spec.clock_skew.clone().unwrap_or_default(),
    }
}

fn tenant(spec: &TenantSpec, object: &Object, index: &Index<'_>, faults: &mut Vec<Fault>) -> proto::Tenant {
    let identity = |(i, identity): (usize, &crate::spec::IdentitySpec)| {
        if let Some(message) = index.dangling(Kind::Issuer, &identity.issuer) {
            faults.push(object.fault(format!("spec.identity[{i}].issuer"), message));
        }
        let values = identity.values.clone().unwrap_or_else(|| vec![object.key.name.to_string()]);
        proto::Identity { issuer: identity.issuer.clone(), values }
    };
    proto::Tenant {
        identity: spec.identity.iter().enumerate().map(identity).collect(),
        limits: spec.limits.iter().map(limit).collect(),
        inbound: spec.inbound.as_ref().and_then(inbound),
        in_flight: spec.in_flight.unwrap_or_default(),
    }
}

fn limit(spec: &LimitSpec) -> proto::Limit {
    let matches = |spec: &MatchSpec| proto::Match { methods: list(&spec.methods), paths: list(&spec.paths) };
    proto::Limit {
        name: spec.name.clone(),
        rate: spec.rate.clone(),
        burst: spec.burst.unwrap_or_default(),
        key: spec.key.clone().unwrap_or_default(),
        r#match: spec.matches.as_ref().map(matches),
        mode: spec.mode.clone().unwrap_or_default(),
        scope: spec.scope.clone().unwrap_or_default(),
    }
}

/// No list is everywhere (`None`); an empty one is nowhere.
fn inbound(spec: &TenantInboundSpec) -> Option<proto::TenantInbound> {
    let rule = |spec: &AllowSpec| proto::AllowRule { methods: list(&spec.methods), paths: list(&spec.paths), scopes: list(&spec.scopes) };
    spec.allow.as_ref().map(|allow| proto::TenantInbound { allow: allow.iter().map(rule).collect() })
}

fn list(list: &Option<Vec<String>>) -> Vec<String> {
    list.clone().unwrap_or_default()
}

fn workload(spec: &WorkloadSpec, object: &Object, index: &Index<'_>, faults: &mut Vec<Fault>) -> proto::Workload {
    let tenants = spec.tenants.as_deref().unwrap_or_default();
    let paths = tenants.iter().enumerate().map(|(i, name)| (format!("spec.tenants[{i}]"), name));
    let mut issuers = BTreeSet::new();
    for (path, name) in spec.tenant.iter().map(|name| ("spec.tenant".to_owned(), name)).chain(paths) {
        if name == "*" {
            issuers.extend(index.tenants.values().flat_map(|tenant| issuers_of(tenant)));
        } else if let Some(message) = index.dangling(Kind::Tenant, name) {
            faults.push(object.fault(path, message));
        } else if let Some(tenant) = index.tenants.get(name.as_str()) {
            issuers.extend(issuers_of(tenant));
        }
    }
    let mut listener = |(i, spec): (usize, &crate::spec::InboundSpec)| proto::InboundListener {
        listen: spec.listen.clone(),
        upstream: spec.upstream.clone(),
        public: spec.public.clone(),
        tls: spec.tls.as_ref().map(|tls| on_disk(tls, i, object, faults)),
        forward_token: spec.forward_token,
    };
    let inbound = spec.inbound.iter().enumerate().map(&mut listener).collect();
    proto::Workload {
        tenant: spec.tenant.clone().unwrap_or_default(),
        tenants: tenants.to_vec(),
        issuers: issuers.into_iter().map(str::to_owned).collect(),
        inbound,
    }
}

fn issuers_of(tenant: &TenantSpec) -> impl Iterator<Item = &str> {
    tenant.identity.iter().map(|identity| identity.issuer.as_str())
}

/// Absolute, for a sidecar need not run where the operator's command did.
fn on_disk(tls: &TlsSpec, listener: usize, object: &Object, faults: &mut Vec<Fault>) -> proto::Tls {
    let mut absolute = |field: &str, text: &str| {
        // Nothing names no file; joined to a folder it would name that.
        if text.is_empty() {
            return String::new();
        }
        let path = std::path::absolute(object.resolve(text)).ok().and_then(|path| path.into_os_string().into_string().ok());
        path.unwrap_or_else(|| {
            let path = format!("spec.inbound[{listener}].tls.{field}");
            faults.push(object.fault(path, "must be a path in UTF-8"));
            String::new()
        })
    };
    proto::Tls { certificate: absolute("certificate", &tls.certificate), key: absolute("key", &tls.key) }
}
