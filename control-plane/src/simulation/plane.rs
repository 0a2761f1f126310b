//! A replica of the control plane: the real catalog and the real fleet, over a directory that follows the store at its own pace.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use ringfence_xds::{
    generated::discovery::DeltaDiscoveryResponse,
    resource::{Kind, Resource},
};

use super::{
    Broken, Mutation, Promise,
    site::{FILES, Form, Reader, Revision, TENANTS, epoch, secret},
};
use crate::{
    fleet::Fleet,
    spec::{Fault, Spec},
    store::Catalog,
};

pub(super) struct Plane {
    /// The revision that its directory holds; `None`: the directory is empty.
    pub(super) directory: Option<usize>,
    running: Option<Running>,
    /// Of every resource, the latest edit that was ever in force here.
    latest: BTreeMap<(Kind, Arc<str>), u32>,
}

struct Running {
    catalog: Catalog,
    fleet: Arc<Fleet>,
}

impl Plane {
    pub(super) fn new() -> Self {
        Self { directory: Some(0), running: None, latest: BTreeMap::new() }
    }

    pub(super) fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.running.as_ref().map(|running| &running.fleet)
    }

    /// Whoever has its sessions drops them.
    pub(super) fn crash(&mut self, reader: &mut Reader) {
        if let Some(running) = self.running.take() {
            reader.give_back(running.catalog.compiler);
        }
    }

    /// As `serve` does: with faults in the directory it does not start. Whether it did.
    pub(super) fn start(&mut self, history: &[Revision], reader: &mut Reader) -> Result<bool, Broken> {
        let mut catalog = Catalog::new(Path::new("/site")).map_err(|error| Promise::None.broken(error))?;
        catalog.compiler = reader.compiler();
        self.running = Some(Running { catalog, fleet: Fleet::new().0 });
        let faults = self.load(self.directory, history, reader)?;
        if !faults.is_empty() {
            self.crash(reader);
        }
        Ok(faults.is_empty())
    }

    pub(super) fn reload(&mut self, history: &[Revision], reader: &mut Reader, mutation: Option<Mutation>) -> Result<(), Broken> {
        let goes_back = mutation == Some(Mutation::StoreGoesBack);
        let directory = self.directory.map(|revision| if goes_back { revision / 2 } else { revision });
        self.load(directory, history, reader).map(drop)
    }

    /// Takes up a revision as the catalog does its directory; what is wrong with it.
    fn load(&mut self, directory: Option<usize>, history: &[Revision], reader: &mut Reader) -> Result<Vec<Fault>, Broken> {
        let Some(Running { catalog, fleet }) = &mut self.running else { return Ok(Vec::new()) };
        let (mut written, mut faults) = (Vec::new(), Vec::new());
        for (file, text) in directory.iter().flat_map(|revision| FILES.into_iter().zip(history[*revision])) {
            let parsed = reader.read(file, text);
            written.extend(parsed.objects.iter().cloned());
            faults.extend(parsed.faults.iter().cloned());
        }
        let unread = catalog.keep_unread(&mut written, &faults);
        let delta = catalog.settle(&written, &unread, &mut faults);
        for resource in &delta.upserts {
            let Some(epoch) = epoch(resource) else { continue };
            let latest = self.latest.entry((resource.kind, resource.name.clone())).or_default();
            if epoch < *latest {
                return Err(Promise::NoRollback.broken(format!("{}/{} of edit {epoch} after {latest}", resource.kind, resource.name)));
            }
            *latest = epoch;
        }
        let said: Vec<_> = directory.iter().flat_map(|revision| FILES.into_iter().zip(history[*revision])).collect();
        for (kind, name) in &delta.removed {
            let still = said.iter().find(|(file, text)| file.resource() == (*kind, &**name) && text.form != Form::Gone);
            if let Some((_, text)) = still {
                return Err(Promise::NoLoss.broken(format!("{kind}/{name} is withdrawn, whose file is {:?}", text.form)));
            }
        }
        fleet.publish(delta);
        Ok(faults)
    }

    /// What it has in force under a name.
    pub(super) fn in_force(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.running
            .iter()
            .flat_map(|running| running.catalog.resources())
            .find(|resource| resource.kind == kind && *resource.name == *name)
    }

    /// Whom a workload serves as its object has it, not as its resource says: `None`, any. A workload that is not in force serves nobody.
    fn serves(&self, workload: &str) -> Option<BTreeSet<String>> {
        let objects = self.running.iter().flat_map(|running| running.catalog.objects());
        let spec = objects.filter(|object| *object.key.name == *workload).find_map(|object| match &object.spec {
            Spec::Workload(spec) => Some(spec),
            _ => None,
        });
        let tenants: BTreeSet<String> =
            spec.into_iter().flat_map(|spec| spec.tenant.iter().chain(spec.tenants.iter().flatten())).cloned().collect();
        (!tenants.contains("*")).then_some(tenants)
    }

    /// The issuers that these tenants name.
    fn issuers(&self, tenants: &BTreeSet<String>) -> BTreeSet<String> {
        let objects = self.running.iter().flat_map(|running| running.catalog.objects());
        let named = objects.filter(|object| tenants.contains(&*object.key.name)).filter_map(|object| match &object.spec {
            Spec::Tenant(tenant) => Some(&tenant.identity),
            _ => None,
        });
        named.flatten().map(|identity| identity.issuer.clone()).collect()
    }

    /// What a stream of `workload` may be told: its own, that of its tenants, and not one octet of any other tenant.
    pub(super) fn may_tell(&self, workload: &str, response: &DeltaDiscoveryResponse) -> Result<(), Broken> {
        let Some(tenants) = self.serves(workload) else {
            let other =
                response.resources.iter().find(|resource| response.type_url == Kind::Workload.type_url() && resource.name != workload);
            return other.map_or(Ok(()), |other| Err(Promise::Isolation.broken(format!("{workload} is told of {}", other.name))));
        };
        let issuers = self.issuers(&tenants);
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
