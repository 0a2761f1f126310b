//! Decoded resources to a snapshot: the consistent set, or what is still missing for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ringfence_policy::{
    IssuerName, Snapshot, TenantId, ZoneName,
    budget::Budget,
    identify::IssuerPolicy,
    ratelimit::Mode,
    rpz::{self, Scope},
    snapshot::ResourceVersion,
    tenant::{PlatformPolicy, ServedTenants, TenantPolicy, WorkloadPolicy},
};

use crate::{
    decode::Decoded,
    resource::{Kind, PLATFORM, TRUST_BUNDLE},
};

/// What is known of a name.
#[derive(Clone, Debug)]
pub enum Known {
    /// It is in force with this meaning.
    Held(Decoded),
    /// The control plane says that there is none.
    Absent,
    /// It arrived, cannot be used, and no usable one came before: it holds up nothing but itself.
    Unusable,
}

/// Looks up what is known of a resource; `None`: nothing yet.
pub trait Lookup {
    fn known(&self, kind: Kind, name: &str) -> Option<&Known>;
    /// Held bindings: their names and whom they mean.
    fn bindings(&self) -> impl Iterator<Item = (&str, &TenantId)>;
    /// Everything held, for people to look at.
    fn versions(&self) -> Vec<ResourceVersion>;
}

/// Which names a workload's sidecar needs, given what it knows: the closure over references, but for the chunks of its zones: which of
/// those are still to be had, only whoever keeps the zones can tell. `bindings`: names of Binding resources that
/// tokens have asked for, which count only where the workload serves any tenant.
pub fn wanted(workload: &str, bindings: &BTreeSet<String>, known: &impl Lookup) -> BTreeMap<Kind, BTreeSet<String>> {
    let mut names: BTreeMap<Kind, BTreeSet<String>> = Kind::ALL.into_iter().map(|kind| (kind, BTreeSet::new())).collect();
    let mut want = |kind, name: &str| {
        names.entry(kind).or_default().insert(name.to_owned());
    };
    want(Kind::TrustBundle, TRUST_BUNDLE);
    want(Kind::Platform, PLATFORM);
    want(Kind::Workload, workload);
    if let Some(policy) = workload_of(workload, known) {
        policy.issuers.iter().for_each(|issuer| want(Kind::Issuer, issuer.as_str()));
        match &policy.tenants {
            ServedTenants::One(tenant) => want(Kind::Tenant, tenant.as_str()),
            ServedTenants::Some(tenants) => tenants.iter().for_each(|tenant| want(Kind::Tenant, tenant.as_str())),
            ServedTenants::Any => {
                bindings.iter().for_each(|binding| want(Kind::Binding, binding));
                let met = known.bindings().filter(|(binding, _)| bindings.contains(*binding));
                met.for_each(|(_, tenant)| want(Kind::Tenant, tenant.as_str()));
            }
        }
        if let Some(platform) = platform_of(known).flatten() {
            let zones = zones_of(policy, &platform, tenant_of(policy, known));
            zones.into_iter().for_each(|(_, zone, _)| want(Kind::PolicyZone, zone.as_str()));
        }
    }
    names
}

fn workload_of<'a>(name: &str, known: &'a impl Lookup) -> Option<&'a Arc<WorkloadPolicy>> {
    match known.known(Kind::Workload, name) {
        Some(Known::Held(Decoded::Workload(policy))) => Some(policy),
        _ => None,
    }
}

/// `None`: it has not arrived. `Some(None)`: nobody knows what was meant to hold for all.
fn platform_of(known: &impl Lookup) -> Option<Option<PlatformPolicy>> {
    Some(match known.known(Kind::Platform, PLATFORM)? {
        Known::Held(Decoded::Platform(platform)) => Some((**platform).clone()),
        Known::Absent => Some(PlatformPolicy::default()),
        _ => None,
    })
}

/// The tenant of a dedicated workload.
fn tenant_of<'a>(policy: &WorkloadPolicy, known: &'a impl Lookup) -> Option<&'a TenantPolicy> {
    let ServedTenants::One(id) = &policy.tenants else { return None };
    match known.known(Kind::Tenant, id.as_str()) {
        Some(Known::Held(Decoded::Tenant(tenant))) => Some(tenant),
        _ => None,
    }
}

/// The zones that a workload's queries go through, in order.
fn zones_of<'a>(
    policy: &'a WorkloadPolicy,
    platform: &'a PlatformPolicy,
    tenant: Option<&'a TenantPolicy>,
) -> Vec<(Scope, &'a ZoneName, Mode)> {
    let Some(dns) = &policy.dns else { return Vec::new() };
    let own = tenant.map_or(&dns.zones, |tenant| &tenant.dns);
    let platform = platform.zones.iter().map(|zone| (Scope::Platform, zone, Mode::Enforce));
    platform.chain(own.zones.iter().map(|zone| (Scope::Tenant, zone, own.mode))).collect()
}

/// See [`Snapshot::zones`]. The outer `None`: one of them is still awaited.
fn zones(policy: &WorkloadPolicy, platform: &PlatformPolicy, known: &impl Lookup) -> Option<Option<rpz::Policy>> {
    let tenant = tenant_of(policy, known);
    if policy.dns.is_some() && tenant.is_none() && matches!(policy.tenants, ServedTenants::One(_)) {
        return Some(None);
    }
    let mut in_force = Vec::new();
    let mut is_whole = true;
    for (scope, name, mode) in zones_of(policy, platform, tenant) {
        match known.known(Kind::PolicyZone, name.as_str())? {
            Known::Held(Decoded::PolicyZone(held)) => in_force.push(rpz::PolicyZone {
                name: held.manifest.name.clone(),
                zone: held.zone.clone()?,
                scope,
                r#override: held.manifest.r#override.clone(),
                mode,
                max_ttl: held.manifest.max_ttl,
            }),
            _ => is_whole = false,
        }
    }
    Some(is_whole.then(|| in_force.into_iter().collect()))
}

/// See [`Snapshot::budget`].
fn budget(policy: &WorkloadPolicy, platform: &PlatformPolicy, known: &impl Lookup) -> Budget {
    let Some(dns) = &policy.dns else { return Budget::default() };
    let own = tenant_of(policy, known).map_or(&dns.zones, |tenant| &tenant.dns);
    platform.dns_limits.iter().chain(&own.limits).cloned().collect()
}

/// Assembles the snapshot of `workload`, or `None` while something it refers to has neither arrived nor been told absent (the old
/// snapshot then stays: make before break), or while there is no such workload or no usable platform.
pub fn assemble(workload: &str, known: &impl Lookup, generation: u64, previous: Option<&Snapshot>) -> Option<Snapshot> {
    let policy = workload_of(workload, known)?.clone();
    let platform = platform_of(known)??;
    let mut issuers: Vec<Arc<IssuerPolicy>> = Vec::new();
    for name in &policy.issuers {
        if let Known::Held(Decoded::Issuer(issuer)) = known.known(Kind::Issuer, name.as_str())? {
            issuers.push(issuer.clone());
        }
    }
    let mut tenants: HashMap<TenantId, Arc<TenantPolicy>> = HashMap::new();
    let mut bindings: HashMap<IssuerName, HashMap<String, TenantId>> = HashMap::new();
    match &policy.tenants {
        ServedTenants::One(id) => add_tenant(id, known.known(Kind::Tenant, id.as_str())?, &mut tenants),
        ServedTenants::Some(ids) => {
            for id in ids {
                add_tenant(id, known.known(Kind::Tenant, id.as_str())?, &mut tenants);
            }
        }
        ServedTenants::Any => {
            for (_, id) in known.bindings() {
                if let Some(tenant) = known.known(Kind::Tenant, id.as_str()) {
                    add_tenant(id, tenant, &mut tenants);
                }
            }
        }
    }
    // A claim value that two tenants list means neither: whoever has to guess must not.
    let mut ambiguous = Vec::new();
    for tenant in tenants.values() {
        for identity in tenant.identities.iter().filter(|identity| policy.issuers.contains(&identity.issuer)) {
            let values = bindings.entry(identity.issuer.clone()).or_default();
            for value in &identity.values {
                if values.insert(value.clone(), tenant.id.clone()).is_some_and(|other| other != tenant.id) {
                    ambiguous.push((identity.issuer.clone(), value.clone()));
                }
            }
        }
    }
    for (issuer, value) in ambiguous {
        if let Some(values) = bindings.get_mut(&issuer) {
            values.remove(&value);
        }
    }
    // Not awaited: without it no peer is believed, and what needs none goes on.
    let trust = match known.known(Kind::TrustBundle, TRUST_BUNDLE) {
        Some(Known::Held(Decoded::TrustBundle(bundle))) => Some(bundle.clone()),
        _ => None,
    };
    let zones = zones(&policy, &platform, known)?;
    let budget = budget(&policy, &platform, known);
    let identity_generation = match previous {
        Some(previous) if same_issuers(previous, &issuers) => previous.identity_generation,
        _ => generation,
    };
    Some(Snapshot {
        generation,
        identity_generation,
        workload: policy,
        platform,
        trust,
        tenants,
        issuers,
        bindings,
        zones,
        budget,
        versions: known.versions(),
    })
}

fn add_tenant(id: &TenantId, known: &Known, tenants: &mut HashMap<TenantId, Arc<TenantPolicy>>) {
    if let Known::Held(Decoded::Tenant(tenant)) = known {
        tenants.insert(id.clone(), tenant.clone());
    }
}

/// Whether a token that was verified under `previous` would be verified alike now. An issuer that was not pushed again is the same
/// allocation. Which tenant a claim value means is not part of it: that is looked up in the snapshot at each request.
fn same_issuers(previous: &Snapshot, issuers: &[Arc<IssuerPolicy>]) -> bool {
    previous.issuers.len() == issuers.len() && previous.issuers.iter().zip(issuers).all(|(old, new)| Arc::ptr_eq(old, new))
}

#[cfg(test)]
mod tests;
