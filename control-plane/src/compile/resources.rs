//! Spec -> proto, field by field.

use std::collections::BTreeSet;

use ringfence_xds::{
    generated::resource as proto,
    resource::{Resource, binding_name},
};

use crate::{
    spec::{
        AllowSpec, DnsLimitSpec, EgressRuleSpec, Fault, IssuerSpec, LimitSpec, MatchSpec, Object, PeerSpec, PlatformEgressSpec,
        PlatformSpec, Spec, TenantEgressSpec, TenantInboundSpec, TenantSpec, TlsSpec, WorkloadDnsSpec, WorkloadEgressSpec, WorkloadSpec,
    },
    zones::{self, CompiledZone},
};

/// `taken`: what the object takes from others, see [`super::Own`].
pub(super) fn of(object: &Object, taken: &BTreeSet<&str>, faults: &mut Vec<Fault>) -> Vec<Resource> {
    let name = object.key.name.clone();
    match &object.spec {
        Spec::Platform(spec) => vec![Resource::new(name, &platform(spec))],
        Spec::Issuer(spec) => vec![Resource::new(name, &issuer(spec))],
        Spec::PolicyZone(spec) => {
            let r#override = spec.r#override.as_deref().unwrap_or_default();
            let max_ttl = spec.max_ttl.as_deref().unwrap_or_default();
            let resources = |zone: &CompiledZone| zone.resources(&name, r#override, max_ttl);
            match &spec.compiled {
                Some(zone) => resources(zone),
                // Not transferred yet: told to nobody, and what is written of it is to be right when it is.
                None => {
                    let empty = zones::compile(b"", &name);
                    faults.extend(empty.iter().flat_map(|zone| resources(zone)).flat_map(|resource| super::check_one(object, &resource)));
                    Vec::new()
                }
            }
        }
        Spec::Tenant(spec) => {
            let body = tenant(spec, &name, taken);
            let binding =
                |issuer: &str, value: &str| Resource::new(binding_name(issuer, value), &proto::Binding { tenant: name.to_string() });
            let bindings: Vec<Resource> =
                body.identity.iter().flat_map(|identity| identity.values.iter().map(|value| binding(&identity.issuer, value))).collect();
            std::iter::once(Resource::new(name.clone(), &body)).chain(bindings).collect()
        }
        Spec::Workload(spec) => vec![Resource::new(name, &workload(spec, object, taken, faults))],
    }
}

pub(crate) fn platform(spec: &PlatformSpec) -> proto::Platform {
    let egress = |spec: &PlatformEgressSpec| proto::PlatformEgress {
        deny: spec.deny.as_ref().map(|deny| proto::Prefixes { cidrs: deny.cidrs.clone() }),
        dangerous_allow_private: spec.dangerous_allow_private.clone(),
    };
    proto::Platform {
        in_flight: spec.in_flight.unwrap_or_default(),
        egress: spec.egress.as_ref().map(egress),
        dns: spec.dns.as_ref().map(|dns| proto::PlatformDns {
            zones: dns.zones.clone(),
            limits: dns.limits.iter().map(dns_limit).collect(),
            serve_stale: dns.serve_stale.clone().unwrap_or_default(),
        }),
    }
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

pub(crate) fn tenant(spec: &TenantSpec, name: &str, agreed: &BTreeSet<&str>) -> proto::Tenant {
    let identity = |identity: &crate::spec::IdentitySpec| {
        let values = identity.values.clone().unwrap_or_else(|| vec![name.to_owned()]);
        proto::Identity { issuer: identity.issuer.clone(), values }
    };
    proto::Tenant {
        identity: spec.identity.iter().map(identity).collect(),
        limits: spec.limits.iter().map(limit).collect(),
        inbound: spec.inbound.as_ref().and_then(inbound),
        in_flight: spec.in_flight.unwrap_or_default(),
        peers: agreed.iter().map(|peer| (*peer).to_owned()).collect(),
        egress: spec.egress.as_ref().map(egress),
        dns: spec.dns.as_ref().map(|dns| proto::TenantDns {
            zones: dns.zones.clone(),
            mode: dns.mode.clone().unwrap_or_default(),
            limits: dns.limits.iter().map(dns_limit).collect(),
        }),
    }
}

fn limit(spec: &LimitSpec) -> proto::Limit {
    proto::Limit {
        name: spec.name.clone(),
        rate: spec.rate.clone(),
        burst: spec.burst.unwrap_or_default(),
        key: spec.key.clone().unwrap_or_default(),
        r#match: spec.matches.as_ref().map(request_match),
        mode: spec.mode.clone().unwrap_or_default(),
        scope: spec.scope.clone().unwrap_or_default(),
    }
}

fn request_match(spec: &MatchSpec) -> proto::Match {
    proto::Match { methods: list(&spec.methods), paths: list(&spec.paths) }
}

/// No list is everywhere (`None`); an empty one is nowhere.
fn inbound(spec: &TenantInboundSpec) -> Option<proto::TenantInbound> {
    let rule = |spec: &AllowSpec| proto::AllowRule { methods: list(&spec.methods), paths: list(&spec.paths), scopes: list(&spec.scopes) };
    spec.allow.as_ref().map(|allow| proto::TenantInbound { allow: allow.iter().map(rule).collect() })
}

fn egress(spec: &TenantEgressSpec) -> proto::TenantEgress {
    let peer = |spec: &PeerSpec| proto::PeerWorkload {
        tenant: spec.tenant.clone().unwrap_or_default(),
        workload: spec.workload.clone(),
        shared: spec.shared,
    };
    let rule = |spec: &EgressRuleSpec| proto::EgressRule {
        name: spec.name.clone(),
        hosts: list(&spec.hosts),
        cidrs: list(&spec.cidrs),
        ports: spec.ports.iter().flatten().map(|port| u32::from(*port)).collect(),
        protocol: spec.protocol.clone().unwrap_or_default(),
        requests: spec.requests.iter().flatten().map(request_match).collect(),
        peer: spec.peer.as_ref().map(peer),
    };
    proto::TenantEgress {
        mode: spec.mode.clone().unwrap_or_default(),
        allow: spec.allow.iter().map(rule).collect(),
        max_connections: spec.max_connections.unwrap_or_default(),
        connection_rate: spec.connection_rate.clone().unwrap_or_default(),
    }
}

fn list(list: &Option<Vec<String>>) -> Vec<String> {
    list.clone().unwrap_or_default()
}

fn workload(spec: &WorkloadSpec, object: &Object, issuers: &BTreeSet<&str>, faults: &mut Vec<Fault>) -> proto::Workload {
    let listens_for_dns = spec.dns.as_ref().is_some_and(|dns| dns.listen.is_some());
    if spec.inbound.is_empty() && spec.egress.is_none() && !listens_for_dns {
        faults.push(object.fault("spec", "must have inbound, egress or dns.listen: without one its sidecar has nothing to do"));
    }
    let mut listener = |(i, spec): (usize, &crate::spec::InboundSpec)| proto::InboundListener {
        listen: spec.listen.clone(),
        upstream: spec.upstream.clone(),
        public: spec.public.clone(),
        tls: spec.tls.as_ref().map(|tls| on_disk(tls, i, object, faults)),
        mtls: spec.mtls,
        forward_token: spec.forward_token,
    };
    let inbound = spec.inbound.iter().enumerate().map(&mut listener).collect();
    proto::Workload {
        tenant: spec.tenant.clone().unwrap_or_default(),
        tenants: list(&spec.tenants),
        issuers: issuers.iter().map(|issuer| (*issuer).to_owned()).collect(),
        inbound,
        egress: spec.egress.as_ref().map(workload_egress),
        dns: spec.dns.as_ref().map(workload_dns),
    }
}

fn workload_egress(spec: &WorkloadEgressSpec) -> proto::WorkloadEgress {
    proto::WorkloadEgress { listen: spec.listen.clone(), capture: spec.capture.clone().unwrap_or_default() }
}

fn workload_dns(spec: &WorkloadDnsSpec) -> proto::WorkloadDns {
    proto::WorkloadDns {
        listen: spec.listen.clone().unwrap_or_default(),
        upstreams: list(&spec.upstreams),
        upstream_ca: spec.upstream_ca.clone(),
        zones: spec.zones.clone(),
        mode: spec.mode.clone().unwrap_or_default(),
        limits: spec.limits.iter().map(dns_limit).collect(),
        serve_stale: spec.serve_stale.clone().unwrap_or_default(),
        dangerous_listen_any: spec.dangerous_listen_any,
    }
}

fn dns_limit(spec: &DnsLimitSpec) -> proto::DnsLimit {
    proto::DnsLimit {
        name: spec.name.clone(),
        count: spec.count.clone().unwrap_or_default(),
        key: spec.key.clone().unwrap_or_default(),
        rate: spec.rate.clone(),
        burst: spec.burst.unwrap_or_default(),
        mode: spec.mode.clone().unwrap_or_default(),
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
