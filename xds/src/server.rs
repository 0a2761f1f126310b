//! The control plane's half of delta ADS as a state machine, one per stream: what the node asked for, what it was sent, what it
//! acknowledged or refused. No sockets.
//!
//! A node sees only what its workload needs (`View`); a name outside that is answered exactly as one that does not exist. Nothing on the
//! stream counts or dates anything else: nonces count this stream's responses, versions hash content, `system_version_info` stays empty.

#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost::Message;

pub use view::{ResourceSet, View};

use crate::{
    client::REJECTIONS_TYPE_URL,
    decode::{Fault, Rejection},
    generated::{
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource},
        resource as proto,
    },
    resource::{Kind, Resource},
};

/// Names that one stream may subscribe to.
pub const MAX_NAMES: usize = 65_536;
/// Longest name looked at, in bytes: a binding is an issuer's name and a claim value of at most 256 bytes.
const MAX_NAME_BYTES: usize = 512;
/// Responses of one kind that may await their ACK; changes meanwhile coalesce, so that a client that does not read costs no memory.
const MAX_OUTSTANDING: usize = 4;
/// A response is cut here, well below the 4 MiB that gRPC clients accept by default.
const RESPONSE_BYTES: usize = 1024 * 1024;
/// Faults kept of one NACK.
const MAX_FAULTS: usize = 256;

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

/// What a request meant, for whoever keeps the fleet's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Acked { kind: Kind, names: Vec<String> },
    Rejected(Vec<Rejection>),
}

/// One stream of one node.
#[derive(Debug, Default)]
pub struct Stream {
    node_known: bool,
    kinds: BTreeMap<Kind, Subscription>,
    responses: u64,
}

#[derive(Debug, Default)]
struct Subscription {
    /// Whether a request of this kind was seen: only the first may be a legacy wildcard or tell initial versions.
    started: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    /// What the client was last sent (or said that it held); `None`: it was told that there is no such resource.
    sent: HashMap<String, Option<Sent>>,
    /// To be looked at before the next response; `true`: to be sent even if nothing changed.
    dirty: BTreeMap<String, bool>,
    /// Whether every visible name is to be looked at (a wildcard began, or what is visible changed).
    dirty_all: bool,
    /// Awaiting ACK or NACK: nonce and the names and versions sent.
    outstanding: BTreeMap<u64, Vec<(String, Option<String>)>>,
}

#[derive(Debug)]
struct Sent {
    version: String,
    acked: bool,
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
        let events = subscription.acknowledge(kind, &request);
        subscription.resubscribe(request)?;
        Ok(events)
    }

    /// Something named so has changed, come or gone. Whether this stream asked for it.
    pub fn touch(&mut self, kind: Kind, name: &str) -> bool {
        if let Some(subscription) = self.kinds.get_mut(&kind)
            && (subscription.wildcard || subscription.names.contains(name))
        {
            subscription.dirty.entry(name.to_owned()).or_insert(false);
            true
        } else {
            false
        }
    }

    /// What this node may see has changed: every name is to be looked at again.
    pub fn touch_all(&mut self) {
        for subscription in self.kinds.values_mut() {
            subscription.dirty_all = true;
        }
    }

    /// The responses that are due, in make-before-break order. Names that change while too many responses await their ACK stay dirty.
    pub fn due(&mut self, view: &View<'_>) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        let mut removals = Vec::new();
        for (kind, subscription) in &mut self.kinds {
            let (upserts, removed) = subscription.take_due(*kind, view);
            for batch in batches(upserts) {
                responses.push((*kind, batch, Vec::new()));
            }
            if !removed.is_empty() {
                removals.push((*kind, Vec::new(), removed));
            }
        }
        removals.reverse();
        responses.append(&mut removals);
        responses.into_iter().map(|(kind, upserts, removed)| self.response(kind, upserts, removed)).collect()
    }

    fn response(&mut self, kind: Kind, upserts: Vec<Resource>, removed: Vec<String>) -> DeltaDiscoveryResponse {
        self.responses += 1;
        let nonce = self.responses;
        let told = upserts
            .iter()
            .map(|r| (r.name.to_string(), Some(r.version.to_string())))
            .chain(removed.iter().map(|name| (name.clone(), None)));
        let told = told.collect();
        if let Some(subscription) = self.kinds.get_mut(&kind) {
            subscription.outstanding.insert(nonce, told);
        }
        DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: nonce.to_string(),
            resources: upserts.into_iter().map(wire).collect(),
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        }
    }

    /// Whether this node enforces what is published: everything that its workload needs is acknowledged in its present version.
    pub fn in_sync(&self, view: &View<'_>) -> bool {
        view.required().all(|(kind, name)| {
            self.kinds.get(&kind).is_some_and(|subscription| {
                !subscription.dirty.contains_key(name)
                    && !subscription.dirty_all
                    && subscription.is_current(name, view.resource(kind, name))
            })
        })
    }

    /// Names and versions acknowledged by this node.
    pub fn acked(&self) -> impl Iterator<Item = (Kind, &str, &str)> {
        self.kinds.iter().flat_map(|(kind, subscription)| {
            subscription.sent.iter().filter_map(|(name, sent)| {
                let sent = sent.as_ref().filter(|sent| sent.acked)?;
                Some((*kind, name.as_str(), sent.version.as_str()))
            })
        })
    }
}

impl Subscription {
    fn acknowledge(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) -> Vec<Event> {
        // A nonce of another stream, or one already answered, is no answer to anything.
        let told = request.response_nonce.parse().ok().and_then(|nonce: u64| self.outstanding.remove(&nonce));
        let Some(told) = told else { return Vec::new() };
        let rejections = match &request.error_detail {
            None => Vec::new(),
            Some(detail) => rejections(kind, detail, &told),
        };
        let rejected = |name: &str| rejections.iter().any(|rejection| rejection.name == name);
        let mut acked = Vec::new();
        for (name, version) in told {
            if rejected(&name) {
                continue;
            }
            if let (Some(Some(sent)), Some(version)) = (self.sent.get_mut(&name), version)
                && sent.version == version
            {
                sent.acked = true;
            }
            acked.push(name);
        }
        let mut events = Vec::new();
        if !acked.is_empty() {
            events.push(Event::Acked { kind, names: acked });
        }
        if !rejections.is_empty() {
            events.push(Event::Rejected(rejections));
        }
        events
    }

    fn resubscribe(&mut self, request: DeltaDiscoveryRequest) -> Result<(), StreamError> {
        let first = !std::mem::replace(&mut self.started, true);
        let (subscribe, unsubscribe) = (request.resource_names_subscribe, request.resource_names_unsubscribe);
        if self.names.len() + subscribe.len() > MAX_NAMES
            || request.initial_resource_versions.len() > MAX_NAMES
            || subscribe.iter().any(|name| name.len() > MAX_NAME_BYTES)
        {
            return Err(StreamError::TooMany);
        }
        if first {
            for (name, version) in request.initial_resource_versions {
                if name.len() <= MAX_NAME_BYTES {
                    // Held by the client from an earlier stream, where it acknowledged it.
                    self.sent.insert(name, Some(Sent { version, acked: true }));
                }
            }
            if subscribe.is_empty() && unsubscribe.is_empty() {
                self.begin_wildcard();
            }
        }
        // Unsubscribing first: a name in both lists is asked for anew.
        for name in unsubscribe {
            if name == "*" {
                self.wildcard = false;
                let names = &self.names;
                self.sent.retain(|name, _| names.contains(name));
                self.dirty.retain(|name, _| names.contains(name));
            } else if self.names.remove(&name) {
                if self.wildcard {
                    self.dirty.insert(name, true); // must be answered: the client cannot know whether the wildcard still brings it
                } else {
                    self.sent.remove(&name);
                    self.dirty.remove(&name);
                }
            }
        }
        for name in subscribe {
            if name == "*" {
                self.begin_wildcard();
                continue;
            }
            // Asked for again though held: answered though nothing changed. On a stream's first request only what differs is.
            let again = !first;
            self.names.insert(name.clone());
            let forced = self.dirty.entry(name).or_insert(again);
            *forced |= again;
        }
        if first && !self.wildcard {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
        }
        Ok(())
    }

    fn begin_wildcard(&mut self) {
        self.wildcard = true;
        self.dirty_all = true;
    }

    /// Every name that this subscription covers: those asked for, and with the wildcard those visible or sent.
    fn visible_names(&self, kind: Kind, view: &View<'_>) -> BTreeSet<String> {
        let mut names = self.names.clone();
        if self.wildcard {
            names.extend(view.names(kind).map(str::to_owned));
            names.extend(self.sent.keys().cloned());
        }
        names
    }

    fn is_current(&self, name: &str, resource: Option<&Resource>) -> bool {
        match (resource, self.sent.get(name)) {
            (Some(resource), Some(Some(sent))) => sent.acked && *resource.version == *sent.version,
            (None, Some(None)) => true,
            _ => false,
        }
    }

    fn take_due(&mut self, kind: Kind, view: &View<'_>) -> (Vec<Resource>, Vec<String>) {
        let (mut upserts, mut removed) = (Vec::new(), Vec::new());
        if self.outstanding.len() >= MAX_OUTSTANDING {
            return (upserts, removed);
        }
        if std::mem::take(&mut self.dirty_all) {
            for name in self.visible_names(kind, view) {
                self.dirty.entry(name).or_insert(false);
            }
        }
        for (name, forced) in std::mem::take(&mut self.dirty) {
            match view.resource(kind, &name) {
                Some(resource) => {
                    let held = matches!(self.sent.get(&name), Some(Some(sent)) if *sent.version == *resource.version);
                    if !held || forced {
                        self.sent.insert(name, Some(Sent { version: resource.version.to_string(), acked: false }));
                        upserts.push(resource.clone());
                    }
                }
                None => {
                    let told_absent = matches!(self.sent.get(&name), Some(None));
                    let held = matches!(self.sent.get(&name), Some(Some(_)));
                    if self.names.contains(&name) {
                        if !told_absent || forced {
                            self.sent.insert(name.clone(), None);
                            removed.push(name);
                        }
                    } else if held || forced {
                        // Known through the wildcard alone, or just given up under it: nothing to remember of it.
                        self.sent.remove(&name);
                        removed.push(name);
                    }
                }
            }
        }
        (upserts, removed)
    }
}

fn wire(resource: Resource) -> WireResource {
    WireResource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(prost_types::Any { type_url: resource.kind.type_url().into(), value: resource.bytes.into() }),
        ..WireResource::default()
    }
}

/// Cuts resources into responses of about `RESPONSE_BYTES`.
fn batches(resources: Vec<Resource>) -> Vec<Vec<Resource>> {
    let mut batches: Vec<Vec<Resource>> = Vec::new();
    let mut room = 0;
    for resource in resources {
        let size = resource.bytes.len() + 256;
        match batches.last_mut() {
            Some(batch) if size <= room => {
                room -= size;
                batch.push(resource);
            }
            _ => {
                room = RESPONSE_BYTES.saturating_sub(size);
                batches.push(vec![resource]);
            }
        }
    }
    batches
}

/// Which resources of a response a NACK refuses: those that its details name, or, from a client that gives none, all of them.
fn rejections(kind: Kind, detail: &crate::generated::discovery::Status, told: &[(String, Option<String>)]) -> Vec<Rejection> {
    let named = detail
        .details
        .iter()
        .filter(|any| any.type_url == REJECTIONS_TYPE_URL)
        .filter_map(|any| proto::Rejections::decode(any.value.as_slice()).ok())
        .flat_map(|list| list.rejections)
        .filter(|rejection| rejection.type_url == kind.type_url() && told.iter().any(|(name, _)| *name == rejection.name))
        .take(MAX_NAMES)
        .map(|rejection| Rejection {
            kind,
            name: rejection.name,
            faults: rejection.faults.into_iter().take(MAX_FAULTS).map(|fault| Fault { path: fault.path, message: fault.message }).collect(),
        })
        .collect::<Vec<_>>();
    if !named.is_empty() {
        return named;
    }
    let fault = Fault { path: String::new(), message: detail.message.chars().take(4096).collect() };
    told.iter().map(|(name, _)| Rejection { kind, name: name.clone(), faults: vec![fault.clone()] }).collect()
}
