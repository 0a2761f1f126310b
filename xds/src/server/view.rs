//! What is published, and what of it one node may see.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use prost::Message;

use crate::{
    generated::resource as proto,
    resource::{Kind, PLATFORM, Resource},
};

/// Everything that is published, by kind and name.
#[derive(Debug, Default)]
pub struct ResourceSet {
    kinds: HashMap<Kind, HashMap<Arc<str>, Resource>>,
    /// The workloads' references, decoded once at publication.
    reach: HashMap<Arc<str>, Reach>,
}

/// What a workload's sidecar needs beside the workload itself.
#[derive(Debug)]
struct Reach {
    any_tenant: bool,
    tenants: BTreeSet<String>,
    issuers: BTreeSet<String>,
}

impl Reach {
    fn of(workload: proto::Workload) -> Self {
        let mut tenants = BTreeSet::from_iter(workload.tenants);
        let any_tenant = tenants.remove("*");
        tenants.extend(Some(workload.tenant).filter(|tenant| !tenant.is_empty()));
        Self { any_tenant, tenants, issuers: BTreeSet::from_iter(workload.issuers) }
    }
}

impl ResourceSet {
    /// Publishes a resource; `false`: it is there already with this very content.
    pub fn insert(&mut self, resource: Resource) -> bool {
        if self.get(resource.kind, &resource.name).is_some_and(|old| old.version == resource.version) {
            return false;
        }
        if resource.kind == Kind::Workload {
            match proto::Workload::decode(resource.bytes.clone()) {
                Ok(workload) => self.reach.insert(resource.name.clone(), Reach::of(workload)),
                // Whoever cannot say what it needs sees nothing.
                Err(_) => self.reach.remove(&resource.name),
            };
        }
        self.kinds.entry(resource.kind).or_default().insert(resource.name.clone(), resource);
        true
    }

    /// Withdraws a resource; `false`: there is none.
    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        if kind == Kind::Workload {
            self.reach.remove(name);
        }
        self.kinds.get_mut(&kind).is_some_and(|names| names.remove(name).is_some())
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.kinds.get(&kind)?.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.kinds.values().flat_map(HashMap::values)
    }

    /// What the node of `workload` may see. The one place where a name can become visible to a sidecar.
    pub fn view<'a>(&'a self, workload: &'a str) -> View<'a> {
        View { set: self, workload, reach: self.reach.get(workload) }
    }
}

/// The published set as one node sees it. A name outside it does not exist, as far as that node can tell.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    set: &'a ResourceSet,
    workload: &'a str,
    reach: Option<&'a Reach>,
}

impl<'a> View<'a> {
    pub(super) fn workload(&self) -> &'a str {
        self.workload
    }

    pub(super) fn sees(&self, kind: Kind, name: &str) -> bool {
        let Some(reach) = self.reach else { return false };
        match kind {
            Kind::Platform => name == PLATFORM,
            Kind::Workload => name == self.workload,
            Kind::Issuer => reach.issuers.contains(name),
            Kind::Tenant => reach.any_tenant || reach.tenants.contains(name),
            Kind::Binding => reach.any_tenant,
        }
    }

    pub fn resource(&self, kind: Kind, name: &str) -> Option<&'a Resource> {
        // Looked up before it is decided whether it may be seen: both ways of not being there take the same work.
        self.set.get(kind, name).filter(|_| self.sees(kind, name))
    }

    /// The visible names of a kind. Costs as much as this node may see, not as much as there is.
    pub fn names(&self, kind: Kind) -> Vec<&'a str> {
        let any_tenant = self.reach.is_some_and(|reach| reach.any_tenant);
        if any_tenant && matches!(kind, Kind::Tenant | Kind::Binding) {
            return self.set.kinds.get(&kind).into_iter().flat_map(HashMap::keys).map(|name| &**name).collect();
        }
        let listed = self.required().filter(|(of, name)| *of == kind && self.resource(kind, name).is_some());
        listed.map(|(_, name)| name).collect()
    }

    /// The names without which this node's policy is not complete. What it learns on demand is not among them.
    pub fn required(&self) -> impl Iterator<Item = (Kind, &'a str)> + use<'a> {
        let named = self.reach.into_iter().flat_map(|reach| {
            let issuers = reach.issuers.iter().map(|name| (Kind::Issuer, name.as_str()));
            let tenants = reach.tenants.iter().map(|name| (Kind::Tenant, name.as_str()));
            issuers.chain(tenants)
        });
        [(Kind::Platform, PLATFORM), (Kind::Workload, self.workload)].into_iter().chain(named)
    }
}
