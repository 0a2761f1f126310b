//! The sidecar's half of delta ADS as a state machine: what it wants, what it holds, what to answer. No sockets, no clock.
//!
//! Rules (Envoy's xds_protocol, gRPC A46): a response is acknowledged by its nonce; a NACK carries `error_detail`; resources of a response
//! that can be used are applied even when others of it cannot; a resource that cannot keeps its old meaning. Nonces die with the stream;
//! what is held outlives it and is told as `initial_resource_versions`. A resource's `ttl` is not honoured: policy must not vanish because
//! a heartbeat was late.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    assemble::{Known, Lookup},
    decode::{self, Decoded, Fault, Rejection},
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    nack,
    resource::{Kind, Resource},
};
use ringfence_policy::TenantId;

#[cfg(test)]
mod tests;

/// What a sidecar knows and wants.
#[derive(Debug)]
pub struct Client {
    node: Node,
    /// Whether this stream's first request, the only one that names the node, is still to be sent.
    introduce: bool,
    kinds: BTreeMap<Kind, Subscription>,
}

#[derive(Debug, Default)]
struct Subscription {
    wanted: BTreeSet<String>,
    /// Held with its version, or told absent.
    known: HashMap<String, Entry>,
    /// Names subscribed to on this stream.
    subscribed: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    version: String,
    known: Known,
    /// As received, for the last known good on disk. Absent names have none.
    resource: Option<Resource>,
}

/// A response, decoded and not yet in force: whoever applies it may still reject single resources (a listener that cannot be bound).
#[derive(Debug)]
pub struct Update {
    kind: Option<Kind>,
    type_url: String,
    nonce: String,
    /// Resources that decoded.
    pub upserts: Vec<Upsert>,
    pub removed: Vec<String>,
    pub rejections: Vec<Rejection>,
    /// Why the response as a whole is refused; nothing of it is used then.
    refused: Option<String>,
}

#[derive(Debug)]
pub struct Upsert {
    pub resource: Resource,
    pub decoded: Decoded,
    version: String,
}

impl Client {
    pub fn new(node_id: impl Into<String>) -> Self {
        let node = Node {
            id: node_id.into(),
            user_agent_name: "ringfence-proxy".into(),
            user_agent_version: env!("CARGO_PKG_VERSION").into(),
            ..Node::default()
        };
        Self { node, introduce: true, kinds: Kind::ALL.into_iter().map(|kind| (kind, Subscription::default())).collect() }
    }

    /// Takes over what an earlier run acknowledged. Resources that no longer decode are left out and returned.
    pub fn restore(&mut self, resources: impl IntoIterator<Item = Resource>) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for resource in resources {
            match decode::decode(resource.kind, &resource.name, &resource.bytes) {
                Ok(decoded) => {
                    let name = resource.name.to_string();
                    let entry =
                        Entry { version: resource.version.to_string(), known: Known::Held(decoded), resource: Some(resource.clone()) };
                    self.subscription(resource.kind).known.insert(name, entry);
                }
                Err(rejection) => rejections.push(rejection),
            }
        }
        rejections
    }

    /// Everything held, as received.
    pub fn held(&self) -> impl Iterator<Item = &Resource> {
        self.kinds.values().flat_map(|subscription| subscription.known.values()).filter_map(|entry| entry.resource.as_ref())
    }

    /// A new stream is up: the requests that subscribe to everything wanted and tell what is held.
    pub fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.introduce = true;
        for subscription in self.kinds.values_mut() {
            subscription.subscribed.clear();
        }
        Kind::ALL.into_iter().filter_map(|kind| self.subscribe(kind, true)).collect()
    }

    /// Changes what is wanted of a kind; the request that says so, unless nothing changed.
    pub fn want(&mut self, kind: Kind, names: BTreeSet<String>) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.subscription(kind);
        subscription.wanted = names;
        let wanted = &subscription.wanted;
        subscription.known.retain(|name, _| wanted.contains(name));
        self.subscribe(kind, false)
    }

    /// Asks again for a resource that is held (fresh keys), which the protocol answers even if nothing changed.
    pub fn refresh(&mut self, kind: Kind, name: &str) -> Option<DeltaDiscoveryRequest> {
        self.subscription(kind).subscribed.contains(name).then(|| self.request(kind, vec![name.to_owned()], Vec::new()))
    }

    fn subscribe(&mut self, kind: Kind, first: bool) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.subscription(kind);
        let subscribe: Vec<String> = subscription.wanted.difference(&subscription.subscribed).cloned().collect();
        let unsubscribe: Vec<String> = subscription.subscribed.difference(&subscription.wanted).cloned().collect();
        // An empty first request would be the legacy wildcard.
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        // The first request of a kind on a stream may also come later: then nothing was subscribed before it.
        let first = first || subscription.subscribed.is_empty();
        let versions = if first {
            let held = |name: &String| subscription.known.get(name).filter(|entry| entry.resource.is_some());
            subscribe.iter().filter_map(|name| held(name).map(|entry| (name.clone(), entry.version.clone()))).collect()
        } else {
            HashMap::new()
        };
        subscription.subscribed = subscription.wanted.clone();
        let mut request = self.request(kind, subscribe, unsubscribe);
        request.initial_resource_versions = versions;
        Some(request)
    }

    fn request(&mut self, kind: Kind, subscribe: Vec<String>, unsubscribe: Vec<String>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            node: self.introduce_once(),
            type_url: kind.type_url().into(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn introduce_once(&mut self) -> Option<Node> {
        std::mem::take(&mut self.introduce).then(|| self.node.clone())
    }

    fn subscription(&mut self, kind: Kind) -> &mut Subscription {
        self.kinds.entry(kind).or_default()
    }

    /// Decodes a response. Nothing is in force until `finish`.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Update {
        let DeltaDiscoveryResponse { resources, type_url, nonce, removed_resources, .. } = response;
        let kind = Kind::from_type_url(&type_url);
        let mut update = Update { kind, type_url, nonce, upserts: Vec::new(), removed: Vec::new(), rejections: Vec::new(), refused: None };
        let Some(kind) = kind else {
            update.refused = Some(format!("type {:?} was not asked for", update.type_url));
            return update;
        };
        let mut seen = HashSet::new();
        let names = resources.iter().map(|resource| &resource.name).chain(&removed_resources);
        if let Some(twice) = names.into_iter().find(|name| !seen.insert(name.as_str())) {
            update.refused = Some(format!("{kind} {twice:?} stands twice in one response"));
            return update;
        }
        let wanted = &self.subscription(kind).wanted;
        for resource in resources {
            if !wanted.contains(&resource.name) {
                continue; // not asked for (any more): ignored, as the protocol has it
            }
            let (name, version) = (resource.name, resource.version);
            let reject = |message: String| Rejection { kind, name: name.clone(), faults: vec![Fault { path: String::new(), message }] };
            let Some(any) = resource.resource else {
                update.rejections.push(reject("has no body".into()));
                continue;
            };
            if any.type_url != kind.type_url() {
                update.rejections.push(reject(format!("is a {:?}", any.type_url)));
                continue;
            }
            match decode::decode(kind, &name, &any.value) {
                Ok(decoded) => {
                    let resource = Resource { kind, name: name.into(), version: version.as_str().into(), bytes: any.value.into() };
                    update.upserts.push(Upsert { resource, decoded, version });
                }
                Err(rejection) => update.rejections.push(rejection),
            }
        }
        update.removed = removed_resources.into_iter().filter(|name| wanted.contains(name)).collect();
        update
    }

    /// Puts an update in force, but for the resources named in its rejections, and answers it.
    pub fn finish(&mut self, update: Update) -> DeltaDiscoveryRequest {
        let Update { kind, type_url, nonce, upserts, removed, rejections, refused } = update;
        if let (Some(kind), None) = (kind, &refused) {
            let known = &mut self.subscription(kind).known;
            for Upsert { resource, decoded, version } in upserts {
                if rejections.iter().all(|rejection| rejection.name != *resource.name) {
                    known.insert(resource.name.to_string(), Entry { version, known: Known::Held(decoded), resource: Some(resource) });
                }
            }
            for name in removed {
                known.insert(name, Entry { version: String::new(), known: Known::Absent, resource: None });
            }
        }
        let error_detail = match refused {
            Some(message) => Some(nack::whole(&message)),
            None if rejections.is_empty() => None,
            None => Some(nack::write(&rejections)),
        };
        DeltaDiscoveryRequest {
            node: self.introduce_once(),
            type_url,
            response_nonce: nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        }
    }
}

impl Update {
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }
}

impl Lookup for Client {
    fn known(&self, kind: Kind, name: &str) -> Option<&Known> {
        self.kinds.get(&kind)?.known.get(name).map(|entry| &entry.known)
    }

    fn bindings(&self) -> impl Iterator<Item = (&str, &TenantId)> {
        self.kinds.get(&Kind::Binding).into_iter().flat_map(|subscription| &subscription.known).filter_map(|(name, entry)| {
            match &entry.known {
                Known::Held(Decoded::Binding(tenant)) => Some((name.as_str(), tenant)),
                _ => None,
            }
        })
    }
}
