//! Spec -> proto, field by field.

use std::collections::BTreeSet;

use ringfence_xds::{
    generated::resource as proto,
    resource::{Resource, binding_name},
};

use crate::spec::{
    AllowSpec, Fault, IssuerSpec, LimitSpec, MatchSpec, Object, PlatformSpec, Spec, TenantInboundSpec, TenantSpec, TlsSpec, WorkloadSpec,
};

/// `issuers`: of a workload's tenants.
pub(super) fn of(object: &Object, issuers: &BTreeSet<&str>, faults: &mut Vec<Fault>) -> Vec<Resource> {
    let name = object.key.name.clone();
    match &object.spec {
        Spec::Platform(spec) => vec![Resource::new(name, &platform(spec))],
        Spec::Issuer(spec) => vec![Resource::new(name, &issuer(spec))],
        Spec::Tenant(spec) => {
            let body = tenant(spec, &name);
            let binding =
                |issuer: &str, value: &str| Resource::new(binding_name(issuer, value), &proto::Binding { tenant: name.to_string() });
            let bindings: Vec<Resource> =
                body.identity.iter().flat_map(|identity| identity.values.iter().map(|value| binding(&identity.issuer, value))).collect();
            std::iter::once(Resource::new(name.clone(), &body)).chain(bindings).collect()
        }
        Spec::Workload(spec) => vec![Resource::new(name, &workload(spec, object, issuers, faults))],
    }
}

fn platform(spec: &PlatformSpec) -> proto::Platform {
    proto::Platform { in_flight: spec.in_flight.unwrap_or_default(), egress: None }
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

fn tenant(spec: &TenantSpec, name: &str) -> proto::Tenant {
    let identity = |identity: &crate::spec::IdentitySpec| {
        let values = identity.values.clone().unwrap_or_else(|| vec![name.to_owned()]);
        proto::Identity { issuer: identity.issuer.clone(), values }
    };
    proto::Tenant {
        identity: spec.identity.iter().map(identity).collect(),
        limits: spec.limits.iter().map(limit).collect(),
        inbound: spec.inbound.as_ref().and_then(inbound),
        in_flight: spec.in_flight.unwrap_or_default(),
        egress: None,
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

fn workload(spec: &WorkloadSpec, object: &Object, issuers: &BTreeSet<&str>, faults: &mut Vec<Fault>) -> proto::Workload {
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
        tenants: list(&spec.tenants),
        issuers: issuers.iter().map(|issuer| (*issuer).to_owned()).collect(),
        inbound,
        egress: None,
        dns: None,
    }
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
