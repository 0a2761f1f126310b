//! One simulated sidecar. It does what `ringfence-proxy` does with its configuration, but for binding listeners and storing.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

use prost::Message;
use ringfence_proxy::{
    config::stream::{self, StreamEvent},
    identity::Trust,
};
use ringfence_xds::{
    assemble::{self, Known, Lookup},
    client::Client,
    decode::Decoded,
    generated::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    policy::Snapshot,
    resource::{Kind, TRUST_BUNDLE},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::spawn_local,
};

use super::{Ack, Log, now, reach::Link};

/// As the sidecar has it.
const STREAM_EVENTS: usize = 1;

pub(super) struct Sidecar {
    number: usize,
    workload: String,
    client: Client,
    outbound: Option<mpsc::Sender<DeltaDiscoveryRequest>>,
    in_force: Option<Snapshot>,
    /// Whom it believes, over TLS.
    trust: Option<Arc<Trust>>,
    log: Rc<Log>,
}

/// `place`: held until there is an SVID, where one is needed.
pub(super) async fn run(sidecar: Rc<RefCell<Sidecar>>, link: Link, place: OwnedSemaphorePermit) {
    let membership = link.identity.as_ref().map(|identity| identity.membership.clone());
    if let Some(identity) = link.identity {
        sidecar.borrow_mut().trust = Some(identity.trust.clone());
        spawn_local(identity.run());
    }
    if let Some(membership) = &membership {
        membership.held().await;
    }
    drop(place);
    let (events, mut stream) = mpsc::channel(STREAM_EVENTS);
    spawn_local(stream::run(link.control_plane, membership, events));
    sidecar.borrow_mut().want();
    while let Some(event) = stream.recv().await {
        sidecar.borrow_mut().on(event);
    }
}

impl Sidecar {
    pub(super) fn new(number: usize, workload: &str, replica: usize, log: Rc<Log>) -> Self {
        let client = Client::new(format!("{workload}/{replica}"));
        Self { number, workload: workload.into(), client, outbound: None, in_force: None, trust: None, log }
    }

    pub(super) fn held(&self) -> Vec<String> {
        let mut held: Vec<String> = self.client.held().map(|resource| format!("{}/{}", resource.kind, resource.name)).collect();
        held.sort();
        held
    }

    fn on(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Connected(outbound) => {
                self.outbound = Some(outbound);
                self.client.connected().into_iter().for_each(|request| self.send(request));
            }
            StreamEvent::Response { response, done } => {
                self.receive(response);
                let _ = done.send(());
            }
            StreamEvent::Answered => {}
            StreamEvent::Disconnected(_) => self.outbound = None,
        }
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) {
        let octets = response.encoded_len();
        let kind = Kind::from_type_url(&response.type_url).map_or("?", Kind::as_str);
        let told = response.resources.iter().map(|resource| &resource.name).chain(&response.removed_resources);
        let names = told.map(|name| format!("{kind}/{name}")).collect();
        let update = self.client.receive(response);
        let reply = self.client.finish(update);
        self.want();
        self.believe();
        self.assemble();
        let Some(reply) = reply else { return };
        let refused = reply.error_detail.is_some();
        self.send(reply);
        if let Ok(at) = now() {
            self.log.push(Ack { sidecar: self.number, at, names, octets, refused });
        }
    }

    fn want(&mut self) {
        for (kind, names) in assemble::wanted(&self.workload, &BTreeSet::new(), &self.client) {
            if let Some(request) = self.client.want(kind, names) {
                self.send(request);
            }
        }
    }

    fn believe(&self) {
        if let Some(trust) = &self.trust
            && let Some(Known::Held(Decoded::TrustBundle(bundle))) = self.client.known(Kind::TrustBundle, TRUST_BUNDLE)
        {
            trust.take(bundle);
        }
    }

    fn assemble(&mut self) {
        let generation = self.in_force.as_ref().map_or(1, |snapshot| snapshot.generation + 1);
        if let Some(snapshot) = assemble::assemble(&self.workload, &self.client, generation, self.in_force.as_ref())
            && self.in_force.replace(snapshot).is_none()
        {
            self.log.in_force.set(self.log.in_force.get() + 1);
        }
    }

    fn send(&mut self, request: DeltaDiscoveryRequest) {
        if let Some(outbound) = &self.outbound
            && outbound.try_send(request).is_err()
        {
            // A new stream says it all again.
            self.outbound = None;
        }
    }
}
