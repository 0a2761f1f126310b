//! The sidecar's half of delta ADS as a state machine: what it wants, what it holds, what to answer. No sockets, no clock.
//!
//! Rules (Envoy's xds_protocol, gRPC A46): a response is acknowledged by its nonce; a NACK carries `error_detail`; resources of a response
//! that can be used are applied even when others of it cannot; a resource that cannot keeps its old meaning. Nonces die with the stream;
//! what is held outlives it and is told as `initial_resource_versions`. A resource's `ttl` is not honoured: policy must not vanish because
//! a heartbeat was late.

mod floors;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use floors::Floors;
use ringfence_policy::{TenantId, rpz::Zone, snapshot::ResourceVersion};

use crate::{
    assemble::{Known, Lookup},
    decode::{self, Decoded, Fault, Quoted, Rejection},
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource as WireResource},
    nack,
    resource::{Kind, Resource},
    seal::{ConfigKeys, Floor},
    zone::HeldZone,
};

/// What a sidecar knows and wants.
#[derive(Debug)]
pub struct Client {
    node: Node,
    /// `None`: whoever speaks on the stream is believed.
    keys: Option<Arc<ConfigKeys>>,
    /// Counts the streams: an update of an earlier one is void.
    stream: u64,
    /// Whether this stream's first request, the only one that names the node, is still to be sent.
    introduce: bool,
    kinds: BTreeMap<Kind, Subscription>,
}

/// A name is the same allocation wherever it stands: a sidecar may know tens of thousands.
type Names = BTreeSet<Arc<str>>;

#[derive(Debug, Default)]
struct Subscription {
    wanted: Arc<Names>,
    /// Held with its version, or told absent.
    known: HashMap<Arc<str>, Entry>,
    /// Names subscribed to on this stream.
    subscribed: Arc<Names>,
    /// Whether this stream has carried a request of this kind: only the first may tell initial versions.
    started: bool,
    floors: Floors,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    /// As received, for the last known good on disk. Absent names have none. In a box, for half of a large table is room for more.
    resource: Option<Box<Resource>>,
}

impl Entry {
    fn held(upsert: Upsert) -> Self {
        Self { known: Known::Held(upsert.decoded), resource: Some(upsert.resource.into()) }
    }

    const ABSENT: Self = Self { known: Known::Absent, resource: None };
    const UNUSABLE: Self = Self { known: Known::Unusable, resource: None };
}

/// A response, decoded and not yet in force: whoever applies it may still reject single resources (a listener that cannot be bound).
/// One is finished before the next is received; but those of policy zones may wait for their chunks, and are then superseded by later ones.
#[derive(Debug)]
pub struct Update {
    stream: u64,
    kind: Option<Kind>,
    type_url: String,
    nonce: String,
    /// Resources that decoded.
    pub upserts: Vec<Upsert>,
    pub removed: Vec<String>,
    pub rejections: Vec<Rejection>,
    /// Names among these under the seal of no key that is known: another set of keys may know it.
    pub strangers: Vec<String>,
    /// Why the response as a whole is refused; nothing of it is used then.
    refused: Option<String>,
}

#[derive(Debug)]
pub struct Upsert {
    pub resource: Resource,
    pub decoded: Decoded,
}

impl Client {
    pub fn new(node_id: impl Into<String>) -> Self {
        let node = Node {
            id: node_id.into(),
            user_agent_name: "ringfence-proxy".into(),
            user_agent_version: env!("CARGO_PKG_VERSION").into(),
            ..Node::default()
        };
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, Subscription::default())).collect();
        Self { node, keys: None, stream: 0, introduce: true, kinds }
    }

    /// Takes nothing for policy but what one of `keys` has sealed, and nothing that is older than what was in force.
    pub fn trusting(mut self, keys: Arc<ConfigKeys>) -> Self {
        self.trust(keys);
        self
    }

    /// From now on takes what one of `keys` has sealed. Yields the names that were last told under another key, which are to be asked for
    /// anew: whoever had stolen that could have sealed at any epoch, so nothing is refused for being earlier than its word. What is held
    /// stays in force until what is told replaces it, as it does whatever else is on its way; a restart, which has nothing in force, does
    /// not take it.
    pub fn trust(&mut self, keys: Arc<ConfigKeys>) -> BTreeSet<(Kind, String)> {
        let mut strangers = BTreeSet::new();
        for (kind, subscription) in &mut self.kinds {
            let Subscription { known, floors, .. } = subscription;
            strangers.extend(floors.forget_strangers(&keys).map(|name| (*kind, name)));
            for resource in known.values().filter_map(|entry| entry.resource.as_deref()) {
                match Floor::of(resource) {
                    Some(floor) if floor.is_strange(&keys) => drop(strangers.insert((*kind, resource.name.to_string()))),
                    Some(floor) => floors.raise(&resource.name, floor),
                    None => {}
                }
            }
        }
        self.keys = Some(keys);
        strangers
    }

    /// Takes over what an earlier run acknowledged, before anything is wanted: from a place where its seals were verified. Resources that
    /// no longer decode are left out and returned.
    pub fn restore(&mut self, resources: impl IntoIterator<Item = Resource>) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for resource in resources {
            match decode::decode(resource.kind, &resource.name, &resource.bytes) {
                Ok(decoded) => {
                    self.subscription(resource.kind).hold(Upsert { resource, decoded });
                }
                Err(rejection) => rejections.push(rejection),
            }
        }
        rejections
    }

    /// Takes over what an earlier run knew to have been in force, but for the word of keys that count no more.
    pub fn restore_floors(&mut self, floors: impl IntoIterator<Item = (Kind, String, Floor)>) {
        let keys = self.keys.clone();
        let counts = |floor: &Floor| keys.as_ref().is_none_or(|keys| !floor.is_strange(keys));
        for (kind, name, floor) in floors.into_iter().filter(|(_, _, floor)| counts(floor)) {
            self.subscription(kind).floors.raise(&name, floor);
        }
    }

    /// What was in force, where the seal of what is held does not tell.
    pub fn floors(&self) -> impl Iterator<Item = (Kind, &str, Floor)> {
        self.kinds.iter().flat_map(|(kind, subscription)| {
            let told = |name: &str| subscription.known.get(name).and_then(|entry| entry.resource.as_ref()?.epoch());
            let untold = subscription.floors.iter().filter(move |(name, floor)| told(name) != Some(floor.epoch));
            untold.map(|(name, floor)| (*kind, name, floor))
        })
    }

    /// Takes names of which nothing is known for absent: what a complete policy refers to and does not hold had been told absent before it
    /// was stored.
    pub fn presume_absent(&mut self, names: BTreeMap<Kind, BTreeSet<String>>) {
        for (kind, names) in names {
            let gone = self.gone(kind);
            let known = &mut self.subscription(kind).known;
            for name in names {
                known.entry(name.into()).or_insert_with(gone);
            }
        }
    }

    /// What is known of a name of which somebody says that there is no such resource. Nobody signs that. Whatever else is missing, less is
    /// allowed without it; without a Platform it would be more.
    fn gone(&self, kind: Kind) -> fn() -> Entry {
        if kind == Kind::Platform && self.keys.is_some() { || Entry::UNUSABLE } else { || Entry::ABSENT }
    }

    /// Lets go of a restored resource that cannot be put in force.
    pub fn forget(&mut self, kind: Kind, name: &str) {
        self.subscription(kind).known.remove(name);
    }

    /// Gives a restored policy zone what its manifest tells of.
    pub fn open_zone(&mut self, name: &str, opened: Zone) {
        let entry = self.subscription(Kind::PolicyZone).known.get_mut(name);
        if let Some(Entry { known: Known::Held(Decoded::PolicyZone(held)), .. }) = entry {
            held.zone = Some(opened);
        }
    }

    /// The policy zones held.
    pub fn zones(&self) -> impl Iterator<Item = &HeldZone> {
        let known = self.kinds.get(&Kind::PolicyZone).into_iter().flat_map(|subscription| subscription.known.values());
        known.filter_map(|entry| match &entry.known {
            Known::Held(Decoded::PolicyZone(held)) => Some(&**held),
            _ => None,
        })
    }

    /// Everything held, as received, but for the chunks of zones: those are kept otherwise.
    pub fn held(&self) -> impl Iterator<Item = &Resource> {
        let kinds = self.kinds.iter().filter(|(kind, _)| **kind != Kind::ZoneChunk);
        kinds.flat_map(|(_, subscription)| subscription.known.values()).filter_map(|entry| entry.resource.as_deref())
    }

    /// A new stream is up: the requests that subscribe to everything wanted and tell what is held.
    pub fn connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.stream += 1;
        self.introduce = true;
        for subscription in self.kinds.values_mut() {
            subscription.subscribed = Arc::default();
            subscription.started = false;
        }
        // The workload first: a control plane that has lost everything says so there, and what it says of the rest then touches nothing.
        Kind::ALL.into_iter().rev().filter_map(|kind| self.subscribe(kind)).collect()
    }

    /// Changes what is wanted of a kind; the request that says so, unless nothing changed. Without a stream the request may be dropped:
    /// `connected` says it all again.
    pub fn want(&mut self, kind: Kind, names: BTreeSet<String>) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.subscription(kind);
        let known = &subscription.known;
        let shared = |name: String| known.get_key_value(&*name).map_or_else(|| name.as_str().into(), |(name, _)| name.clone());
        subscription.wanted = Arc::new(names.into_iter().map(shared).collect());
        let wanted = &subscription.wanted;
        subscription.known.retain(|name, _| wanted.contains(name));
        subscription.floors.forget_oldest(wanted);
        self.subscribe(kind)
    }

    /// Whether what arrives under a name is of use.
    pub fn wants(&self, kind: Kind, name: &str) -> bool {
        self.kinds.get(&kind).is_some_and(|subscription| subscription.wanted.contains(name))
    }

    /// Asks again for a resource that is held (fresh keys), which the protocol answers even if nothing changed.
    pub fn refresh(&mut self, kind: Kind, name: &str) -> Option<DeltaDiscoveryRequest> {
        self.subscription(kind).subscribed.contains(name).then(|| self.request(kind, vec![name.to_owned()], Vec::new()))
    }

    /// As `refresh`, in one request for each kind.
    pub fn refresh_all(&mut self, names: &BTreeSet<(Kind, String)>) -> Vec<DeltaDiscoveryRequest> {
        let each = Kind::ALL.into_iter().filter_map(|kind| {
            let subscribed = &self.subscription(kind).subscribed;
            let of_kind = names.iter().filter(|(of, name)| *of == kind && subscribed.contains(&**name));
            let again: Vec<String> = of_kind.map(|(_, name)| name.clone()).collect();
            (!again.is_empty()).then(|| self.request(kind, again, Vec::new()))
        });
        each.collect()
    }

    fn subscribe(&mut self, kind: Kind) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.subscription(kind);
        let subscribe: Vec<String> = subscription.wanted.difference(&subscription.subscribed).map(|name| name.to_string()).collect();
        let unsubscribe: Vec<String> = subscription.subscribed.difference(&subscription.wanted).map(|name| name.to_string()).collect();
        // An empty first request would be the legacy wildcard.
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        let first = !std::mem::replace(&mut subscription.started, true);
        let held = |name: &String| {
            let resource = subscription.known.get(&**name)?.resource.as_ref()?;
            Some((name.clone(), resource.version.to_string()))
        };
        let versions = if first { subscribe.iter().filter_map(held).collect() } else { HashMap::new() };
        subscription.subscribed = subscription.wanted.clone();
        Some(DeltaDiscoveryRequest { initial_resource_versions: versions, ..self.request(kind, subscribe, unsubscribe) })
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

    /// Verifies and decodes a response. Nothing is in force until `finish`.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Update {
        let DeltaDiscoveryResponse { resources, type_url, nonce, removed_resources, .. } = response;
        let kind = Kind::from_type_url(&type_url);
        let mut update = Update {
            stream: self.stream,
            kind,
            type_url,
            nonce,
            upserts: Vec::new(),
            removed: Vec::new(),
            rejections: Vec::new(),
            strangers: Vec::new(),
            refused: None,
        };
        let Some(kind) = kind else {
            update.refused = Some(format!("type {} was not asked for", Quoted(&update.type_url)));
            return update;
        };
        let mut seen = HashSet::new();
        let mut names = resources.iter().map(|resource| &resource.name).chain(&removed_resources);
        if let Some(twice) = names.find(|name| !seen.insert(name.as_str())) {
            update.refused = Some(format!("{kind} {} stands twice in one response", Quoted(twice)));
            return update;
        }
        let keys = self.keys.clone();
        let subscription = self.subscription(kind);
        for resource in resources {
            // What was not asked for (any more) is ignored, as the protocol has it.
            if subscription.wanted.contains(&*resource.name) {
                let is_strange = kind.is_sealed() && keys.as_ref().is_some_and(|keys| !keys.know(&resource.seal));
                match subscription.read(kind, resource, keys.as_deref()) {
                    Ok(upsert) => update.upserts.extend(upsert),
                    Err(rejection) => {
                        update.strangers.extend(is_strange.then(|| rejection.name.clone()));
                        update.rejections.push(rejection);
                    }
                }
            }
        }
        update.removed = removed_resources.into_iter().filter(|name| subscription.wanted.contains(&**name)).collect();
        update
    }

    /// Puts an update in force, but for the resources named in its rejections, and answers it. `None`: its stream has ended meanwhile;
    /// nothing of it is used, for the next stream tells what is current.
    pub fn finish(&mut self, update: Update) -> Option<DeltaDiscoveryRequest> {
        let Update { stream, kind, type_url, nonce, upserts, removed, rejections, strangers: _, refused } = update;
        if stream != self.stream {
            return None;
        }
        if let (Some(kind), None) = (kind, &refused) {
            let rejected: HashSet<&str> = rejections.iter().map(|rejection| rejection.name.as_str()).collect();
            let gone = self.gone(kind);
            let subscription = self.subscription(kind);
            let Subscription { wanted, known, .. } = subscription;
            let never_held = |name: &&str| known.get(*name).is_none_or(|entry| entry.resource.is_none());
            let unusable: Vec<&str> = rejected.iter().copied().filter(|name| wanted.contains(*name)).filter(never_held).collect();
            known.extend(unusable.into_iter().map(|name| (name.into(), Entry::UNUSABLE)));
            known.extend(removed.into_iter().filter_map(|name| wanted.get(&*name)).map(|name| (name.clone(), gone())));
            for upsert in upserts {
                let name = &*upsert.resource.name;
                if subscription.wanted.contains(name) && !rejected.contains(name) {
                    subscription.hold(upsert);
                }
            }
        }
        let error_detail = match refused {
            Some(message) => Some(nack::whole(&message)),
            None if rejections.is_empty() => None,
            None => Some(nack::write(&rejections)),
        };
        Some(DeltaDiscoveryRequest {
            node: self.introduce_once(),
            type_url,
            response_nonce: nonce,
            error_detail,
            ..DeltaDiscoveryRequest::default()
        })
    }
}

impl Subscription {
    fn hold(&mut self, mut upsert: Upsert) {
        let resource = &mut upsert.resource;
        if let Some(floor) = Floor::of(resource) {
            self.floors.raise(&resource.name, floor);
        }
        if let Some(name) = self.wanted.get(&resource.name) {
            resource.name = name.clone();
        }
        self.known.insert(resource.name.clone(), Entry::held(upsert));
    }

    /// One resource of a response; `Ok(None)`: a heartbeat of what is held.
    fn read(&self, kind: Kind, resource: WireResource, keys: Option<&ConfigKeys>) -> Result<Option<Upsert>, Rejection> {
        let WireResource { name, version, resource: body, seal, .. } = resource;
        let reject = |message: String| Rejection { kind, name: name.clone(), faults: vec![Fault { path: String::new(), message }] };
        let entry = self.known.get(&*name).and_then(|entry| Some((entry.resource.as_deref()?, &entry.known)));
        let Some(body) = body else {
            let heartbeat = entry.is_some_and(|(held, _)| *held.version == *version);
            return if heartbeat { Ok(None) } else { Err(reject("has no body".into())) };
        };
        if body.type_url != kind.type_url() {
            return Err(reject(format!("must be a {}, not {}", kind.type_url(), Quoted(&body.type_url))));
        }
        let resource = match keys {
            Some(keys) if kind.is_sealed() => {
                let opened = keys.open(kind, &name, body.value.into(), &seal);
                let current = opened.and_then(|resource| self.floors.bear(&resource).map(|()| resource));
                current.map_err(|error| reject(error.to_string()))?
            }
            // A seal that nobody verified is none.
            _ => Resource { kind, name: name.as_str().into(), version: version.into(), bytes: body.value.into(), seal: None },
        };
        let decoded = match entry {
            // What has not changed keeps its identity: tokens verified with an issuer's keys stay verified when these are sent again.
            Some((held, Known::Held(decoded))) if held.bytes == resource.bytes => decoded.clone(),
            _ => decode::decode(kind, &name, &resource.bytes)?,
        };
        Ok(Some(Upsert { resource, decoded }))
    }
}

impl Update {
    /// Leaves to `newer` what both tell of: put in force later, this one would undo that.
    pub fn supersede_by(&mut self, newer: &Update) {
        let later: HashSet<&str> = newer.names().collect();
        self.rejections.retain(|rejection| !later.contains(rejection.name.as_str()));
        self.upserts.retain(|upsert| !later.contains(&*upsert.resource.name));
        self.removed.retain(|name| !later.contains(name.as_str()));
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let upserts = self.upserts.iter().map(|upsert| &*upsert.resource.name);
        upserts.chain(self.removed.iter().map(String::as_str)).chain(self.rejections.iter().map(|rejection| rejection.name.as_str()))
    }

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
                Known::Held(Decoded::Binding(tenant)) => Some((&**name, tenant)),
                _ => None,
            }
        })
    }

    fn versions(&self) -> Vec<ResourceVersion> {
        let mut versions: Vec<ResourceVersion> = self
            .held()
            .map(|resource| ResourceVersion {
                kind: resource.kind.as_str(),
                name: resource.name.clone(),
                version: resource.version.clone(),
            })
            .collect();
        versions.sort();
        versions
    }
}
