//! One node, its stream and what is published, driven step by step.

pub(crate) mod answers;
pub(crate) mod bounds;
pub(crate) mod isolation;
pub(crate) mod resume;
pub(crate) mod subscriptions;

use super::{Event, ResourceSet, Stream, StreamError, View};
use crate::{
    generated::discovery::DeltaDiscoveryResponse,
    resource::{Kind, Resource},
    tests::fixtures::{Request, platform, request, tenant, told, workload},
};

/// The workload of the node under test.
const NODE: &str = "api";

struct Served {
    set: ResourceSet,
    stream: Stream,
    events: Vec<Event>,
    unanswered: Vec<(Kind, String)>,
}

impl Served {
    /// A node whose workload serves `tenants`; each of them that is listed in `published` exists, in version 1.
    fn new(tenants: &[&str], published: &[&str]) -> Self {
        let mut set = ResourceSet::default();
        set.insert(platform(1));
        set.insert(workload(NODE, tenants));
        for name in published {
            set.insert(tenant(name, 1));
        }
        Self { set, stream: Stream::default(), events: Vec::new(), unanswered: Vec::new() }
    }

    fn view(&self) -> View<'_> {
        self.set.view(NODE)
    }

    fn due(&mut self) -> Vec<DeltaDiscoveryResponse> {
        self.stream.due(&self.set.view(NODE))
    }

    /// What a request brings.
    fn send(&mut self, request: Request) -> Vec<String> {
        self.events = self.stream.receive(request.0).unwrap();
        self.tell()
    }

    /// What publishing brings.
    fn publish(&mut self, resource: Resource) -> Vec<String> {
        self.insert(resource);
        self.tell()
    }

    fn insert(&mut self, resource: Resource) {
        let (kind, name) = (resource.kind, resource.name.clone());
        if self.set.insert(resource) {
            self.stream.touch(kind, &name, &self.set.view(NODE));
        }
    }

    fn withdraw(&mut self, kind: Kind, name: &str) -> Vec<String> {
        if self.set.remove(kind, name) {
            self.stream.touch(kind, name, &self.set.view(NODE));
        }
        self.tell()
    }

    fn tell(&mut self) -> Vec<String> {
        let due = self.due();
        self.unanswered.extend(due.iter().map(|response| (Kind::from_type_url(&response.type_url).unwrap(), response.nonce.clone())));
        due.iter().map(told).collect()
    }

    /// Acknowledges all that was told; brings nothing.
    fn ack(&mut self) {
        for (kind, nonce) in std::mem::take(&mut self.unanswered) {
            assert_eq!(self.send(request(kind).nonce(&nonce)), NOTHING);
        }
    }

    fn version(&self, kind: Kind, name: &str) -> String {
        self.set.get(kind, name).unwrap().version.to_string()
    }

    fn acked(&self) -> Vec<String> {
        let mut acked: Vec<_> = self.stream.acked().map(|(kind, name, version)| format!("{kind}/{name}@{version}")).collect();
        acked.sort();
        acked
    }
}

/// A request for Tenants, which most tests are about.
fn tenants() -> Request {
    request(Kind::Tenant)
}

const NOTHING: [&str; 0] = [];
