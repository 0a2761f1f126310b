//! `ringfence up`: everything on one machine. A control plane that watches a directory, and a sidecar process for each Workload.

mod endpoints;
mod sidecar;

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::{AbortHandle, JoinHandle};

use crate::{
    demo,
    fleet::FleetEvent,
    plane::{Plane, PlaneConfig, PlaneError, Step},
    say::say,
    spec::{Object, Spec},
    trust::{DEFAULT_SVID_TTL, DEFAULT_TRUST_DOMAIN, TrustConfig},
};
use sidecar::{Joining, Paths, Sidecar};

/// Sidecars acknowledge within milliseconds; one that has not by then never will.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Workloads with this annotation get a demonstration workload at their upstreams.
const DEMO: &str = "ringfence.dev/demo-upstream";

#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error("Workload/{workload}: cannot start {}: {error}", program.display())]
    Start { workload: String, program: PathBuf, error: io::Error },
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

struct Up {
    plane: Plane,
    program: PathBuf,
    joining: Joining,
    /// What sidecars keep between runs.
    state: PathBuf,
    /// Unix sockets of operators, in a directory that ends with this process.
    sockets: tempfile::TempDir,
    sidecars: BTreeMap<String, Sidecar>,
    /// Draining; the next of the same name waits for it.
    stopping: BTreeMap<String, JoinHandle<()>>,
    demos: BTreeMap<SocketAddr, AbortHandle>,
}

/// Runs until SIGINT or SIGTERM. `notify`: for the notifications of primaries.
pub async fn up(dir: &Path, notify: Option<SocketAddr>) -> Result<(), UpError> {
    let sockets = tempfile::Builder::new().prefix("ringfence-").permissions(fs::Permissions::from_mode(0o700)).tempdir()?;
    let trust_domain = DEFAULT_TRUST_DOMAIN.parse().map_err(|error| UpError::NotReady(format!("trust domain: {error}")))?;
    let trust = TrustConfig { trust_domain, svid_ttl: DEFAULT_SVID_TTL, given: None };
    let config =
        PlaneConfig { sockets: None, admin: sockets.path().to_owned(), trust: Some(trust), config_key: None, fall_back_to_last: false };
    let plane = Plane::open(dir, config).await?;
    let (Some(state), Some(trust)) = (plane.state.clone(), plane.trust.clone()) else {
        return Err(UpError::NotReady(format!("{} must be writable", dir.display())));
    };
    let control_plane = plane.serve_tls(trust.clone(), (Ipv4Addr::LOCALHOST, 0).into()).await?;
    let joining = Joining { control_plane, trust };
    if let Some(address) = notify {
        say(format_args!("ringfence: notifications on {}", plane.serve_notify(address).await?));
    }
    let program = std::env::current_exe()?.with_file_name("ringfence-proxy");
    let (sidecars, stopping, demos) = Default::default();
    let mut up = Up { plane, program, joining, state, sockets, sidecars, stopping, demos };
    let outcome = up.run().await;
    up.stop().await;
    outcome
}

impl Up {
    async fn run(&mut self) -> Result<(), UpError> {
        self.reconcile().await?;
        self.become_ready().await?;
        endpoints::print(Path::new(&self.plane.place), self.plane.workloads(), |workload| {
            self.sidecars.get(workload).map(|sidecar| &sidecar.paths)
        })
        .await;
        say("ready");
        loop {
            match self.plane.step().await {
                Step::Reloaded => {
                    if let Err(error) = self.reconcile().await {
                        say(format_args!("ringfence: {error}"));
                    }
                }
                Step::Event(event) => self.tell(&event),
                Step::Fed => {}
                Step::Stop => {
                    say("ringfence: draining");
                    return Ok(());
                }
            }
        }
    }

    /// One sidecar for each Workload in force, and none for any other.
    async fn reconcile(&mut self) -> Result<(), UpError> {
        let workloads: Vec<Arc<Object>> = self.plane.workloads().cloned().collect();
        let gone: Vec<String> =
            self.sidecars.keys().filter(|name| workloads.iter().all(|object| *object.key.name != ***name)).cloned().collect();
        for name in gone {
            if let Some(sidecar) = self.sidecars.remove(&name) {
                let workload = name.clone();
                let stop = async move {
                    sidecar.stop().await;
                    say(format_args!("{workload}: stopped"));
                };
                self.stopping.insert(name, tokio::spawn(stop));
            }
        }
        let mut failed = None;
        for object in &workloads {
            self.demonstrate(object).await;
            let name = &*object.key.name;
            if !self.sidecars.contains_key(name) {
                if let Some(predecessor) = self.stopping.remove(name) {
                    let _ = predecessor.await;
                }
                let paths = Paths::new(&self.state, self.sockets.path(), name);
                match Sidecar::start(&self.program, name, paths, self.joining.clone()).await {
                    Ok(sidecar) => drop(self.sidecars.insert(name.into(), sidecar)),
                    Err(error) => failed = Some(UpError::Start { workload: name.into(), program: self.program.clone(), error }),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// A demonstration workload behind each upstream of a Workload that is annotated so.
    async fn demonstrate(&mut self, object: &Object) {
        let Spec::Workload(spec) = &object.spec else { return };
        if object.metadata.annotations.get(DEMO).map(String::as_str) != Some("true") {
            return;
        }
        for address in spec.inbound.iter().filter_map(|inbound| inbound.upstream.parse::<SocketAddr>().ok()) {
            if self.demos.contains_key(&address) {
                continue;
            }
            match demo::bind(address).await {
                Ok(listener) => {
                    self.demos.insert(address, tokio::spawn(demo::serve(listener)).abort_handle());
                }
                Err(error) => say(format_args!("{}: no demonstration workload at {address}: {error}", object.key.name)),
            }
        }
    }

    /// Returns when every sidecar enforces its policy; an error when one says that it cannot.
    async fn become_ready(&mut self) -> Result<(), UpError> {
        let fleet = self.plane.fleet.clone();
        let mut changes = fleet.changes();
        let deadline = tokio::time::sleep(READY_WITHIN);
        tokio::pin!(deadline);
        loop {
            changes.mark_unchanged();
            let waiting: Vec<String> = self.sidecars.keys().filter(|workload| !fleet.in_sync(workload)).cloned().collect();
            if waiting.is_empty() {
                return Ok(());
            }
            tokio::select! {
                _ = changes.changed() => {}
                step = self.plane.step() => match step {
                    Step::Reloaded => self.reconcile().await?,
                    Step::Event(event @ FleetEvent::Rejected { .. }) => {
                        self.tell(&event);
                        return Err(UpError::NotReady("a sidecar refused its configuration".into()));
                    }
                    Step::Event(_) | Step::Fed => {}
                    Step::Stop => return Err(UpError::NotReady("stopped before it was ready".into())),
                },
                () = &mut deadline => return Err(UpError::NotReady(format!("not acknowledged in time: {}", waiting.join(", ")))),
            }
        }
    }

    fn tell(&self, event: &FleetEvent) {
        match event {
            FleetEvent::Rejected { workload, rejections } => self.plane.tell(workload, rejections),
            // A sidecar that dies is told by whoever keeps it running.
            FleetEvent::Disconnected { .. } | FleetEvent::KeysWanted { .. } => {}
        }
    }

    async fn stop(self) {
        let sidecars: Vec<_> = self.sidecars.into_values().map(|sidecar| tokio::spawn(sidecar.stop())).collect();
        for sidecar in sidecars.into_iter().chain(self.stopping.into_values()) {
            let _ = sidecar.await;
        }
    }
}
