//! Both halves against each other over a stream that delays, breaks and comes back, while what is published, wanted and refused changes
//! at random.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use proptest::prelude::*;
use prost::Message;

use super::fixtures::{binding, issuer, names, platform, policy_zone, tenant, unusable_tenant};
use crate::{
    assemble::{Known, Lookup, wanted},
    client::{Client, Update, Upsert},
    decode::{self, Decoded, Fault, Rejection},
    generated::{
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        resource as proto,
    },
    resource::{Kind, PLATFORM, Resource},
    seal::{self, SigningKey},
    server::{ResourceSet, Stream},
    zone::Digest,
};

const NODE: &str = "api";
const ZONES: [&str; 2] = ["baseline", "own"];
const TENANTS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
/// As the server's own bound: responses of one kind that may await their answer.
const MAX_OUTSTANDING: usize = 4;
/// Messages that may pass after the last change: each name is told and answered a few times at most.
const MAX_AFTER: usize = 120;

#[derive(Clone, Debug)]
enum Step {
    Publish(Content),
    Withdraw(Kind, usize),
    /// The control plane restarts and has nothing …
    ServerRestarts,
    /// … until it has read its store again.
    ServerRefills,
    ServerReads,
    ClientReads,
    ClientFinishes,
    StreamBreaks,
    /// A zone's version: which pieces it has. Without any it is withdrawn.
    Zone(usize, u8),
    /// A token names a tenant that the workload has not met.
    Meet(usize),
    Forget(usize),
    Refresh(usize),
}

#[derive(Clone, Debug)]
enum Content {
    /// With a count, of which the last bit says whether there are zones.
    Platform(u32),
    Tenant(usize, u32),
    Unusable(usize, u32),
    Binding(usize, usize),
    /// Which tenants are served, as bits; all of them mean any.
    Workload(u8),
}

impl Content {
    fn resource(&self) -> Resource {
        match *self {
            Content::Platform(version) if version % 2 == 0 => {
                let dns = proto::PlatformDns { zones: names(&ZONES[..1]), ..Default::default() };
                Resource::new(PLATFORM, &proto::Platform { in_flight: version, dns: Some(dns), ..Default::default() })
            }
            Content::Platform(version) => platform(version),
            Content::Tenant(i, version) => tenant(TENANTS[i], version),
            Content::Unusable(i, version) => unusable_tenant(TENANTS[i], version),
            Content::Binding(i, of) => binding(&met(i), TENANTS[of]),
            Content::Workload(0b1111) => workload(NODE, &["*"]),
            Content::Workload(bits) => {
                let served: Vec<&str> = TENANTS.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, name)| *name).collect();
                workload(NODE, &served)
            }
        }
    }
}

/// A shared workload that is asked for names.
fn workload(name: &str, tenants: &[&str]) -> Resource {
    let dns = Some(proto::WorkloadDns { zones: names(&ZONES[1..]), ..Default::default() });
    Resource::new(name, &proto::Workload { tenants: names(tenants), issuers: names(&["sso"]), dns, ..Default::default() })
}

/// The chunks of a zone.
fn chunks_of(upsert: &Upsert) -> impl Iterator<Item = String> {
    let pieces = match &upsert.decoded {
        Decoded::PolicyZone(held) => held.manifest.pieces.clone(),
        _ => Vec::new(),
    };
    pieces.into_iter().map(|piece| piece.digest.to_string())
}

fn met(i: usize) -> String {
    format!("sso/org_{}", TENANTS[i])
}

fn step() -> impl Strategy<Value = Step> {
    let content = prop_oneof![
        1 => (1..4u32).prop_map(Content::Platform),
        6 => (0..4usize, 1..6u32).prop_map(|(i, version)| Content::Tenant(i, version)),
        1 => (0..4usize, 1..3u32).prop_map(|(i, version)| Content::Unusable(i, version)),
        2 => (0..4usize, 0..4usize).prop_map(|(i, of)| Content::Binding(i, of)),
        2 => (0..16u8).prop_map(Content::Workload),
        2 => Just(Content::Workload(0b1111)),
    ];
    let kind = prop::sample::select(&[Kind::Platform, Kind::Tenant, Kind::Tenant, Kind::Binding, Kind::Workload][..]);
    prop_oneof![
        6 => content.prop_map(Step::Publish),
        4 => (0..2usize, 0..8u8).prop_map(|(i, pieces)| Step::Zone(i, pieces)),
        2 => (kind, 0..4usize).prop_map(|(kind, i)| Step::Withdraw(kind, i)),
        1 => Just(Step::ServerRestarts),
        1 => Just(Step::ServerRefills),
        8 => Just(Step::ServerReads),
        6 => Just(Step::ClientReads),
        6 => Just(Step::ClientFinishes),
        1 => Just(Step::StreamBreaks),
        3 => (0..4usize).prop_map(Step::Meet),
        1 => (0..4usize).prop_map(Step::Forget),
        1 => (0..4usize).prop_map(Step::Refresh),
    ]
}

/// Resources that a sidecar decodes but cannot apply: a listener in use, say.
fn inapplicable(resource: &Resource) -> bool {
    let is = |other: Resource| (resource.kind, &resource.bytes) == (other.kind, &other.bytes);
    is(tenant(&resource.name, 5)) || (*resource.name == *NODE && is(workload(NODE, &["acme", "umbrella"])))
}

fn usable(resource: &Resource) -> bool {
    decode::check(resource).is_empty() && !inapplicable(resource)
}

struct World {
    set: ResourceSet,
    /// Whether what is published is sealed.
    key: Option<SigningKey>,
    /// Of the latest publication.
    epoch: u64,
    /// Of what was in force at the client.
    epochs: BTreeMap<(Kind, String), u64>,
    before_restart: Vec<Resource>,
    stream: Stream,
    client: Client,
    met: BTreeSet<String>,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
    /// Chunks that the client has got.
    gathered: BTreeSet<String>,
    /// Updates of zones whose chunks are on their way.
    parked: Vec<Update>,
    /// Decoded and not yet applied.
    applying: Option<Update>,
    /// Nonces by kind that the server has not had an answer to on this stream.
    unanswered: BTreeMap<String, BTreeSet<String>>,
    /// Every version that could be used, ever.
    usable: BTreeSet<(Kind, String, String)>,
    /// All that the server ever sent, byte for byte.
    wire: Vec<Vec<u8>>,
    /// Whether another tenant's sidecars, tenants and issuers come and go meanwhile.
    neighbour: bool,
    steps: u32,
}

impl World {
    fn new(neighbour: bool, sealed: bool) -> Self {
        let client = Client::new(NODE);
        let mut world = World {
            set: ResourceSet::default(),
            key: sealed.then(seal::tests::key),
            epoch: 0,
            epochs: BTreeMap::new(),
            before_restart: Vec::new(),
            stream: Stream::default(),
            client: if sealed { client.trusting(Arc::new(seal::tests::keys())) } else { client },
            met: BTreeSet::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            gathered: BTreeSet::new(),
            parked: Vec::new(),
            applying: None,
            unanswered: BTreeMap::new(),
            usable: BTreeSet::new(),
            wire: Vec::new(),
            neighbour,
            steps: 0,
        };
        world.serve();
        world.want();
        world.connect();
        world
    }

    /// The control plane begins: one that signs says that there is no platform to speak of, which nobody else can.
    fn serve(&mut self) {
        if self.key.is_some() {
            self.publish(Resource::new(PLATFORM, &proto::Platform::default()));
        }
    }

    fn play(&mut self, step: &Step) {
        self.steps += 1;
        if self.neighbour {
            self.neighbour_is_busy();
        }
        match step {
            Step::Publish(content) => self.publish(content.resource()),
            Step::Withdraw(kind, i) => {
                let name = match kind {
                    Kind::Platform => PLATFORM.to_owned(),
                    Kind::Issuer | Kind::Tenant => TENANTS[*i].to_owned(),
                    Kind::Binding => met(*i),
                    Kind::Workload => NODE.to_owned(),
                    Kind::TrustBundle | Kind::ZoneChunk | Kind::PolicyZone => unreachable!("not withdrawn here"),
                };
                self.withdraw(*kind, &name);
                if *kind == Kind::Platform {
                    self.serve();
                }
            }
            Step::ServerRestarts => {
                self.before_restart.extend(self.set.iter().cloned());
                self.set = ResourceSet::default();
                self.serve();
                self.connect();
            }
            Step::ServerRefills => {
                std::mem::take(&mut self.before_restart).into_iter().for_each(|resource| self.publish(resource));
                self.withdraw_lone_chunks();
            }
            Step::ServerReads => self.server_reads(),
            Step::ClientReads => self.client_reads(),
            Step::ClientFinishes => self.client_finishes(),
            Step::StreamBreaks => self.connect(),
            Step::Zone(i, pieces) => self.publish_zone(*i, *pieces),
            Step::Meet(i) => {
                self.met.insert(met(*i));
                self.want();
            }
            Step::Forget(i) => {
                self.met.remove(&met(*i));
                self.want();
            }
            Step::Refresh(i) => {
                let request = self.client.refresh(Kind::Tenant, TENANTS[*i]);
                self.to_server.extend(request);
            }
        }
        self.holds_only_what_could_be_used();
    }

    fn publish(&mut self, resource: Resource) {
        self.epoch += 1;
        let resource = match &self.key {
            Some(key) => key.seal(resource, self.epoch).unwrap(),
            None => resource,
        };
        let (kind, name) = (resource.kind, resource.name.clone());
        if usable(&resource) {
            self.usable.insert((kind, name.to_string(), resource.version.to_string()));
        }
        if self.set.insert(resource) {
            self.stream.touch(kind, &name, &self.set.view(NODE));
        }
    }

    /// The pieces first, and those that no zone has any more last, as a store's delta does.
    fn publish_zone(&mut self, i: usize, bits: u8) {
        let contents: Vec<&str> =
            ["a", "b", "c"].into_iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, name)| name).collect();
        let (manifest, chunks) = policy_zone(ZONES[i], &contents);
        chunks.into_iter().for_each(|chunk| self.publish(chunk));
        if contents.is_empty() {
            self.withdraw(Kind::PolicyZone, ZONES[i]);
        } else {
            self.publish(manifest);
        }
        self.withdraw_lone_chunks();
    }

    fn withdraw_lone_chunks(&mut self) {
        let zones = self.set.iter().filter(|resource| resource.kind == Kind::PolicyZone);
        let bodies = zones.map(|zone| proto::PolicyZone::decode(zone.bytes.clone()).unwrap());
        let pieces: BTreeSet<Digest> =
            bodies.flat_map(|zone| zone.pieces).map(|piece| Digest((*piece.digest).try_into().unwrap())).collect();
        let chunks = self.set.iter().filter(|resource| resource.kind == Kind::ZoneChunk);
        let lone: Vec<_> = chunks.map(|chunk| chunk.name.clone()).filter(|name| !pieces.contains(&name.parse().unwrap())).collect();
        lone.iter().for_each(|name| self.withdraw(Kind::ZoneChunk, name));
    }

    fn withdraw(&mut self, kind: Kind, name: &str) {
        if self.set.remove(kind, name) {
            self.stream.touch(kind, name, &self.set.view(NODE));
        }
    }

    /// What of one's neighbour happens around a step.
    fn neighbour_is_busy(&mut self) {
        let name = format!("their-{}", self.steps % 3);
        let theirs =
            [tenant(&name, self.steps), binding(&format!("sso/{name}"), &name), issuer(&name, &name), workload("theirs", &[&name])];
        for resource in theirs {
            self.publish(resource);
        }
        for (kind, name) in [(Kind::Tenant, format!("their-{}", self.steps % 2)), (Kind::Workload, "theirs".to_owned())] {
            self.set.remove(kind, &name);
            self.stream.touch(kind, &name, &self.set.view(NODE));
        }
    }

    /// The stream ends with all that is on its way, and another begins.
    fn connect(&mut self) {
        self.stream = Stream::default();
        self.to_server.clear();
        self.to_client.clear();
        self.unanswered.clear();
        self.parked.clear();
        let requests = self.client.connected();
        self.to_server.extend(requests);
    }

    fn server_reads(&mut self) {
        if let Some(request) = self.to_server.pop_front() {
            self.stream.introduce(&request).unwrap();
            self.unanswered.entry(request.type_url.clone()).or_default().remove(&request.response_nonce);
            self.stream.receive(request).unwrap();
        }
        for response in self.stream.due(&self.set.view(NODE)) {
            let nonces = self.unanswered.entry(response.type_url.clone()).or_default();
            assert!(nonces.insert(response.nonce.clone()), "nonce {} twice", response.nonce);
            assert!(nonces.len() <= MAX_OUTSTANDING, "{nonces:?}");
            self.wire.push(response.encode_to_vec());
            self.to_client.push_back(response);
        }
    }

    fn client_reads(&mut self) {
        if self.applying.is_none()
            && let Some(response) = self.to_client.pop_front()
        {
            let mut update = self.client.receive(response);
            assert_eq!(update.refused(), None);
            let refused = update.upserts.iter().map(|upsert| &upsert.resource).filter(|resource| inapplicable(resource));
            let fault = Fault { path: String::new(), message: "cannot be applied".into() };
            update.rejections.extend(
                refused
                    .map(|resource| Rejection { kind: resource.kind, name: resource.name.to_string(), faults: vec![fault.clone()] })
                    .collect::<Vec<_>>(),
            );
            self.applying = Some(update);
        }
    }

    fn client_finishes(&mut self) {
        if let Some(update) = self.applying.take() {
            for upsert in &update.upserts {
                if let Decoded::ZoneChunk(_) = &upsert.decoded {
                    self.gathered.insert(upsert.resource.name.to_string());
                }
            }
            if update.kind() == Some(Kind::PolicyZone) {
                self.parked.iter_mut().for_each(|older| older.supersede_by(&update));
                self.parked.push(update);
            } else {
                let answer = self.client.finish(update);
                self.to_server.extend(answer);
            }
            self.unpark();
        }
        self.want();
    }

    /// Answers for the zones that are complete.
    fn unpark(&mut self) {
        for update in std::mem::take(&mut self.parked) {
            let zones = update.upserts.iter().filter(|upsert| self.client.wants(Kind::PolicyZone, &upsert.resource.name));
            let whole = zones.flat_map(chunks_of).all(|chunk| self.gathered.contains(&chunk));
            if whole {
                let answer = self.client.finish(update);
                self.to_server.extend(answer);
            } else {
                self.parked.push(update);
            }
        }
    }

    fn want(&mut self) {
        let mut wanted = wanted(NODE, &self.met, &self.client);
        let chunks = self.parked.iter().flat_map(|update| &update.upserts).flat_map(chunks_of);
        wanted.insert(Kind::ZoneChunk, chunks.filter(|chunk| !self.gathered.contains(chunk)).collect());
        for kind in Kind::ALL {
            let request = self.client.want(kind, wanted.remove(&kind).unwrap_or_default());
            self.to_server.extend(request);
        }
    }

    fn holds_only_what_could_be_used(&mut self) {
        for held in self.client.held() {
            if let Some(epoch) = held.epoch() {
                let before = self.epochs.insert((held.kind, held.name.to_string()), epoch);
                assert!(before <= Some(epoch), "{held:?} is older than what was in force, of {before:?}");
            }
            let version = (held.kind, held.name.to_string(), held.version.to_string());
            assert!(self.usable.contains(&version), "{version:?} is held");
        }
    }

    /// Nothing changes any more: how many messages pass until both sides are silent.
    fn quiet(&mut self) -> usize {
        let mut messages = 0;
        loop {
            let before = (self.to_server.len(), self.to_client.len(), self.applying.is_some());
            self.server_reads();
            self.client_reads();
            self.client_finishes();
            if before == (0, 0, false) && self.to_server.is_empty() && self.to_client.is_empty() {
                return messages;
            }
            messages += 1;
            assert!(messages <= MAX_AFTER, "no end of messages");
        }
    }

    /// What must hold once all is quiet.
    fn converged(&self) {
        let view = self.set.view(NODE);
        let mut in_force = BTreeSet::new();
        let wanted = wanted(NODE, &self.met, &self.client);
        for (kind, name) in wanted.iter().flat_map(|(kind, names)| names.iter().map(move |name| (*kind, name))) {
            let held = self.client.held().find(|held| held.kind == kind && *held.name == **name);
            in_force.extend(held.map(|held| (kind, name.clone(), held.version.to_string())));
            let known = self.client.known(kind, name).unwrap_or_else(|| panic!("{kind}/{name} is still awaited"));
            match (view.resource(kind, name), known) {
                (None, Known::Absent) => {}
                // Hidden with the workload; nobody signs that there is none.
                (None, Known::Unusable) if kind == Kind::Platform && self.key.is_some() => {}
                // The same content may carry a later seal by now.
                (Some(published), Known::Held(_)) if usable(published) => {
                    assert_eq!(held.map(|held| &held.version), Some(&published.version));
                }
                // An older version stays, or nothing ever was; `holds_only_what_could_be_used` has seen to the rest.
                (Some(published), Known::Held(_) | Known::Unusable) if !usable(published) => {}
                (published, known) => panic!("{kind}/{name}: {published:?} is published and {known:?} known"),
            }
        }
        let held = self.client.held().map(|held| (held.kind, held.name.to_string(), held.version.to_string()));
        assert_eq!(held.collect::<BTreeSet<_>>(), in_force, "what is held is what is wanted");
        let acked = self.stream.acked().map(|(kind, name, version)| (kind, name.to_owned(), version.to_owned()));
        assert_eq!(acked.collect::<BTreeSet<_>>(), in_force, "and what the control plane believes to be in force");
        let usable = view.required().all(|(kind, name)| view.resource(kind, name).is_none_or(usable));
        assert_eq!(self.stream.in_sync(&view), usable && view.resource(Kind::Workload, NODE).is_some());
    }
}

fn run(steps: &[Step], neighbour: bool, sealed: bool) -> World {
    let mut world = World::new(neighbour, sealed);
    for step in steps {
        world.play(step);
    }
    world.quiet();
    world.converged();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_halves_converge_whatever_happens(steps in prop::collection::vec(step(), 1..120), sealed: bool) {
        let mut world = run(&steps, false, sealed);
        prop_assert_eq!(world.quiet(), 0, "silence stays silence");
        // And once more after a break: what is held is told, so that nothing is sent but what the client refuses each time.
        let sent = world.wire.len();
        world.connect();
        world.quiet();
        world.converged();
        let view = world.set.view(NODE);
        let resent: Vec<_> = world.wire[sent..].iter().map(|bytes| DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap()).collect();
        for (response, resource) in resent.iter().flat_map(|response| response.resources.iter().map(move |resource| (response, resource))) {
            let kind = Kind::from_type_url(&response.type_url).unwrap();
            prop_assert!(view.resource(kind, &resource.name).is_some_and(|published| !usable(published)), "{:?}", resource.name);
        }
    }

    #[test]
    fn a_neighbour_leaves_no_trace(steps in prop::collection::vec(step(), 1..120)) {
        let (alone, beside) = (run(&steps, false, false), run(&steps, true, false));
        prop_assert_eq!(alone.wire, beside.wire);
    }
}
