//! Which tenants' workloads may be each other's peers: those that list each other.
//!
//! That one lists another which does not list it back is no fault, and is told nowhere: whoever reads one tenant's faults would learn from
//! its absence what stands in the other's spec. It has no effect until the other does.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_xds::{
    decode::MAX_PEERS,
    policy::{NameError, name::is_dns_label},
};

use crate::spec::{Fault, Object, Spec, TenantSpec, quoted};

/// Those of `tenant`'s peers that list it too. `spec_of`: another tenant's.
pub(crate) fn agreed<'a, 'b>(name: &str, tenant: &'a TenantSpec, spec_of: impl Fn(&str) -> Option<&'b TenantSpec>) -> BTreeSet<&'a str> {
    let lists_back = |peer: &&str| *peer != name && spec_of(peer).is_some_and(|other| other.peers.iter().any(|peer| peer == name));
    tenant.peers.iter().map(String::as_str).filter(lists_back).collect()
}

/// What is wrong with the peers of a tenant, as it stands in its own spec.
pub(super) fn check(object: &Object, faults: &mut Vec<Fault>) {
    let Spec::Tenant(tenant) = &object.spec else { return };
    if tenant.peers.len() > MAX_PEERS {
        faults.push(object.fault("spec.peers", format!("must be at most {MAX_PEERS} tenants")));
    }
    let mut first = BTreeMap::new();
    for (i, name) in tenant.peers.iter().enumerate() {
        let mut add = |message: String| faults.push(object.fault(format!("spec.peers[{i}]"), message));
        if !is_dns_label(name) {
            add(format!("{NameError}, not {}", quoted(name)));
        } else if *name == *object.key.name {
            add("is the tenant itself, whose workloads are each other's peers in any case".into());
        } else if let Some(other) = first.insert(name.as_str(), i) {
            add(format!("{} is already listed as peers[{other}]", quoted(name)));
        }
    }
    for (i, rule) in tenant.egress.iter().flat_map(|egress| &egress.allow).enumerate() {
        let Some(other) = rule.peer.as_ref().and_then(|peer| peer.tenant.as_deref()) else { continue };
        if *other != *object.key.name && is_dns_label(other) && !first.contains_key(other) {
            let message = format!("{} must stand in peers too, and list this tenant as its peer", quoted(other));
            faults.push(object.fault(format!("spec.egress.allow[{i}].peer.tenant"), message));
        }
    }
}
