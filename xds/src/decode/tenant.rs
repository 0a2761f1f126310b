//! `Tenant`.

use std::collections::BTreeSet;

use ringfence_policy::{
    RuleRef, TenantId,
    scope::{AllowRule, ScopePolicy},
    tenant::{Identity, TenantPolicy},
};

use super::{
    Fault, Faults, MAX_VALUE_BYTES, Quoted, egress, is_claim_value,
    limits::{limits, request_match},
    zone::dns_zones,
};
use crate::generated::resource as proto;

const MAX_RULES: usize = 4096;
const MAX_VALUES: usize = 1024;
/// Tenants that one may have for peers.
pub const MAX_PEERS: usize = 1024;

pub fn tenant(name: &str, body: &proto::Tenant) -> Result<TenantPolicy, Vec<Fault>> {
    let mut faults = Faults::default();
    let id = faults.name(name);
    let identities = identities(&body.identity, &mut faults);
    let limits = limits(name, &body.limits, &mut faults);
    let inbound = match &body.inbound {
        None => ScopePolicy::Everywhere,
        Some(inbound) => ScopePolicy::Rules(allow_rules(name, &inbound.allow, &mut faults)),
    };
    let in_flight = faults.in_flight("inFlight", body.in_flight);
    let peers = peers(name, &body.peers, &mut faults);
    let egress = body.egress.as_ref().map(|body| egress::tenant(name, body, &mut faults)).unwrap_or_default();
    let whose = format!("Tenant/{name}");
    let dns = body.dns.as_ref().map(|dns| dns_zones(&whose, &dns.zones, &dns.mode, &dns.limits, &mut faults)).unwrap_or_default();
    faults.or_some(id.map(|id| TenantPolicy { id, identities, limits, in_flight, inbound, peers, egress, dns }))
}

fn identities(bodies: &[proto::Identity], faults: &mut Faults) -> Vec<Identity> {
    if bodies.is_empty() {
        faults.add("identity", "must name at least one issuer: without one nobody can be this tenant");
    }
    let mut seen = BTreeSet::new();
    let mut identities = Vec::with_capacity(bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        let issuer = faults.parse(format!("identity[{i}].issuer"), &body.issuer);
        if body.values.is_empty() || body.values.len() > MAX_VALUES {
            faults.add(format!("identity[{i}].values"), format!("must have from 1 to {MAX_VALUES} values"));
        }
        for (j, value) in body.values.iter().enumerate() {
            let path = format!("identity[{i}].values[{j}]");
            if !is_claim_value(value) {
                faults.add(path, format!("must be 1 to {MAX_VALUE_BYTES} bytes without control characters"));
            } else if !seen.insert((&body.issuer, value)) {
                faults.add(path, format!("{} of this issuer is already listed", Quoted(value)));
            }
        }
        if let Some(issuer) = issuer {
            identities.push(Identity { issuer, values: body.values.clone() });
        }
    }
    identities
}

/// The control plane has left only those in that have agreed: of what an operator wrote, the rest is looked at there.
fn peers(tenant: &str, names: &[String], faults: &mut Faults) -> BTreeSet<TenantId> {
    if names.len() > MAX_PEERS {
        faults.add("peers", format!("must be at most {MAX_PEERS} tenants"));
        return BTreeSet::new();
    }
    let mut peers = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        let path = format!("peers[{i}]");
        if name == tenant {
            faults.add(path, "is the tenant itself, whose workloads are each other's peers in any case");
        } else if let Some(peer) = faults.parse(path.clone(), name)
            && !peers.insert(peer)
        {
            faults.add(path, format!("{name:?} is already listed"));
        }
    }
    peers
}

fn allow_rules(tenant: &str, bodies: &[proto::AllowRule], faults: &mut Faults) -> Vec<AllowRule> {
    if bodies.len() > MAX_RULES {
        faults.add("inbound.allow", format!("must be at most {MAX_RULES} rules"));
        return Vec::new();
    }
    bodies
        .iter()
        .enumerate()
        .map(|(i, body)| {
            let path = format!("inbound.allow[{i}]");
            for (j, scope) in body.scopes.iter().enumerate() {
                // RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
                if scope.is_empty() || !scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                    faults.add(
                        format!("{path}.scopes[{j}]"),
                        format!("must be an OAuth scope: visible ASCII without space, \" and \\, not {}", Quoted(scope)),
                    );
                }
            }
            AllowRule {
                matcher: request_match(&path, &body.methods, &body.paths, faults),
                scopes: body.scopes.clone(),
                rule: RuleRef::new(format!("Tenant/{tenant}: {path}")),
            }
        })
        .collect()
}
