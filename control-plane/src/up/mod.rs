//! `ringfence up`: everything on one machine. A control plane that watches a directory, and a sidecar process for each Workload.

mod endpoints;
mod sidecar;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ringfence_xds::decode::Rejection;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::AbortHandle,
};

use crate::{
    demo,
    fleet::{Fleet, FleetEvent, ads},
    spec::{Kind, Object, ObjectKey, Spec},
    store::{Catalog, Loaded, watch::Watch},
};
use sidecar::{Paths, Sidecar};

/// Sidecars acknowledge within milliseconds; one that has not by then never will.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Workloads with this annotation get a demonstration workload at their upstreams.
const DEMO: &str = "ringfence.dev/demo-upstream";

/// Why `up` ends with 1. Faults of the objects were printed by then.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error("{0}: nothing was started")]
    Faults(String),
    #[error("{}: {error}", path.display())]
    Dir { path: PathBuf, error: io::Error },
    #[error("cannot watch {}: {error}", path.display())]
    Watch { path: PathBuf, error: notify::Error },
    #[error("Workload/{workload}: cannot start {}: {error}", program.display())]
    Start { workload: String, program: PathBuf, error: io::Error },
    #[error("{0}")]
    NotReady(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

struct Up {
    dir: PathBuf,
    program: PathBuf,
    catalog: Catalog,
    fleet: Arc<Fleet>,
    /// Unix sockets, in a directory that ends with this process.
    sockets: tempfile::TempDir,
    running: BTreeMap<String, Running>,
    demos: BTreeMap<SocketAddr, AbortHandle>,
    /// Faults printed already, so that each is told once per edit that makes it.
    told: BTreeSet<String>,
}

struct Running {
    sidecar: Sidecar,
    ads: AbortHandle,
}

/// Runs until SIGINT or SIGTERM.
pub async fn up(dir: &Path) -> Result<(), UpError> {
    let at_dir = |error| UpError::Dir { path: dir.into(), error };
    let dir = dir.canonicalize().map_err(at_dir)?;
    // Before the first read, so that no edit falls between the two.
    let mut watch = Watch::new(&dir).map_err(|error| UpError::Watch { path: dir.clone(), error })?;
    let mut catalog = Catalog::new(&dir);
    let loaded = catalog.load()?;
    if !loaded.faults.is_empty() {
        loaded.faults.iter().for_each(|fault| println!("{fault}"));
        return Err(UpError::Faults(format!("{} faults in {}", loaded.faults.len(), dir.display())));
    }
    let (fleet, mut events) = Fleet::new();
    let sockets = tempfile::Builder::new().prefix("ringfence-").tempdir()?; // 0700
    let program = std::env::current_exe()?.with_file_name("ringfence-proxy");
    let mut up = Up { dir, program, catalog, fleet, sockets, running: BTreeMap::new(), demos: BTreeMap::new(), told: BTreeSet::new() };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);

    println!("ringfence: {} objects in {}", up.catalog.objects().count(), up.dir.display());
    up.also_watch(&loaded, &mut watch);
    up.fleet.publish(loaded.resources);
    let started = match up.reconcile().await {
        Ok(()) => tokio::select! {
            ready = up.become_ready(&mut events) => ready,
            _ = interrupt.recv() => Err(UpError::NotReady("interrupted".into())),
            _ = terminate.recv() => Err(UpError::NotReady("terminated".into())),
        },
        Err(error) => Err(error),
    };
    if let Err(error) = started {
        up.stop().await;
        return Err(error);
    }
    up.print_endpoints().await;
    println!("ready");

    loop {
        tokio::select! {
            changes = watch.burst() => match changes {
                Some(changes) => {
                    changes.into_iter().for_each(|change| up.catalog.note(change));
                    up.reload(&mut watch).await;
                }
                None => break,
            },
            event = events.recv() => match event {
                Some(event) => up.tell(&event),
                None => break,
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    println!("ringfence: draining");
    up.stop().await;
    Ok(())
}

impl Up {
    fn also_watch(&self, loaded: &Loaded, watch: &mut Watch) {
        for path in &loaded.needs {
            if let Err(error) = watch.also(path) {
                println!("ringfence: cannot watch {}: {error}", path.display());
            }
        }
    }

    async fn reload(&mut self, watch: &mut Watch) {
        let loaded = match self.catalog.load() {
            Ok(loaded) => loaded,
            Err(error) => return println!("ringfence: {error}; nothing was changed"),
        };
        self.also_watch(&loaded, watch);
        let faults: BTreeSet<String> = loaded.faults.iter().map(ToString::to_string).collect();
        for fault in faults.difference(&self.told) {
            println!("{fault}");
        }
        if faults.is_empty() && !self.told.is_empty() {
            println!("ringfence: all faults are mended");
        }
        self.told = faults;
        self.fleet.publish(loaded.resources);
        if let Err(error) = self.reconcile().await {
            println!("ringfence: {error}");
        }
    }

    /// One sidecar for each Workload in force, and none for any other.
    async fn reconcile(&mut self) -> Result<(), UpError> {
        let workloads: Vec<Arc<Object>> = self.catalog.objects().filter(|object| object.key.kind == Kind::Workload).cloned().collect();
        let names: BTreeSet<String> = workloads.iter().map(|object| object.key.name.to_string()).collect();
        let gone: Vec<String> = self.running.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            if let Some(running) = self.running.remove(&name) {
                running.ads.abort();
                running.sidecar.stop().await;
                println!("{name}: stopped");
            }
        }
        for object in &workloads {
            self.demonstrate(object).await;
            if !self.running.contains_key(&*object.key.name) {
                let running = self.start(&object.key.name).await?;
                self.running.insert(object.key.name.to_string(), running);
            }
        }
        Ok(())
    }

    async fn start(&self, workload: &str) -> Result<Running, UpError> {
        let state = self.dir.join(".ringfence");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
        let paths = Paths::new(&state, self.sockets.path(), workload);
        let serve = ads::serve_unix(self.fleet.clone(), workload, &paths.ads)?;
        let ads = tokio::spawn(serve).abort_handle();
        let sidecar = Sidecar::start(&self.program, workload, paths).map_err(|error| {
            ads.abort();
            UpError::Start { workload: workload.into(), program: self.program.clone(), error }
        })?;
        Ok(Running { sidecar, ads })
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
                Err(error) => println!("{}: no demonstration workload at {address}: {error}", object.key.name),
            }
        }
    }

    /// Returns when every sidecar enforces its policy; an error when one says that it cannot.
    async fn become_ready(&mut self, events: &mut tokio::sync::mpsc::UnboundedReceiver<FleetEvent>) -> Result<(), UpError> {
        let mut changes = self.fleet.changes();
        let deadline = tokio::time::sleep(READY_WITHIN);
        tokio::pin!(deadline);
        loop {
            changes.mark_unchanged();
            let waiting: Vec<&String> = self.running.keys().filter(|workload| !self.fleet.in_sync(workload)).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            let waiting = waiting.into_iter().cloned().collect::<Vec<_>>().join(", ");
            tokio::select! {
                _ = changes.changed() => {}
                event = events.recv() => if let Some(event @ FleetEvent::Rejected { .. }) = event {
                    self.tell(&event);
                    return Err(UpError::NotReady("a sidecar refused its configuration".into()));
                },
                () = &mut deadline => return Err(UpError::NotReady(format!("not acknowledged in time: {waiting}"))),
            }
        }
    }

    fn tell(&self, event: &FleetEvent) {
        match event {
            FleetEvent::Rejected { workload, rejections } => {
                for rejection in rejections {
                    self.tell_rejection(workload, rejection);
                }
            }
            FleetEvent::Disconnected { .. } => {} // a sidecar that dies is told by whoever keeps it running
        }
    }

    /// A sidecar's refusal, at the place that the operator wrote.
    fn tell_rejection(&self, workload: &str, rejection: &Rejection) {
        let kind = Kind::ALL.iter().find(|kind| kind.as_str() == rejection.kind.as_str());
        let key = kind.map(|kind| ObjectKey { kind: *kind, name: rejection.name.as_str().into() });
        let object = key.and_then(|key| self.catalog.object(&key));
        for fault in &rejection.faults {
            match object {
                Some(object) => {
                    let path = if fault.path.is_empty() { String::new() } else { format!("spec.{}", fault.path) };
                    println!("{} (said by the sidecar of {workload})", object.fault(path, fault.message.clone()));
                }
                None => println!("{workload}: {}/{}: {fault}", rejection.kind, rejection.name),
            }
        }
    }

    async fn print_endpoints(&self) {
        endpoints::print(&self.dir, self.catalog.objects(), |workload| self.running.get(workload).map(|running| running.sidecar.paths.clone())).await;
    }

    async fn stop(self) {
        let sidecars: Vec<_> = self.running.into_values().map(|running| tokio::spawn(running.sidecar.stop())).collect();
        for sidecar in sidecars {
            let _ = sidecar.await;
        }
    }
}
