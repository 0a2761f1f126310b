//! Many sidecars in one process: each has the sidecar's own connection and state machine, and no traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ringfence_proxy::{
    bootstrap::ControlPlane,
    config::stream::{self, StreamEvent},
};
use ringfence_xds::{
    assemble,
    client::Client,
    decode::{Decoded, Fault, Rejection},
    generated::discovery::DeltaDiscoveryRequest,
    resource::Kind,
};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::eventually;

pub struct Crowd {
    members: Arc<Mutex<BTreeMap<String, Member>>>,
    /// Its own, so that it ends with it.
    _runtime: Runtime,
}

/// What one sidecar has come to.
#[derive(Clone, Debug, Default)]
pub struct Member {
    pub connected: bool,
    /// Every resource in force, by kind and name, in its version.
    pub held: BTreeMap<String, String>,
    /// When a response was last put in force, or refused.
    pub answered: Option<Instant>,
    pub refused: usize,
}

impl Crowd {
    /// A sidecar for each of `workloads`. It refuses listeners on a port in `occupied`, as one that cannot bind them does.
    pub fn connect(sockets: &Path, workloads: impl IntoIterator<Item = String>, occupied: &'static [u16]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let members: Arc<Mutex<BTreeMap<String, Member>>> = Arc::default();
        for workload in workloads {
            members.lock().unwrap().insert(workload.clone(), Member::default());
            let (events, stream) = mpsc::channel(1);
            runtime.spawn(stream::run(ControlPlane::Unix(sockets.join(format!("{workload}.ads"))), None, events));
            runtime.spawn(live(workload, stream, members.clone(), occupied));
        }
        Self { members, _runtime: runtime }
    }

    pub fn members(&self) -> BTreeMap<String, Member> {
        self.members.lock().unwrap().clone()
    }

    /// Waits until so many fit.
    #[track_caller]
    pub fn until(&self, what: &str, count: usize, fits: impl Fn(&str, &Member) -> bool) {
        eventually(what, || {
            let members = self.members.lock().unwrap();
            (members.iter().filter(|(name, member)| fits(name, member)).count() == count).then_some(())
        });
    }

    /// How long after `from` each of those who have answered since has done so; sorted.
    pub fn answered_since(&self, from: Instant) -> Vec<Duration> {
        let members = self.members.lock().unwrap();
        let mut times: Vec<Duration> =
            members.values().filter_map(|member| member.answered?.checked_duration_since(from)).filter(|time| !time.is_zero()).collect();
        times.sort();
        times
    }
}

async fn live(
    workload: String,
    mut stream: mpsc::Receiver<StreamEvent>,
    members: Arc<Mutex<BTreeMap<String, Member>>>,
    occupied: &'static [u16],
) {
    let mut client = Client::new(workload.as_str());
    let mut outbound: Option<mpsc::Sender<DeltaDiscoveryRequest>> = None;
    while let Some(event) = stream.recv().await {
        let mut requests = Vec::new();
        let (mut answered, mut refused) = (None, 0);
        match event {
            StreamEvent::Connected(sender) => {
                outbound = Some(sender);
                want(&workload, &mut client);
                requests = client.connected();
            }
            StreamEvent::Response { response, done } => {
                let mut update = client.receive(response);
                for upsert in &update.upserts {
                    let Decoded::Workload(policy) = &upsert.decoded else { continue };
                    if policy.inbound.iter().any(|listener| occupied.contains(&listener.listen.port())) {
                        let faults = vec![Fault { path: "inbound[0].listen".into(), message: "cannot listen: in use".into() }];
                        update.rejections.push(Rejection { kind: Kind::Workload, name: policy.name.to_string(), faults });
                    }
                }
                refused = update.rejections.len();
                let answer = client.finish(update);
                requests.extend(want(&workload, &mut client));
                requests.extend(answer);
                answered = Some(Instant::now());
                let _ = done.send(());
            }
            StreamEvent::Answered => {}
            StreamEvent::Disconnected(_) => outbound = None,
        }
        if let Some(outbound) = &outbound {
            for request in requests {
                // The stream has ended, if this fails.
                let _ = outbound.send(request).await;
            }
        }
        let held = client.held().map(|held| (format!("{}/{}", held.kind, held.name), held.version.to_string())).collect();
        if let Some(member) = members.lock().unwrap().get_mut(&workload) {
            member.connected = outbound.is_some();
            member.held = held;
            member.refused += refused;
            member.answered = answered.or(member.answered);
        }
    }
}

fn want(workload: &str, client: &mut Client) -> Vec<DeltaDiscoveryRequest> {
    let wanted = assemble::wanted(workload, &BTreeSet::new(), client);
    wanted.into_iter().filter_map(|(kind, names)| client.want(kind, names)).collect()
}
