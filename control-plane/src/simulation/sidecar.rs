//! A sidecar: the real client and the real assembly of snapshots, put together as the proxy's `config::apply` does, with a disk that may be
//! full and a process that may end at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ringfence_xds::{
    assemble::{self, Known, Lookup},
    client::{Client, Update},
    decode::{Decoded, Fault, Rejection},
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    policy::{Snapshot, tenant::ServedTenants},
    resource::{Kind, Resource},
    seal::Floor,
};

use super::{
    Broken, Mutation, Promise,
    author::config_keys,
    site::{can_listen, edit_of},
};

/// Name and version of everything that a snapshot was made of.
type Versions = BTreeMap<(&'static str, Arc<str>), Arc<str>>;

/// The latest edit of a resource that was acknowledged.
pub(super) type Acknowledged = BTreeMap<(Kind, Arc<str>), u32>;

#[derive(Default)]
pub(super) struct Disk {
    pub(super) full: bool,
    /// The last complete write.
    last_good: Option<Stored>,
    /// What was in force, and acknowledged, when the sidecar took it for written.
    expected: Option<(Versions, Acknowledged)>,
}

/// What outlives the process, as the proxy's `LastGood` keeps it.
struct Stored {
    resources: Vec<Resource>,
    floors: Vec<(Kind, String, Floor)>,
}

impl Disk {
    pub(super) fn lose(&mut self) {
        (self.last_good, self.expected) = (None, None);
    }
}

/// A running process.
pub(super) struct Sidecar {
    pub(super) workload: &'static str,
    client: Client,
    /// Bindings that tokens have asked for.
    pub(super) learnt: BTreeSet<String>,
    snapshot: Option<Arc<Snapshot>>,
    /// Decoded and not yet in force.
    applying: Option<Update>,
    /// In force and not yet on disk.
    pub(super) unstored: bool,
    acknowledged: Acknowledged,
    connected: bool,
    mutation: Option<Mutation>,
    /// Older versions that were refused.
    pub(super) outdated: u32,
}

impl Sidecar {
    /// From its last known good, if it has one.
    pub(super) fn start(workload: &'static str, disk: &Disk, mutation: Option<Mutation>) -> Result<Self, Broken> {
        let mut client = Client::new(workload);
        if mutation != Some(Mutation::SealsAreIgnored) {
            client = client.trusting(config_keys());
        }
        let mut sidecar = Self {
            workload,
            client,
            learnt: BTreeSet::new(),
            snapshot: None,
            applying: None,
            unstored: false,
            acknowledged: Acknowledged::new(),
            connected: false,
            mutation,
            outdated: 0,
        };
        if let Some(Stored { resources, floors }) = &disk.last_good {
            sidecar.client.restore_floors(floors.iter().cloned());
            let bindings = resources.iter().filter(|resource| resource.kind == Kind::Binding);
            sidecar.learnt = bindings.map(|resource| resource.name.to_string()).collect();
            let rejections = sidecar.client.restore(resources.iter().cloned());
            if !rejections.is_empty() {
                return Err(Promise::NoLoss.broken(format!("what was stored does not decode: {rejections:?}")));
            }
            sidecar.client.presume_absent(assemble::wanted(workload, &BTreeSet::new(), &sidecar.client));
        }
        sidecar.want();
        sidecar.swap();
        if let Some((versions, acknowledged)) = &disk.expected {
            sidecar.acknowledged.clone_from(acknowledged);
            let restored = sidecar.versions();
            if restored.as_ref() != Some(versions) {
                return Err(Promise::NoLoss.broken(format!("{workload} stored {versions:?} and comes back with {restored:?}")));
            }
        }
        Ok(sidecar)
    }

    pub(super) fn connect(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.connected = true;
        self.client.connected()
    }

    pub(super) fn disconnect(&mut self) {
        self.connected = false;
    }

    /// Whether the next response may be read.
    pub(super) fn is_idle(&self) -> bool {
        self.applying.is_none()
    }

    pub(super) fn receive(&mut self, response: DeltaDiscoveryResponse) -> Result<(), Broken> {
        let mut update = self.client.receive(response);
        if let Some(refused) = update.refused() {
            return Err(Promise::Convergence.broken(format!("{} refuses a whole response: {refused}", self.workload)));
        }
        let said = update.rejections.iter().flat_map(|rejection| &rejection.faults);
        self.outdated += said.filter(|fault| fault.message.contains("at an earlier epoch")).count() as u32;
        for upsert in &update.upserts {
            let Decoded::Workload(policy) = &upsert.decoded else { continue };
            if policy.inbound.iter().any(|listener| !can_listen(listener.listen.port())) {
                let faults = vec![Fault { path: "inbound[0].listen".into(), message: "cannot listen".into() }];
                update.rejections.push(Rejection { kind: Kind::Workload, name: policy.name.to_string(), faults });
            }
        }
        self.applying = Some(update);
        Ok(())
    }

    /// Puts in force what was received; the requests that follow.
    pub(super) fn finish(&mut self) -> Result<Vec<DeltaDiscoveryRequest>, Broken> {
        let Some(update) = self.applying.take() else { return Ok(Vec::new()) };
        let (kind, had) = (update.kind(), self.snapshot.is_some());
        let refused: BTreeSet<String> = update.rejections.iter().map(|rejection| rejection.name.clone()).collect();
        let before = self.held_of(kind, &refused);
        let mut requests = Vec::new();
        let answer = self.client.finish(update);
        if self.mutation == Some(Mutation::RefusalEmpties) {
            refused.iter().for_each(|name| self.client.forget(Kind::Workload, name));
        }
        let after = self.held_of(kind, &refused);
        if before != after {
            return Err(Promise::NoLoss.broken(format!("{} refuses a version: it had {before:?} and has {after:?}", self.workload)));
        }
        requests.extend(self.want());
        let complete = self.swap();
        if had && self.snapshot.is_none() {
            return Err(Promise::NoLoss.broken(format!("{} has no policy any more", self.workload)));
        }
        // Also what does not make a policy yet.
        self.acknowledge()?;
        self.unstored |= complete;
        self.keeps_to_its_own()?;
        requests.extend(answer);
        Ok(if self.connected { requests } else { Vec::new() })
    }

    fn held_of(&self, kind: Option<Kind>, names: &BTreeSet<String>) -> Vec<(Arc<str>, Arc<str>)> {
        let held = self.client.held().filter(|held| Some(held.kind) == kind && names.contains(&*held.name));
        held.map(|held| (held.name.clone(), held.version.clone())).collect()
    }

    /// What is held is no older than what was.
    fn acknowledge(&mut self) -> Result<(), Broken> {
        for resource in self.client.held() {
            let Some(edit) = edit_of(resource) else { continue };
            let latest = self.acknowledged.entry((resource.kind, resource.name.clone())).or_insert(edit);
            if edit < *latest {
                let (workload, kind, name) = (self.workload, resource.kind, &resource.name);
                return Err(Promise::NoRollback.broken(format!("{workload}: {kind}/{name} of edit {edit} after {latest}")));
            }
            *latest = edit;
        }
        Ok(())
    }

    /// The tenants in force are those that the workload in force serves.
    fn keeps_to_its_own(&self) -> Result<(), Broken> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let foreign = snapshot.tenants.keys().find(|tenant| match &snapshot.workload.tenants {
            ServedTenants::One(own) => own != *tenant,
            ServedTenants::Some(own) => !own.contains(*tenant),
            ServedTenants::Any => false,
        });
        foreign.map_or(Ok(()), |tenant| Err(Promise::Isolation.broken(format!("{} enforces {tenant:?}", self.workload))))
    }

    pub(super) fn store(&mut self, disk: &mut Disk) {
        if !std::mem::take(&mut self.unstored) || disk.full {
            return;
        }
        if self.mutation != Some(Mutation::ForgetsToStore) || disk.last_good.is_none() {
            let floors = self.client.floors().map(|(kind, name, floor)| (kind, name.to_owned(), floor));
            disk.last_good = Some(Stored { resources: self.client.held().cloned().collect(), floors: floors.collect() });
        }
        disk.expected = self.versions().map(|versions| (versions, self.acknowledged.clone()));
    }

    pub(super) fn refresh(&mut self, kind: Kind, name: &str) -> Option<DeltaDiscoveryRequest> {
        self.client.refresh(kind, name).filter(|_| self.connected)
    }

    /// Asks for what the policy refers to and for what was learnt.
    pub(super) fn want(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let wanted = assemble::wanted(self.workload, &self.learnt, &self.client);
        let requests: Vec<_> = wanted.into_iter().filter_map(|(kind, names)| self.client.want(kind, names)).collect();
        if self.connected { requests } else { Vec::new() }
    }

    fn swap(&mut self) -> bool {
        let generation = self.snapshot.as_ref().map_or(1, |snapshot| snapshot.generation + 1);
        let snapshot = assemble::assemble(self.workload, &self.client, generation, self.snapshot.as_deref());
        let complete = snapshot.is_some();
        self.snapshot = snapshot.map(Arc::new).or(self.snapshot.take());
        complete
    }

    /// What is in force.
    pub(super) fn versions(&self) -> Option<Versions> {
        let snapshot = self.snapshot.as_ref()?;
        Some(snapshot.versions.iter().map(|of| ((of.kind, of.name.clone()), of.version.clone())).collect())
    }

    /// Whether it still waits to be told what it wants to know.
    pub(super) fn waits(&self) -> bool {
        let wanted = assemble::wanted(self.workload, &self.learnt, &self.client);
        let mut names = wanted.iter().flat_map(|(kind, names)| names.iter().map(|name| (*kind, name)));
        names.any(|(kind, name)| !matches!(self.client.known(kind, name), Some(Known::Held(_) | Known::Absent)))
    }
}
