//! The control plane's half of delta ADS as a state machine, one per stream: what the node asked for, what it was sent, what it
//! acknowledged or refused. No sockets.
//!
//! A node sees only what its workload needs (`View`); a name outside that is answered exactly as one that does not exist. Nothing on the
//! stream counts or dates anything else: nonces count this stream's responses, versions hash content, `system_version_info` stays empty.

mod subscription;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::collections::{BTreeMap, HashSet};

use subscription::{MAX_NAME_BYTES, MAX_NAMES, Subscription};
pub use view::{ResourceSet, View};

use crate::{
    decode::Rejection,
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource},
    resource::{Kind, Resource},
};

/// Why a stream is ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("the first request of a stream must name its node")]
    NoNode,
    #[error("type_url is empty")]
    NoType,
    #[error("at most {MAX_NAMES} names of at most {MAX_NAME_BYTES} bytes may be subscribed to")]
    TooMany,
}

/// What a request meant, for whoever keeps the fleet's state. Answers to what was sent anew meanwhile are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// In force at the node, or gone from it, in the version it was last sent.
    Acked { kind: Kind, names: Vec<String> },
    /// Refused: the version before stays in force.
    Rejected(Vec<Rejection>),
    /// Asked for again though it was sent: the node takes it for stale. Each name once, of those that the stream subscribes to.
    Refresh { kind: Kind, names: Vec<String> },
}

/// One stream of one node.
#[derive(Debug, Default)]
pub struct Stream {
    node_known: bool,
    kinds: BTreeMap<Kind, Subscription>,
    responses: u64,
}

impl Stream {
    /// The node of this stream, known from its first request.
    pub fn introduce(&mut self, request: &DeltaDiscoveryRequest) -> Result<Option<String>, StreamError> {
        if self.node_known {
            return Ok(None); // bound for the stream's life: a later node is not looked at
        }
        match &request.node {
            Some(node) if !node.id.is_empty() => {
                self.node_known = true;
                Ok(Some(node.id.clone()))
            }
            _ => Err(StreamError::NoNode),
        }
    }

    /// Takes a request in: ACK, NACK, changed subscription, or several of them at once. `introduce` comes first.
    pub fn receive(&mut self, request: DeltaDiscoveryRequest) -> Result<Vec<Event>, StreamError> {
        if request.type_url.is_empty() {
            return Err(StreamError::NoType);
        }
        // Another product's client may ask for types that we have not got: they are none of ours to answer, the rest goes on.
        let Some(kind) = Kind::from_type_url(&request.type_url) else { return Ok(Vec::new()) };
        let subscription = self.kinds.entry(kind).or_default();
        let mut events = subscription.acknowledge(kind, &request);
        let names = subscription.resubscribe(request)?;
        if !names.is_empty() {
            events.push(Event::Refresh { kind, names });
        }
        Ok(events)
    }

    /// Something named so was published, changed or withdrawn; `view` is what this node may see since. Whether it concerns this stream.
    pub fn touch(&mut self, kind: Kind, name: &str, view: &View<'_>) -> bool {
        if kind == Kind::Workload && name == view.workload() {
            // Its references decide what this node may see.
            self.touch_all();
            return true;
        }
        let concerned = self.kinds.get_mut(&kind).is_some_and(|subscription| subscription.touch(name, view.sees(kind, name)));
        concerned | (view.leads_to_zones().any(|lead| lead == (kind, name)) && self.touch_zones())
    }

    /// As `touch` of each. Costs no more than what this stream asked for, however much was published.
    pub fn touch_each(&mut self, changed: &BTreeMap<Kind, HashSet<&str>>, view: &View<'_>) -> bool {
        if changed.get(&Kind::Workload).is_some_and(|names| names.contains(view.workload())) {
            self.touch_all();
            return true;
        }
        let mut concerned = false;
        for (kind, subscription) in &mut self.kinds {
            if let Some(names) = changed.get(kind) {
                concerned |= subscription.touch_each(names, |name| view.sees(*kind, name));
            }
        }
        let mut leads = view.leads_to_zones();
        let zones_may_differ = leads.any(|(kind, name)| changed.get(&kind).is_some_and(|names| names.contains(name)));
        concerned | (zones_may_differ && self.touch_zones())
    }

    /// What decides which zones may be seen has changed: every name of theirs that this stream asked for is to be looked at again.
    fn touch_zones(&mut self) -> bool {
        let zones = self.kinds.iter_mut().filter(|(kind, _)| matches!(kind, Kind::ZoneChunk | Kind::PolicyZone));
        zones.map(|(_, subscription)| subscription.touch_all()).count() > 0
    }

    /// Every name that this stream asked for is to be looked at again.
    pub fn touch_all(&mut self) {
        self.kinds.values_mut().for_each(Subscription::touch_all);
    }

    /// The responses that are due, in make-before-break order. What a client does not acknowledge holds back what would follow.
    pub fn due(&mut self, view: &View<'_>) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        for (kind, subscription) in &mut self.kinds {
            while let Some(upserts) = subscription.next_upserts(*kind, view) {
                self.responses += 1;
                subscription.sent(self.responses, &upserts, &[]);
                responses.push(response(*kind, self.responses, upserts, Vec::new()));
            }
        }
        for (kind, subscription) in self.kinds.iter_mut().rev() {
            while let Some(removed) = subscription.next_removals() {
                self.responses += 1;
                subscription.sent(self.responses, &[], &removed);
                responses.push(response(*kind, self.responses, Vec::new(), removed));
            }
        }
        responses
    }

    /// Whether this node enforces what is published: everything that its workload needs is acknowledged in its present version. Where no
    /// workload is published it enforces what was, if anything.
    pub fn in_sync(&self, view: &View<'_>) -> bool {
        let is_published = view.resource(Kind::Workload, view.workload()).is_some();
        is_published && view.required().all(|(kind, name)| self.is_current(kind, name, view))
    }

    /// Whether this node acknowledged what is published under a name: that there is nothing, if so.
    pub fn is_current(&self, kind: Kind, name: &str, view: &View<'_>) -> bool {
        self.kinds.get(&kind).is_some_and(|subscription| subscription.is_current(name, view.resource(kind, name)))
    }

    /// Names and versions in force at this node, as far as it has acknowledged: while it refuses a version, the one before.
    pub fn acked(&self) -> impl Iterator<Item = (Kind, &str, &str)> {
        self.kinds.iter().flat_map(|(kind, subscription)| subscription.in_force().map(|(name, version)| (*kind, name, version)))
    }
}

fn response(kind: Kind, nonce: u64, upserts: Vec<Resource>, removed: Vec<String>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.to_string(),
        resources: upserts.into_iter().map(wire).collect(),
        removed_resources: removed,
        ..DeltaDiscoveryResponse::default()
    }
}

fn wire(resource: Resource) -> WireResource {
    WireResource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        seal: resource.seal.map(|seal| seal.to_bytes()).unwrap_or_default(),
        resource: Some(prost_types::Any { type_url: resource.kind.type_url().into(), value: resource.bytes.into() }),
        ..WireResource::default()
    }
}
