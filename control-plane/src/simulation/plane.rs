//! A replica of the control plane: the real fleet, over a signed set that follows the author's at its own pace. It has no key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ringfence_xds::{
    generated::discovery::DeltaDiscoveryResponse,
    resource::{Kind, Resource},
};

use super::{
    Broken, Mutation, Promise,
    author::Set,
    site::{TENANTS, edit_of, secret},
};
use crate::{fleet::Fleet, spec::Spec};

#[derive(Default)]
pub(super) struct Plane {
    /// The set that it has got, by its number; 0: it has lost it.
    pub(super) has: usize,
    running: Option<Running>,
    /// Of every resource, the latest edit that was ever published here.
    latest: BTreeMap<(Kind, Arc<str>), u32>,
}

struct Running {
    fleet: Arc<Fleet>,
    /// The set that is published.
    set: usize,
}

impl Plane {
    pub(super) fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.running.as_ref().map(|running| &running.fleet)
    }

    /// Whoever has its sessions drops them.
    pub(super) fn crash(&mut self) {
        self.running = None;
    }

    pub(super) fn start(&mut self, sets: &[Set]) -> Result<(), Broken> {
        self.running = Some(Running { fleet: Fleet::new().0, set: 0 });
        self.take_up(sets, None)
    }

    /// Publishes what it has got.
    pub(super) fn take_up(&mut self, sets: &[Set], mutation: Option<Mutation>) -> Result<(), Broken> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let next = if mutation == Some(Mutation::StoreGoesBack) { self.has / 2 } else { self.has };
        let delta = sets[running.set].until(&sets[next]);
        for resource in &delta.upserts {
            let Some(edit) = edit_of(resource) else { continue };
            let latest = self.latest.entry((resource.kind, resource.name.clone())).or_default();
            if edit < *latest {
                return Err(Promise::NoRollback.broken(format!("{}/{} of edit {edit} after {latest}", resource.kind, resource.name)));
            }
            *latest = edit;
        }
        running.set = next;
        running.fleet.publish(delta);
        Ok(())
    }

    fn set<'a>(&self, sets: &'a [Set]) -> &'a Set {
        &sets[self.running.as_ref().map_or(0, |running| running.set)]
    }

    /// What it has in force under a name.
    pub(super) fn in_force<'a>(&self, kind: Kind, name: &str, sets: &'a [Set]) -> Option<&'a Resource> {
        self.set(sets).resources.get(&(kind, name.into()))
    }

    /// Whom a workload serves as its object has it, not as its resource says: `None`, any. A workload that is not in force serves nobody.
    fn serves(&self, workload: &str, sets: &[Set]) -> Option<BTreeSet<String>> {
        let spec = self.set(sets).objects.iter().filter(|object| *object.key.name == *workload).find_map(|object| match &object.spec {
            Spec::Workload(spec) => Some(spec),
            _ => None,
        });
        let tenants: BTreeSet<String> =
            spec.into_iter().flat_map(|spec| spec.tenant.iter().chain(spec.tenants.iter().flatten())).cloned().collect();
        (!tenants.contains("*")).then_some(tenants)
    }

    /// The issuers that these tenants name.
    fn issuers(&self, tenants: &BTreeSet<String>, sets: &[Set]) -> BTreeSet<String> {
        let objects = self.set(sets).objects.iter();
        let named = objects.filter(|object| tenants.contains(&*object.key.name)).filter_map(|object| match &object.spec {
            Spec::Tenant(tenant) => Some(&tenant.identity),
            _ => None,
        });
        named.flatten().map(|identity| identity.issuer.clone()).collect()
    }

    /// What a stream of `workload` may be told: its own, that of its tenants, and not one octet of any other tenant.
    pub(super) fn may_tell(&self, workload: &str, response: &DeltaDiscoveryResponse, sets: &[Set]) -> Result<(), Broken> {
        let Some(tenants) = self.serves(workload, sets) else {
            let other =
                response.resources.iter().find(|resource| response.type_url == Kind::Workload.type_url() && resource.name != workload);
            return other.map_or(Ok(()), |other| Err(Promise::Isolation.broken(format!("{workload} is told of {}", other.name))));
        };
        let issuers = self.issuers(&tenants, sets);
        let kind = Kind::from_type_url(&response.type_url);
        for resource in &response.resources {
            let its_own = match kind {
                Some(Kind::Platform) => !tenants.is_empty(),
                Some(Kind::Workload) => resource.name == workload,
                Some(Kind::Tenant) => tenants.contains(&resource.name),
                Some(Kind::Issuer) => issuers.contains(&resource.name),
                _ => false,
            };
            let body = resource.resource.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
            let foreign = TENANTS.into_iter().filter(|tenant| !tenants.contains(*tenant));
            let leak = foreign.into_iter().find(|tenant| contains(body, secret(tenant).as_bytes()));
            if !its_own || leak.is_some() {
                return Err(Promise::Isolation.broken(format!("{workload} is told of {} ({leak:?})", resource.name)));
            }
        }
        Ok(())
    }
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|octets| octets == part)
}
