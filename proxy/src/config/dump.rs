//! `/config`: what is in force, for people. Keys are told by their ids, certificates by their files; nothing here is a secret.

use std::sync::Arc;

use ringfence_policy::{
    Snapshot,
    budget::Key,
    ratelimit::{LimitKey, Mode},
    scope::ScopePolicy,
    tenant::{Capture, ServedTenants, TenantPolicy},
};
use serde_json::{Value, json};

use super::Current;
use crate::{
    identity::{self, Membership},
    listeners::{Bound, BoundAddress},
};

/// Tenants shown in full; of more, only the number is told.
const MAX_TENANTS: usize = 1000;

pub fn config(current: Arc<Current>, bound: Bound, membership: Option<Membership>) -> Box<dyn Fn() -> Value + Send + Sync> {
    Box::new(move || {
        let listeners = bound.lock().iter().map(listener_value).collect();
        let mut shown = match current.pin() {
            Some(snapshot) => snapshot_value(&snapshot, listeners),
            None => json!({ "generation": 0, "listeners": Value::Array(listeners) }),
        };
        shown["identity"] = membership.as_ref().map(identity::shown).into();
        shown
    })
}

fn listener_value(bound: &BoundAddress) -> Value {
    json!({ "route": bound.role.as_str(), "listen": bound.listen.to_string(), "address": bound.address.to_string() })
}

fn snapshot_value(snapshot: &Snapshot, listeners: Vec<Value>) -> Value {
    let workload = &snapshot.workload;
    let serves = match &workload.tenants {
        ServedTenants::One(tenant) => json!([tenant.as_str()]),
        ServedTenants::Some(tenants) => tenants.iter().map(|tenant| tenant.as_str()).collect(),
        ServedTenants::Any => json!(["*"]),
    };
    let mut tenants: Vec<&Arc<TenantPolicy>> = snapshot.tenants.values().collect();
    tenants.sort_by(|a, b| a.id.cmp(&b.id));
    json!({
        "generation": snapshot.generation,
        "identityGeneration": snapshot.identity_generation,
        "workload": {
            "name": workload.name.as_str(),
            "tenants": serves,
            "inbound": workload.inbound.iter().map(|inbound| json!({
                "listen": inbound.listen.to_string(),
                "upstream": inbound.upstream.to_string(),
                "public": inbound.public.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tls": inbound.tls.as_ref().map(|tls| tls.certificate.display().to_string()),
                "mtls": inbound.mtls,
                "forwardToken": inbound.forward_token,
            })).collect::<Vec<_>>(),
            "egress": workload.outbound.as_ref().map(|outbound| json!({
                "listen": outbound.listen.to_string(),
                "capture": match outbound.capture { Capture::None => "none", Capture::Redirect => "redirect" },
            })),
        },
        "listeners": listeners,
        "versions": snapshot.versions.iter().map(|v| json!({ "kind": v.kind, "name": &*v.name, "version": &*v.version })).collect::<Vec<_>>(),
        "issuers": snapshot.issuers.iter().map(|issuer| json!({
            "name": issuer.name.as_str(),
            "issuer": issuer.issuer,
            "audiences": issuer.audiences,
            "keys": issuer.keys.len(),
        })).collect::<Vec<_>>(),
        "dnsLimits": snapshot.budget.limits().iter().map(|limit| json!({
            "rule": limit.rule.as_str(),
            "count": limit.count.as_str(),
            "rate": limit.quota.rate.to_string(),
            "burst": limit.quota.burst,
            "key": match limit.key { Key::Tenant => "tenant", Key::Domain => "domain" },
            "mode": match limit.mode { Mode::Enforce => "enforce", Mode::Shadow => "shadow" },
        })).collect::<Vec<_>>(),
        "tenantCount": tenants.len(),
        "tenants": tenants.iter().take(MAX_TENANTS).map(|tenant| tenant_value(snapshot, tenant)).collect::<Vec<_>>(),
    })
}

fn tenant_value(snapshot: &Snapshot, tenant: &TenantPolicy) -> Value {
    json!({
        "name": tenant.id.as_str(),
        "inFlight": snapshot.platform.in_flight(tenant),
        "peers": tenant.peers.iter().map(|peer| peer.as_str()).collect::<Vec<_>>(),
        "limits": tenant.limits.iter().map(|limit| json!({
            "name": &*limit.name,
            "rate": limit.quota.rate.to_string(),
            "burst": limit.quota.burst,
            "key": match &limit.key {
                LimitKey::Tenant => "tenant".to_owned(),
                LimitKey::Subject => "subject".to_owned(),
                LimitKey::Claim(claim) => format!("claim:{claim}"),
            },
            "mode": match limit.mode { Mode::Enforce => "enforce", Mode::Shadow => "shadow" },
        })).collect::<Vec<_>>(),
        "inbound": match &tenant.inbound {
            ScopePolicy::Everywhere => json!("everywhere"),
            ScopePolicy::Rules(rules) => rules.iter().map(|rule| json!({
                "methods": rule.matcher.methods,
                "paths": rule.matcher.paths.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "scopes": rule.scopes,
            })).collect(),
        },
    })
}
