//! The connected sidecars: what each was sent, what it acknowledged, what it refused. Publishing here is what pushes.

mod accept;
pub mod ads;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ringfence_xds::{
    decode::{self, Decoded, Rejection},
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    policy::spiffe::Member,
    resource::{Kind, Resource, TRUST_BUNDLE},
    server::{Event, ResourceSet, Stream, StreamError, View},
};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    admin::{remote::Listed, roles::Extent},
    compile::Delta,
    say::say,
    signing::{
        Signer,
        set::{Draft, SetError},
    },
    trust::Peer,
};

/// Events that wait for whoever speaks with the operator; more are dropped, `status` keeps what they said.
const MAX_EVENTS: usize = 1024;
/// Refusals of one stream that are kept for `status`, and told: whoever refuses more has said enough.
const MAX_REJECTIONS: usize = 256;
/// Longest name of a node, in bytes: two names of Kubernetes and a slash.
const MAX_NODE_BYTES: usize = 512;

/// What a sidecar did, told to whoever speaks with the operator.
#[derive(Clone, Debug)]
pub enum FleetEvent {
    Rejected {
        workload: String,
        rejections: Vec<Rejection>,
    },
    Disconnected {
        workload: String,
    },
    /// Tokens name keys that these issuers have not got.
    KeysWanted {
        issuers: Vec<String>,
    },
}

/// Shared by the streams and the publisher. The lock is held for one state-machine step at a time and never across an await.
#[derive(Debug)]
pub struct Fleet {
    inner: Mutex<Inner>,
    events: mpsc::Sender<FleetEvent>,
    /// Held as long as it takes to publish, so that what is signed later is published later. `None`: what is published stays as it comes.
    signer: Mutex<Option<Signer>>,
    /// Counts changes of what `status` and `in_sync` would say.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    set: ResourceSet,
    streams: HashMap<u64, Connected>,
    opened: u64,
    /// Whether the streams are to end.
    closing: bool,
}

#[derive(Debug)]
struct Connected {
    /// The workload that this stream is bound to, and the node as it named itself.
    workload: String,
    node: String,
    /// What it is bound by, where that is an SVID.
    peer: Option<Arc<Peer>>,
    /// The stream is to end: nobody vouches for its peer any more, or for another.
    disowned: bool,
    stream: Stream,
    wake: Arc<Notify>,
    /// Refusals that no newer version has mended yet.
    rejections: BTreeMap<(Kind, String), Rejection>,
}

impl Connected {
    /// The responses that are due now.
    fn due(&mut self, set: &ResourceSet) -> Vec<DeltaDiscoveryResponse> {
        self.stream.due(&set.view(&self.workload))
    }

    fn disown(&mut self) {
        self.disowned = true;
        self.wake.notify_one();
    }
}

/// What a stream is bound to before its first request.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    /// A workload, by its socket.
    Workload(Arc<str>),
    /// Whom an SVID names, for as long as that is a published workload.
    Peer(Arc<Peer>),
    /// Nothing: what the node says of itself is believed.
    Nothing,
}

/// One sidecar as `status` shows it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub node: String,
    pub workload: String,
    /// Everything that the workload needs is acknowledged in its present version.
    pub in_sync: bool,
    pub acknowledged: usize,
    pub rejections: Vec<String>,
}

/// What connected sidecars have to say of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    /// Sidecars whose policy is not complete without it.
    pub(crate) concerned: u32,
    /// Of these: those that acknowledged it in its present version.
    pub(crate) enforcing: u32,
    /// Workload, field below `spec` and message of each refusal.
    pub(crate) rejections: Vec<(String, String, String)>,
}

impl Fleet {
    pub fn new() -> (Arc<Self>, mpsc::Receiver<FleetEvent>) {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let (inner, signer) = (Mutex::default(), Mutex::default());
        (Arc::new(Self { inner, events, signer, changed: watch::Sender::new(0) }), receiver)
    }

    /// From now on whatever is published goes under the signer's seal. Before anything is.
    pub fn sign(&self, mut signer: Signer) {
        let first = signer.begin();
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = Some(signer);
        match first {
            Ok(delta) => self.put(delta),
            Err(error) => say(format_args!("ringfence: {error}")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No step leaves the state half changed, so that a poisoned lock is as good as any.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the published set; sends each stream what of it changed for it, and nothing to the others.
    pub fn publish(&self, delta: Delta) {
        let mut signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        if delta.upserts.is_empty() && delta.removed.is_empty() {
            return;
        }
        match &mut *signer {
            None => self.put(delta),
            Some(signer) => match signer.seal(delta) {
                Ok(delta) => self.put(delta),
                Err(error) => say(format_args!("ringfence: {error}; nothing was changed")),
            },
        }
    }

    /// Publishes what was signed before under the seals that it came with: sidecars that have newer judge it by them, and keep theirs.
    pub(crate) fn publish_signed(&self, upserts: Vec<Resource>) {
        let _signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(Delta { upserts, removed: Vec::new() });
    }

    /// Everything that is published.
    pub fn resources(&self) -> Vec<Resource> {
        self.lock().set.iter().cloned().collect()
    }

    /// The workloads that are published.
    pub(crate) fn workloads(&self) -> BTreeSet<String> {
        let inner = self.lock();
        inner.set.iter().filter(|resource| resource.kind == Kind::Workload).map(|resource| resource.name.to_string()).collect()
    }

    /// At which something was published last; `None`: nothing is signed.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Signer::epoch)
    }

    /// Everything that is published as a file, for those who serve it without the key; yields its epoch. An error where nothing is signed.
    pub fn write_signed(&self, path: &Path) -> Result<u64, SetError> {
        // Nothing is published while they are taken, so that the epoch is that of the set; whatever takes longer holds nobody up.
        let (epoch, resources) = self.with_signer(|signer| Ok((signer.epoch(), self.resources())))?;
        let draft = Draft::of(epoch, &resources)?;
        let seal = self.with_signer(|signer| draft.seal(signer.key()))?;
        draft.write(path, &seal)?;
        Ok(epoch)
    }

    fn with_signer<T>(&self, then: impl FnOnce(&Signer) -> Result<T, SetError>) -> Result<T, SetError> {
        then(self.signer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().ok_or(SetError::Unsigned)?)
    }

    fn put(&self, delta: Delta) {
        let upserts: Vec<(Kind, Arc<str>)> = delta.upserts.iter().map(|resource| (resource.kind, resource.name.clone())).collect();
        let mut changed: BTreeMap<Kind, HashSet<&str>> = BTreeMap::new();
        for (kind, name) in upserts.iter().chain(&delta.removed) {
            changed.entry(*kind).or_default().insert(name);
        }
        if changed.is_empty() {
            return;
        }
        {
            let mut inner = self.lock();
            let Inner { set, streams, .. } = &mut *inner;
            for (kind, name) in &delta.removed {
                set.remove(*kind, name);
            }
            for resource in delta.upserts {
                set.insert(resource);
            }
            for connected in streams.values_mut() {
                let concerns = changed.get(&Kind::Workload).is_some_and(|names| names.contains(&*connected.workload));
                if concerns && connected.peer.as_ref().is_some_and(|peer| !peer.is(member(set, &connected.workload).as_ref())) {
                    connected.disown();
                }
                if connected.stream.touch_each(&changed, &set.view(&connected.workload)) {
                    connected.wake.notify_one();
                }
            }
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Ends every stream, refuses further ones, and returns when all have ended: never, while a sidecar takes nothing of what it is sent.
    /// Sidecars go on with what they have and come back to whoever serves next.
    pub async fn close(&self) {
        {
            let mut inner = self.lock();
            inner.closing = true;
            inner.streams.values().for_each(|connected| connected.wake.notify_one());
        }
        let mut changes = self.changes();
        // The sender of the changes is our own.
        let _ = changes.wait_for(|_| self.lock().streams.is_empty()).await;
    }

    /// Tells of it unless too much waits to be told already.
    fn tell(&self, event: FleetEvent) {
        let _ = self.events.try_send(event);
    }

    /// A stream opened; closed when the session is dropped.
    pub(crate) fn open(self: &Arc<Self>, bound: &Bound, first: &DeltaDiscoveryRequest) -> Result<Session, OpenError> {
        let mut stream = Stream::default();
        let node = stream.introduce(first)?.ok_or(StreamError::NoNode)?;
        if node.len() > MAX_NODE_BYTES || node.chars().any(char::is_control) {
            return Err(OpenError::Node);
        }
        // `<workload>` or `<workload>/<instance>`.
        let workload = node.split_once('/').map_or(node.as_str(), |(workload, _)| workload).to_owned();
        let mut inner = self.lock();
        let (is_theirs, peer) = match bound {
            Bound::Workload(bound) => (**bound == *workload, None),
            // Asked in one breath with what follows: who is disowned meanwhile is told by `publish`.
            Bound::Peer(peer) => (peer.is_of(&workload) && peer.is(member(&inner.set, &workload).as_ref()), Some(peer.clone())),
            Bound::Nothing => (true, None),
        };
        if !is_theirs {
            return Err(OpenError::Foreign);
        }
        if inner.closing {
            return Err(OpenError::Closing);
        }
        inner.opened += 1;
        let id = inner.opened;
        let wake = Arc::new(Notify::new());
        let (disowned, rejections) = Default::default();
        inner.streams.insert(id, Connected { workload, node, peer, disowned, stream, wake: wake.clone(), rejections });
        Ok(Session { fleet: self.clone(), id, wake })
    }

    /// Whether some sidecar of `workload` enforces what is published for it.
    pub fn in_sync(&self, workload: &str) -> bool {
        let inner = self.lock();
        inner.streams.values().any(|c| c.workload == workload && c.stream.in_sync(&inner.set.view(&c.workload)))
    }

    /// Whom the SVID of `workload`'s sidecar names; `None`: no such workload is published.
    pub(crate) fn member(&self, workload: &str) -> Option<Member> {
        member(&self.lock().set, workload)
    }

    /// By the number of the stream. For questions that take signatures to answer, and are asked without the lock.
    fn peers(&self) -> Vec<(u64, Arc<Peer>)> {
        let peer = |(id, connected): (&u64, &Connected)| Some((*id, connected.peer.clone()?));
        self.lock().streams.iter().filter_map(peer).collect()
    }

    /// Streams whose peer is such.
    pub(crate) fn count_peers(&self, is_such: impl Fn(&Peer) -> bool) -> usize {
        self.peers().iter().filter(|(_, peer)| is_such(peer)).count()
    }

    /// Ends the streams of the peers that are not `live` any more.
    pub(crate) fn retain_peers(&self, live: impl Fn(&Peer) -> bool) {
        let peers = self.peers();
        let disowned: Vec<u64> = peers.into_iter().filter(|(_, peer)| !live(peer)).map(|(id, _)| id).collect();
        let mut inner = self.lock();
        for id in disowned {
            inner.streams.get_mut(&id).into_iter().for_each(Connected::disown);
        }
    }

    /// Whether every connected sidecar has acknowledged the trust bundle in its present version.
    pub(crate) fn has_trust_bundle_everywhere(&self) -> bool {
        let inner = self.lock();
        let Some(bundle) = inner.set.get(Kind::TrustBundle, TRUST_BUNDLE) else { return false };
        let holds = |connected: &Connected| {
            let mut acked = connected.stream.acked();
            acked.any(|(kind, _, version)| kind == Kind::TrustBundle && *version == *bundle.version)
        };
        inner.streams.values().all(holds)
    }

    /// Wakes whenever a sidecar came, went or answered.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn status(&self) -> Vec<NodeStatus> {
        self.status_within(Extent::All)
    }

    /// The sidecars that `extent` takes in.
    pub(crate) fn status_within(&self, extent: Extent<'_>) -> Vec<NodeStatus> {
        let inner = self.lock();
        let mut nodes: Vec<NodeStatus> = inner
            .streams
            .values()
            .filter(|c| takes_in(extent, &inner.set.view(&c.workload)))
            .map(|c| NodeStatus {
                node: c.node.clone(),
                workload: c.workload.clone(),
                in_sync: c.stream.in_sync(&inner.set.view(&c.workload)),
                acknowledged: c.stream.acked().count(),
                rejections: c.rejections.values().map(Rejection::to_string).collect(),
            })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes
    }

    /// What the sidecar of `workload` may see, by kind and name. `None`: there is no such workload within `extent`.
    pub(crate) fn listed(&self, workload: &str, extent: Extent<'_>) -> Option<Vec<Listed>> {
        let inner = self.lock();
        let view = inner.set.view(workload);
        if !view.exists() || !takes_in(extent, &view) {
            return None;
        }
        let mut names: Vec<(Kind, &str)> =
            Kind::ALL.into_iter().flat_map(|kind| view.names(kind).into_iter().map(move |name| (kind, name))).collect();
        names.sort_unstable();
        let listed = names.into_iter().filter_map(|(kind, name)| view.resource(kind, name)).map(|resource| Listed {
            kind: resource.kind.as_str(),
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            bytes: resource.bytes.len(),
        });
        Some(listed.collect())
    }

    /// Of each resource that concerns a sidecar.
    pub(crate) fn acknowledged(&self) -> HashMap<(Kind, String), Acknowledgement> {
        let mut acknowledged: HashMap<(Kind, String), Acknowledgement> = HashMap::new();
        let streams: Vec<u64> = self.lock().streams.keys().copied().collect();
        // One stream at a time: the others are served meanwhile.
        for id in streams {
            let inner = self.lock();
            let Some(connected) = inner.streams.get(&id) else { continue };
            let view = inner.set.view(&connected.workload);
            for (kind, name) in view.required().collect::<HashSet<_>>() {
                let of = acknowledged.entry((kind, name.to_owned())).or_default();
                of.concerned += 1;
                of.enforcing += u32::from(view.resource(kind, name).is_some() && connected.stream.is_current(kind, name, &view));
            }
            for ((kind, name), rejection) in &connected.rejections {
                let of = acknowledged.entry((*kind, name.clone())).or_default();
                let told = rejection.faults.iter().map(|fault| (connected.workload.clone(), fault.path.clone(), fault.message.clone()));
                of.rejections.extend(told);
            }
        }
        acknowledged
    }

    /// A published issuer, as sidecars read it.
    pub(crate) fn issuer(&self, name: &str) -> Option<Decoded> {
        let inner = self.lock();
        let resource = inner.set.get(Kind::Issuer, name)?;
        decode::decode(resource.kind, &resource.name, &resource.bytes).ok()
    }

    pub(crate) fn census(&self) -> Census {
        let inner = self.lock();
        let in_sync = |c: &&Connected| c.stream.in_sync(&inner.set.view(&c.workload));
        Census {
            sidecars: inner.streams.len(),
            in_sync: inner.streams.values().filter(in_sync).count(),
            rejections: inner.streams.values().map(|c| c.rejections.len()).sum(),
            resources: inner.set.counts().collect(),
        }
    }
}

/// Whether a workload is a tenant's own: one that it shares tells of the others too.
fn takes_in(extent: Extent<'_>, view: &View<'_>) -> bool {
    match extent {
        Extent::All => true,
        Extent::Tenant(tenant) => view.tenant() == Some(tenant.as_str()),
    }
}

/// Counts, for the metrics.
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) sidecars: usize,
    pub(crate) in_sync: usize,
    pub(crate) rejections: usize,
    pub(crate) resources: HashMap<Kind, usize>,
}

fn member(set: &ResourceSet, workload: &str) -> Option<Member> {
    let tenant = set.tenant_of(workload)?;
    // Names that are published were decoded once.
    let tenant = tenant.map(str::parse).transpose().ok()?;
    Some(Member::Workload { tenant, workload: workload.parse().ok()? })
}

/// Why a stream is not opened, or does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("node.id must be <workload> or <workload>/<instance>, at most {MAX_NODE_BYTES} bytes")]
    Node,
    #[error("this connection belongs to another workload")]
    Foreign,
    #[error("the control plane ends")]
    Closing,
}

/// One open stream.
pub(crate) struct Session {
    fleet: Arc<Fleet>,
    id: u64,
    pub(crate) wake: Arc<Notify>,
}

impl Session {
    /// Takes a request in; the responses that are due then.
    pub(crate) fn receive(&self, request: DeltaDiscoveryRequest) -> Result<Vec<DeltaDiscoveryResponse>, StreamError> {
        let mut inner = self.fleet.lock();
        let Inner { set, streams, .. } = &mut *inner;
        let Some(connected) = streams.get_mut(&self.id).filter(|connected| !connected.disowned) else { return Ok(Vec::new()) };
        let events = connected.stream.receive(request)?;
        for event in events {
            match event {
                Event::Acked { kind, names } => {
                    for name in names {
                        connected.rejections.remove(&(kind, name));
                    }
                }
                // Of no other kind is there anything fresher than what is published.
                Event::Refresh { kind: Kind::Issuer, names } => {
                    let view = set.view(&connected.workload);
                    let issuers = names.into_iter().filter(|name| view.resource(Kind::Issuer, name).is_some()).collect();
                    self.fleet.tell(FleetEvent::KeysWanted { issuers });
                }
                Event::Refresh { .. } => {}
                Event::Rejected(mut rejections) => {
                    // Not of what there is not: such names have no end, and all of this is kept, and read by people.
                    let view = set.view(&connected.workload);
                    rejections.retain(|rejection| view.resource(rejection.kind, &rejection.name).is_some());
                    rejections.truncate(MAX_REJECTIONS.saturating_sub(connected.rejections.len()));
                    // Told once, however often the same version is asked for and refused again.
                    rejections.retain(|rejection| {
                        let key = (rejection.kind, rejection.name.clone());
                        connected.rejections.insert(key, rejection.clone()).as_ref() != Some(rejection)
                    });
                    if !rejections.is_empty() {
                        self.fleet.tell(FleetEvent::Rejected { workload: connected.workload.clone(), rejections });
                    }
                }
            }
        }
        let due = connected.due(set);
        drop(inner);
        // Also where nothing is due: a sidecar that comes with all that is published is in sync by that alone.
        self.fleet.changed.send_modify(|count| *count += 1);
        Ok(due)
    }

    /// After `wake`: the responses that are due now, unless it was for the end.
    pub(crate) fn woken(&self) -> Result<Vec<DeltaDiscoveryResponse>, OpenError> {
        let mut inner = self.fleet.lock();
        let Inner { set, streams, closing, .. } = &mut *inner;
        let Some(connected) = streams.get_mut(&self.id) else { return Ok(Vec::new()) };
        match (*closing, connected.disowned) {
            (true, _) => Err(OpenError::Closing),
            (false, true) => Err(OpenError::Foreign),
            (false, false) => Ok(connected.due(set)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let closed = self.fleet.lock().streams.remove(&self.id);
        if let Some(connected) = closed {
            self.fleet.tell(FleetEvent::Disconnected { workload: connected.workload });
        }
        self.fleet.changed.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests;
