//! What is published, and what of it one node may see.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use prost::Message;

use crate::{
    generated::resource as proto,
    resource::{Kind, PLATFORM, Resource, TRUST_BUNDLE},
    zone::Digest,
};

/// Everything that is published, by kind and name.
#[derive(Debug, Default)]
pub struct ResourceSet {
    kinds: HashMap<Kind, HashMap<Arc<str>, Resource>>,
    /// The workloads' references, decoded once at publication, as are the lists below.
    reach: HashMap<Arc<str>, Reach>,
    /// Of the Platform.
    platform_zones: BTreeSet<String>,
    /// Of the tenants that have any.
    tenant_zones: HashMap<Arc<str>, BTreeSet<String>>,
    /// The chunks of each PolicyZone.
    chunks: HashMap<Arc<str>, HashSet<String>>,
}

/// What a workload's sidecar needs beside the workload itself.
#[derive(Debug)]
struct Reach {
    any_tenant: bool,
    tenants: BTreeSet<String>,
    issuers: BTreeSet<String>,
    /// The tenant of a dedicated workload.
    tenant: Option<String>,
    /// `None`: it has no DNS. Else the policy zones that it names itself.
    zones: Option<BTreeSet<String>>,
}

impl Reach {
    fn of(workload: proto::Workload) -> Self {
        let mut tenants = BTreeSet::from_iter(workload.tenants);
        let any_tenant = tenants.remove("*");
        let tenant = Some(workload.tenant).filter(|tenant| !tenant.is_empty());
        tenants.extend(tenant.clone());
        let zones = workload.dns.map(|dns| BTreeSet::from_iter(dns.zones));
        Self { any_tenant, tenants, issuers: BTreeSet::from_iter(workload.issuers), tenant, zones }
    }
}

impl ResourceSet {
    /// Publishes a resource; `false`: it is there already with this very content. A later seal then takes the place of the earlier all the
    /// same, for those who had something else meanwhile.
    pub fn insert(&mut self, resource: Resource) -> bool {
        let old = self.kinds.get_mut(&resource.kind).and_then(|names| names.get_mut(&resource.name));
        if let Some(old) = old.filter(|old| old.version == resource.version) {
            if old.epoch() < resource.epoch() {
                old.seal = resource.seal;
            }
            return false;
        }
        self.refer(&resource);
        self.kinds.entry(resource.kind).or_default().insert(resource.name.clone(), resource);
        true
    }

    /// Takes in what a resource refers to, as far as that decides what may be seen. Whatever cannot be decoded refers to nothing.
    fn refer(&mut self, resource: &Resource) {
        let (name, bytes) = (resource.name.clone(), resource.bytes.clone());
        self.forget(resource.kind, &name);
        match resource.kind {
            Kind::Workload => self.reach.extend(proto::Workload::decode(bytes).ok().map(|workload| (name, Reach::of(workload)))),
            Kind::Platform => {
                let dns = proto::Platform::decode(bytes).ok().and_then(|platform| platform.dns);
                self.platform_zones.extend(dns.into_iter().flat_map(|dns| dns.zones));
            }
            Kind::Tenant => {
                let dns = proto::Tenant::decode(bytes).ok().and_then(|tenant| tenant.dns).filter(|dns| !dns.zones.is_empty());
                self.tenant_zones.extend(dns.map(|dns| (name, BTreeSet::from_iter(dns.zones))));
            }
            Kind::PolicyZone => {
                let pieces = proto::PolicyZone::decode(bytes).map(|zone| zone.pieces).unwrap_or_default();
                let chunk = |piece: proto::ZonePiece| piece.digest.as_ref().try_into().ok().map(|digest| Digest(digest).to_string());
                self.chunks.insert(name, pieces.into_iter().filter_map(chunk).collect());
            }
            Kind::TrustBundle | Kind::ZoneChunk | Kind::Issuer | Kind::Binding => {}
        }
    }

    fn forget(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Workload => drop(self.reach.remove(name)),
            Kind::Platform => self.platform_zones.clear(),
            Kind::Tenant => drop(self.tenant_zones.remove(name)),
            Kind::PolicyZone => drop(self.chunks.remove(name)),
            Kind::TrustBundle | Kind::ZoneChunk | Kind::Issuer | Kind::Binding => {}
        }
    }

    /// Withdraws a resource; `false`: there is none.
    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        self.forget(kind, name);
        self.kinds.get_mut(&kind).is_some_and(|names| names.remove(name).is_some())
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.kinds.get(&kind)?.get(name)
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, usize)> {
        self.kinds.iter().map(|(kind, names)| (*kind, names.len()))
    }

    /// The tenant of a workload, none of a shared one; `None`: no such workload is published.
    pub fn tenant_of(&self, workload: &str) -> Option<Option<&str>> {
        self.reach.get(workload).map(|reach| reach.tenant.as_deref())
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

    /// Whether there is such a workload.
    pub fn exists(&self) -> bool {
        self.reach.is_some()
    }

    /// The tenant of a dedicated workload.
    pub fn tenant(&self) -> Option<&'a str> {
        self.reach.and_then(|reach| reach.tenant.as_deref())
    }

    pub(super) fn sees(&self, kind: Kind, name: &str) -> bool {
        let Some(reach) = self.reach else { return false };
        match kind {
            Kind::TrustBundle => name == TRUST_BUNDLE,
            Kind::Platform => name == PLATFORM,
            Kind::Workload => name == self.workload,
            Kind::Issuer => reach.issuers.contains(name),
            Kind::Tenant => reach.any_tenant || reach.tenants.contains(name),
            Kind::Binding => reach.any_tenant,
            Kind::PolicyZone => self.zones().any(|zone| zone == name),
            Kind::ZoneChunk => self.zones().any(|zone| self.set.chunks.get(zone).is_some_and(|chunks| chunks.contains(name))),
        }
    }

    /// The policy zones that the workload's queries go through; one may be named twice.
    fn zones(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let set = self.set;
        let with_dns = self.reach.and_then(|reach| Some((reach, reach.zones.as_ref()?)));
        let names = with_dns.into_iter().flat_map(move |(reach, own)| {
            let tenant = reach.tenant.as_ref().and_then(|tenant| set.tenant_zones.get(tenant.as_str()));
            set.platform_zones.iter().chain(own).chain(tenant.into_iter().flatten())
        });
        names.map(String::as_str)
    }

    /// What decides, besides the workload itself, which zones this node may see, and which pieces of them.
    pub(super) fn leads_to_zones(&self) -> impl Iterator<Item = (Kind, &'a str)> + use<'a> {
        let tenant = self.reach.and_then(|reach| reach.tenant.as_deref()).map(|name| (Kind::Tenant, name));
        [(Kind::Platform, PLATFORM)].into_iter().chain(tenant).chain(self.zones().map(|name| (Kind::PolicyZone, name)))
    }

    pub fn resource(&self, kind: Kind, name: &str) -> Option<&'a Resource> {
        // Both are asked always: both ways of not being there take the same work.
        let (resource, sees) = (self.set.get(kind, name), self.sees(kind, name));
        resource.filter(|_| sees)
    }

    /// The visible names of a kind, but for chunks, which nobody asks for without their names. Costs as much as this node may see, not as
    /// much as there is.
    pub fn names(&self, kind: Kind) -> Vec<&'a str> {
        let any_tenant = self.reach.is_some_and(|reach| reach.any_tenant);
        if any_tenant && matches!(kind, Kind::Tenant | Kind::Binding) {
            return self.set.kinds.get(&kind).into_iter().flat_map(HashMap::keys).map(|name| &**name).collect();
        }
        let listed = self
            .required()
            .chain([(Kind::TrustBundle, TRUST_BUNDLE)])
            .filter(|(of, name)| *of == kind && self.resource(kind, name).is_some());
        listed.map(|(_, name)| name).collect()
    }

    /// The names without which this node's policy is not complete. What it learns on demand is not among them.
    pub fn required(&self) -> impl Iterator<Item = (Kind, &'a str)> + use<'a> {
        let named = self.reach.into_iter().flat_map(|reach| {
            let issuers = reach.issuers.iter().map(|name| (Kind::Issuer, name.as_str()));
            let tenants = reach.tenants.iter().map(|name| (Kind::Tenant, name.as_str()));
            issuers.chain(tenants)
        });
        let named = named.chain(self.zones().map(|name| (Kind::PolicyZone, name)));
        [(Kind::Platform, PLATFORM), (Kind::Workload, self.workload)].into_iter().chain(named)
    }
}
