//! The control plane of one machine: a directory's objects, published to the sidecars that connect. `serve` is this alone, `up` this with
//! the sidecars.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use ringfence_xds::{decode::Rejection, resource::Resource};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::AbortHandle,
};

use crate::{
    admin,
    feed::{self, FeedEvent, Feeds},
    fleet::{Fleet, FleetEvent, ads},
    say::say,
    spec::{Kind, Object, ObjectKey},
    store::{Catalog, Loaded},
};

/// Where a directory's control plane keeps what is its own.
pub const STATE_DIR: &str = ".ringfence";

/// Why the control plane does not run. Faults of the objects were printed by then.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    #[error("{}: {faults} {}: nothing was started", dir.display(), if *faults == 1 { "fault" } else { "faults" })]
    Faults { dir: PathBuf, faults: usize },
    #[error("{}: {error}", path.display())]
    Path { path: PathBuf, error: io::Error },
    #[error("cannot watch files: {0}")]
    Watch(io::Error),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("{}: another control plane serves this directory", dir.display())]
    Served { dir: PathBuf },
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(crate) struct Plane {
    pub(crate) dir: PathBuf,
    pub(crate) catalog: Catalog,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) events: mpsc::UnboundedReceiver<FleetEvent>,
    /// What the directory's objects come to, but for keys that are fetched.
    resources: Vec<Resource>,
    feeds: Feeds,
    fed: mpsc::Receiver<FeedEvent>,
    /// Directory of the workloads' sockets, if they have any.
    sockets: Option<PathBuf>,
    served: BTreeMap<String, AbortHandle>,
    /// Faults of the present files, for `status`; each was printed when it came.
    faults: Arc<Mutex<BTreeSet<String>>>,
    /// Of the feeds, by issuer; for `status` too.
    unfed: BTreeMap<String, String>,
    /// Locked: two control planes on one directory would start its sidecars twice.
    _lock: fs::File,
    interrupt: Signal,
    terminate: Signal,
}

/// What happened.
pub(crate) enum Step {
    /// An edit was taken up: the objects in force may have changed.
    Reloaded,
    /// Keys were fetched, or asked for.
    Fed,
    Event(FleetEvent),
    /// SIGINT or SIGTERM.
    Stop,
}

impl Plane {
    /// Reads the directory, publishes it and serves each workload's socket. Faults are printed, and are an error here.
    pub(crate) async fn open(dir: &Path, sockets: Option<PathBuf>) -> Result<Self, PlaneError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| PlaneError::Path { path, error }
        };
        // Links in it are followed at each reading anew.
        let dir = std::path::absolute(dir).map_err(at(dir))?;
        let mut catalog = Catalog::new(&dir).map_err(PlaneError::Watch)?;
        let loaded = catalog.load().map_err(at(&dir))?;
        if !loaded.faults.is_empty() {
            loaded.faults.iter().for_each(say);
            return Err(PlaneError::Faults { dir, faults: loaded.faults.len() });
        }
        if let Some(sockets) = &sockets {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(sockets).map_err(at(sockets))?;
        }
        let lock = lock(&dir)?;
        let (fleet, events) = Fleet::new();
        let (feeds, fed) = Feeds::new(&dir.join(STATE_DIR));
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut plane = Self {
            dir,
            catalog,
            fleet,
            events,
            resources: Vec::new(),
            feeds,
            fed,
            sockets,
            served: BTreeMap::new(),
            faults: Default::default(),
            unfed: BTreeMap::new(),
            _lock: lock,
            interrupt,
            terminate,
        };
        say(format_args!("ringfence: {} objects in {}", plane.catalog.objects().count(), plane.dir.display()));
        // No sidecar is told of an issuer without keys because it asked a moment too early.
        plane.feeds.reconcile(feed::wanted(plane.catalog.objects()));
        plane.feeds.tried().await;
        plane.publish(loaded)?;
        Ok(plane)
    }

    /// Answers `ringfence status DIR` until the process ends.
    pub(crate) fn serve_status(&self, sockets: &Path) -> Result<(), PlaneError> {
        let state = self.dir.join(STATE_DIR);
        let serve = admin::serve(&sockets.join("status.sock"), &state, self.fleet.clone(), self.faults.clone())?;
        tokio::spawn(serve);
        Ok(())
    }

    pub(crate) async fn serve_dangerous_plaintext(&self, address: SocketAddr) -> Result<SocketAddr, PlaneError> {
        let listen = |error| PlaneError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr()?;
        tokio::spawn(ads::serve_dangerous_plaintext(self.fleet.clone(), listener).map_err(listen)?);
        Ok(bound)
    }

    /// Waits for the next thing to happen. Edits are in force, and their faults printed, when it returns.
    pub(crate) async fn step(&mut self) -> Step {
        tokio::select! {
            edited = self.catalog.edited() => match edited {
                Ok(()) => {
                    self.reload();
                    Step::Reloaded
                }
                Err(error) => {
                    say(format_args!("ringfence: {}", PlaneError::Watch(error)));
                    Step::Stop
                }
            },
            event = self.events.recv() => match event {
                Some(FleetEvent::KeysWanted { issuers }) => {
                    issuers.iter().for_each(|issuer| self.feeds.refresh(issuer));
                    Step::Fed
                }
                event => event.map_or(Step::Stop, Step::Event),
            },
            Some(event) = self.fed.recv() => {
                self.on_feed(event);
                Step::Fed
            }
            _ = self.interrupt.recv() => Step::Stop,
            _ = self.terminate.recv() => Step::Stop,
        }
    }

    fn reload(&mut self) {
        let loaded = self.catalog.load();
        let mut faults: BTreeSet<String> = match &loaded {
            Ok(loaded) => loaded.faults.iter().map(ToString::to_string).collect(),
            Err(error) => BTreeSet::from([format!("ringfence: {}: {error}; nothing was changed", self.dir.display())]),
        };
        let issuers = &self.catalog;
        self.unfed.retain(|issuer, _| issuers.object(&issuer_key(issuer)).is_some());
        faults.extend(self.unfed.values().cloned());
        self.tell_faults(faults);
        if let Some(Err(error)) = loaded.ok().map(|loaded| self.publish(loaded)) {
            say(format_args!("ringfence: {error}"));
        }
    }

    /// Prints the faults that are new.
    fn tell_faults(&self, faults: BTreeSet<String>) {
        let mut told = self.faults.lock();
        for fault in faults.difference(&told) {
            say(fault);
        }
        if faults.is_empty() && !told.is_empty() {
            say("ringfence: all faults are mended");
        }
        *told = faults;
    }

    fn on_feed(&mut self, event: FeedEvent) {
        match event {
            FeedEvent::Changed { issuer, set_aside } => {
                for key in set_aside {
                    say(format_args!("Issuer/{issuer}: keys[{}] is not used: {}", key.index, key.reason));
                }
                self.push();
            }
            FeedEvent::Failed { issuer, message } => {
                let Some(object) = self.catalog.object(&issuer_key(&issuer)) else { return };
                let fault = object.fault("spec.jwks.uri", message).to_string();
                let mut faults = self.faults.lock().clone();
                if let Some(old) = self.unfed.insert(issuer.to_string(), fault.clone()) {
                    faults.remove(&old);
                }
                faults.insert(fault);
                self.tell_faults(faults);
            }
            FeedEvent::Recovered { issuer } => {
                let mut faults = self.faults.lock().clone();
                if let Some(fault) = self.unfed.remove(&*issuer) {
                    faults.remove(&fault);
                }
                self.tell_faults(faults);
            }
        }
    }

    /// Pushes the objects' resources with the keys that are held now. What did not change costs no sidecar anything.
    fn push(&self) {
        let mut resources = self.resources.clone();
        self.feeds.fill(&mut resources);
        self.fleet.publish(resources);
    }

    /// Pushes what is in force, one socket for each workload that is.
    fn publish(&mut self, loaded: Loaded) -> Result<(), PlaneError> {
        self.resources = loaded.resources;
        self.feeds.reconcile(feed::wanted(self.catalog.objects()));
        self.push();
        let Some(sockets) = &self.sockets else { return Ok(()) };
        let names: BTreeSet<String> = self.workloads().map(|object| object.key.name.to_string()).collect();
        let sockets = sockets.clone();
        self.served.retain(|name, serving| {
            let keep = names.contains(name);
            if !keep {
                serving.abort();
                // Gone already, if this fails.
                let _ = fs::remove_file(socket(&sockets, name));
            }
            keep
        });
        for name in names {
            if !self.served.contains_key(&name) {
                let path = socket(&sockets, &name);
                let serve = ads::serve_unix(self.fleet.clone(), &name, &path).map_err(|error| PlaneError::Path { path, error })?;
                self.served.insert(name, tokio::spawn(serve).abort_handle());
            }
        }
        Ok(())
    }

    pub(crate) fn workloads(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.catalog.objects().filter(|object| object.key.kind == Kind::Workload)
    }

    /// Prints what a sidecar refused, at the place that the operator wrote.
    pub(crate) fn tell(&self, workload: &str, rejections: &[Rejection]) {
        for rejection in rejections {
            let kind = Kind::ALL.iter().find(|kind| kind.as_str() == rejection.kind.as_str());
            let key = kind.map(|kind| ObjectKey { kind: *kind, name: rejection.name.as_str().into() });
            let object = key.and_then(|key| self.catalog.object(&key));
            for fault in &rejection.faults {
                match object {
                    Some(object) => {
                        let path = if fault.path.is_empty() { String::new() } else { format!("spec.{}", fault.path) };
                        say(format_args!("{} (said by the sidecar of {workload})", object.fault(path, fault.message.clone())));
                    }
                    None => say(format_args!("{workload}: {}/{}: {fault}", rejection.kind, rejection.name)),
                }
            }
        }
    }
}

fn issuer_key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::Issuer, name: name.into() }
}

/// The socket of a workload's sidecar.
pub(crate) fn socket(sockets: &Path, workload: &str) -> PathBuf {
    sockets.join(format!("{workload}.ads"))
}

/// Makes the state directory and takes its lock.
fn lock(dir: &Path) -> Result<fs::File, PlaneError> {
    let state = dir.join(STATE_DIR);
    let path = state.join("lock");
    let at = |error| PlaneError::Path { path: path.clone(), error };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(at)?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(PlaneError::Served { dir: dir.into() }),
        Err(fs::TryLockError::Error(error)) => Err(at(error)),
    }
}
