//! The connected sidecars: what each was sent, what it acknowledged, what it refused. Publishing here is what pushes.

mod accept;
pub mod ads;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ringfence_xds::{
    decode::Rejection,
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    resource::Kind,
    server::{Event, ResourceSet, Stream, StreamError},
};
use tokio::sync::{Notify, mpsc, watch};

use crate::compile::Delta;

/// Events that wait for whoever speaks with the operator; more are dropped, `status` keeps what they said.
const MAX_EVENTS: usize = 1024;
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
    stream: Stream,
    wake: Arc<Notify>,
    /// Refusals that no newer version has mended yet.
    rejections: BTreeMap<(Kind, String), Rejection>,
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

impl Fleet {
    pub fn new() -> (Arc<Self>, mpsc::Receiver<FleetEvent>) {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        (Arc::new(Self { inner: Mutex::default(), events, changed: watch::Sender::new(0) }), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No step leaves the state half changed, so that a poisoned lock is as good as any.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the published set; sends each stream what of it changed for it, and nothing to the others.
    pub fn publish(&self, delta: Delta) {
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
    pub(crate) fn open(self: &Arc<Self>, bound_to: Option<&str>, first: &DeltaDiscoveryRequest) -> Result<Session, OpenError> {
        let mut stream = Stream::default();
        let node = stream.introduce(first)?.ok_or(StreamError::NoNode)?;
        if node.len() > MAX_NODE_BYTES || node.chars().any(char::is_control) {
            return Err(OpenError::Node);
        }
        // `<workload>` or `<workload>/<instance>`.
        let workload = node.split_once('/').map_or(node.as_str(), |(workload, _)| workload).to_owned();
        if bound_to.is_some_and(|bound| bound != workload) {
            return Err(OpenError::Foreign);
        }
        let mut inner = self.lock();
        if inner.closing {
            return Err(Closing.into());
        }
        inner.opened += 1;
        let id = inner.opened;
        let wake = Arc::new(Notify::new());
        inner.streams.insert(id, Connected { workload, node, stream, wake: wake.clone(), rejections: BTreeMap::new() });
        Ok(Session { fleet: self.clone(), id, wake })
    }

    /// Whether some sidecar of `workload` enforces what is published for it.
    pub fn in_sync(&self, workload: &str) -> bool {
        let inner = self.lock();
        inner.streams.values().any(|c| c.workload == workload && c.stream.in_sync(&inner.set.view(&c.workload)))
    }

    /// Wakes whenever a sidecar came, went or answered.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn status(&self) -> Vec<NodeStatus> {
        let inner = self.lock();
        let mut nodes: Vec<NodeStatus> = inner
            .streams
            .values()
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
}

/// Why a stream is not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("node.id must be <workload> or <workload>/<instance>, at most {MAX_NODE_BYTES} bytes")]
    Node,
    #[error("this connection belongs to another workload")]
    Foreign,
    #[error(transparent)]
    Closing(#[from] Closing),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane ends")]
pub(crate) struct Closing;

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
        let Some(connected) = inner.streams.get_mut(&self.id) else { return Ok(Vec::new()) };
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
                    self.fleet.tell(FleetEvent::KeysWanted { issuers: names });
                }
                Event::Refresh { .. } => {}
                Event::Rejected(mut rejections) => {
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
        drop(inner);
        let due = self.due();
        // Also where nothing is due: a sidecar that comes with all that is published is in sync by that alone.
        self.fleet.changed.send_modify(|count| *count += 1);
        Ok(due)
    }

    /// After `wake`: the responses that are due now, unless it was for the end.
    pub(crate) fn woken(&self) -> Result<Vec<DeltaDiscoveryResponse>, Closing> {
        if self.fleet.lock().closing { Err(Closing) } else { Ok(self.due()) }
    }

    fn due(&self) -> Vec<DeltaDiscoveryResponse> {
        let mut inner = self.fleet.lock();
        let Inner { set, streams, .. } = &mut *inner;
        streams.get_mut(&self.id).map(|c| c.stream.due(&set.view(&c.workload))).unwrap_or_default()
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
