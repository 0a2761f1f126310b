//! The control plane: the objects of a directory or of a cluster, published to the sidecars that connect. `serve` is this alone, `up` this with
//! the sidecars.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ringfence_xds::{
    decode::{Decoded, Rejection},
    resource::{Kind as ResourceKind, Resource},
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    admin::{
        self,
        remote::{self, AdminConfig, AdminError, Operators},
        roles::{Operator, Role},
    },
    compile::Delta,
    feed::{
        self, FeedEvent, Feeds,
        transfer::{self, TransferEvent, Transfers},
    },
    fleet::{Fleet, FleetEvent, ads},
    inject::WebhookError,
    kubernetes::{
        Installation, InstallationError,
        crd::status::Place,
        trust::{TrustText, sign, vouch},
    },
    say::say,
    signing::{self, Signer, SigningError, set::SetError},
    sockets::Sockets,
    spec::{Kind, Object, ObjectKey, Spec},
    store::{
        Catalog, Loaded,
        kube::{Cluster, Ledger},
    },
    trust::{self, Trust, TrustConfig, TrustError},
};

/// Where a directory's control plane keeps what is its own.
pub const STATE_DIR: &str = ".ringfence";

/// How long sidecars are waited for at the end.
const CLOSE: Duration = Duration::from_secs(1);

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
    #[error("configuration key: {0}")]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Set(#[from] SetError),
    #[error("{}: another control plane serves this directory", dir.display())]
    Served { dir: PathBuf },
    #[error("admin: {0}")]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Installation(#[from] InstallationError),
    #[error("identities: {0}")]
    Trust(#[from] TrustError),
    #[error("{} must be writable: the keys of the certificate authority are kept there", dir.display())]
    NowhereForKeys { dir: PathBuf },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

pub(crate) struct Plane {
    pub(crate) dir: PathBuf,
    pub(crate) catalog: Catalog,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) events: mpsc::Receiver<FleetEvent>,
    feeds: Feeds,
    fed: mpsc::Receiver<FeedEvent>,
    transfers: Transfers,
    transferred: mpsc::Receiver<TransferEvent>,
    /// The issuers whose keys are fetched, as compiled: without.
    unfilled: BTreeMap<Arc<str>, Resource>,
    /// Our own directory, below the real one that is served; none where nothing can be written there (a mounted ConfigMap).
    pub(crate) state: Option<PathBuf>,
    /// Of the workloads, if they have any.
    sockets: Option<Sockets>,
    /// Directory of the socket that operators ask.
    admin: PathBuf,
    /// Who vouches for sidecars, where they have identities.
    pub(crate) trust: Option<Arc<Trust>>,
    /// Whom sidecars are to believe at their start, for those who give it to them in Kubernetes.
    pub(crate) trust_text: Option<watch::Receiver<TrustText>>,
    /// Faults of the present files, for `status`; each was printed when it came.
    faults: Arc<Mutex<BTreeSet<String>>>,
    /// For the status of custom resources.
    pub(crate) ledger: Option<Arc<Ledger>>,
    /// Of the feeds, by the object that they are for; for `status` too.
    unfed: BTreeMap<ObjectKey, String>,
    /// For the admin listener.
    operators: Arc<ArcSwap<Operators>>,
    /// Locked: two control planes on one directory would start its sidecars twice.
    _lock: Option<fs::File>,
    interrupt: Signal,
    terminate: Signal,
}

/// How a directory is served.
#[derive(Clone, Debug)]
pub(crate) struct PlaneConfig {
    /// For a Unix socket for each workload.
    pub(crate) sockets: Option<PathBuf>,
    /// For the socket that operators ask.
    pub(crate) admin: PathBuf,
    pub(crate) trust: Option<TrustConfig>,
    /// The configuration key; default: one of the directory's own.
    pub(crate) config_key: Option<PathBuf>,
}

/// Where the objects come from, and the first of them.
struct Origin {
    catalog: Catalog,
    loaded: Loaded,
    ledger: Option<Arc<Ledger>>,
    /// Of the cluster: its replicas share the keys.
    installation: Option<Installation>,
}

/// What happened.
pub(crate) enum Step {
    /// An edit was taken up: the objects in force may have changed.
    Reloaded,
    /// Something came from outside, or was asked for, and was seen to.
    Fed,
    Event(FleetEvent),
    /// SIGINT or SIGTERM.
    Stop,
}

impl Plane {
    /// Reads the directory, publishes it under the seal of a configuration key and serves each workload's socket. Faults are printed, and
    /// are an error here.
    pub(crate) async fn open(dir: &Path, config: PlaneConfig) -> Result<Self, PlaneError> {
        close_memory()?;
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
        let state = dir.canonicalize().map_err(at(&dir))?.join(STATE_DIR);
        let (state, lock) = match lock(&state) {
            Ok(lock) => (Some(state), Some(lock)),
            Err(fs::TryLockError::WouldBlock) => return Err(PlaneError::Served { dir }),
            Err(fs::TryLockError::Error(error)) => {
                say(format_args!("ringfence: {}: {error}: `ringfence status` will not find this control plane", state.display()));
                (None, None)
            }
        };
        Self::start(dir, Origin { catalog, loaded, ledger: None, installation: None }, (state, lock), config).await
    }

    /// The same of custom resources. One that has faults is as it was when it last had none, and its status says so; the others are served.
    /// `state`: a directory of our own, for what is fetched and transferred.
    pub(crate) async fn open_cluster(installation: &Installation, state: &Path, config: PlaneConfig) -> Result<Self, PlaneError> {
        close_memory()?;
        let at = |error| PlaneError::Path { path: state.to_owned(), error };
        let lock = match lock(state) {
            Ok(lock) => lock,
            Err(fs::TryLockError::WouldBlock) => return Err(PlaneError::Served { dir: state.to_owned() }),
            Err(fs::TryLockError::Error(error)) => return Err(at(error)),
        };
        let mut cluster = Cluster::new(&installation.client, state);
        let ledger = cluster.ledger();
        cluster.listed().await;
        let mut catalog = Catalog::of_cluster(cluster);
        catalog.load_last_accepted();
        let mut loaded = catalog.load()?;
        loaded.delta = Delta::between(&[], &catalog.resources().collect::<Vec<_>>());
        let origin = Origin { catalog, loaded, ledger: Some(ledger), installation: Some(installation.clone()) };
        Self::start(PathBuf::from("the cluster"), origin, (Some(state.to_owned()), Some(lock)), config).await
    }

    async fn start(
        dir: PathBuf,
        Origin { catalog, loaded, ledger, installation }: Origin,
        (state, lock): (Option<PathBuf>, Option<fs::File>),
        config: PlaneConfig,
    ) -> Result<Self, PlaneError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| PlaneError::Path { path, error }
        };
        let faults: BTreeSet<String> = loaded.faults.iter().chain(&loaded.left_out).map(ToString::to_string).collect();
        faults.iter().for_each(say);
        let sockets = config.sockets.map(|sockets| Sockets::new(&sockets).map_err(at(&sockets))).transpose()?;
        let (fleet, events) = Fleet::new();
        let mut trust_text = None;
        // What an authority publishes is signed as all else.
        let trust = match &installation {
            Some(Installation { client, namespace, .. }) => {
                let config_keys = sign(client, namespace, &fleet).await?;
                state.as_deref().map_or(Ok(()), |state| signing::publish(state, &config_keys))?;
                match &config.trust {
                    None => None,
                    Some(config) => {
                        let vouching = vouch(client, namespace, config, &fleet, config_keys).await?;
                        trust_text = Some(vouching.text);
                        Some(vouching.trust)
                    }
                }
            }
            None => {
                match Signer::open(state.as_deref(), config.config_key.as_deref())? {
                    Some(signer) => fleet.sign(signer),
                    None => say("ringfence: nothing is signed, for there is no place for a configuration key: --config-key FILE"),
                }
                match (&config.trust, &state) {
                    (None, _) => None,
                    (Some(_), None) => return Err(PlaneError::NowhereForKeys { dir }),
                    (Some(config), Some(state)) => {
                        let trust = Trust::open(trust::dir(state), config, fleet.clone(), trust::since_epoch())?;
                        tokio::spawn(trust.clone().run());
                        Some(trust)
                    }
                }
            }
        };
        let state_dir = state.clone().unwrap_or_else(|| dir.join(STATE_DIR));
        let (feeds, fed) = Feeds::new(&state_dir);
        let (transfers, transferred) = Transfers::new(&state_dir);
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut plane = Self {
            dir,
            catalog,
            fleet,
            events,
            feeds,
            fed,
            transfers,
            transferred,
            unfilled: BTreeMap::new(),
            state,
            sockets,
            admin: config.admin,
            trust,
            trust_text,
            faults: Arc::new(Mutex::new(faults)),
            ledger,
            unfed: BTreeMap::new(),
            operators: Arc::default(),
            _lock: lock,
            interrupt,
            terminate,
        };
        say(format_args!("ringfence: {} objects in {}", plane.catalog.objects().count(), plane.dir.display()));
        // No sidecar is told of an issuer without keys because it asked a moment too early.
        plane.feeds.reconcile(feed::wanted(plane.catalog.objects()));
        plane.transfers.reconcile(transfer::wanted(plane.catalog.objects()));
        tokio::join!(plane.feeds.tried(), plane.transfers.tried());
        plane.publish(loaded).into_iter().next().map_or(Ok(()), Err)?;
        plane.take_up_first_transfers();
        plane.serve_admin()?;
        Ok(plane)
    }

    /// Answers `ringfence status DIR` and its like until the process ends.
    fn serve_admin(&self) -> Result<(), PlaneError> {
        let Some(state) = &self.state else { return Ok(()) };
        let socket = admin_socket(&self.admin);
        let at = |error| PlaneError::Path { path: socket.clone(), error };
        tokio::spawn(admin::serve(&socket, state, self.running()).map_err(at)?);
        Ok(())
    }

    fn running(&self) -> admin::Running {
        admin::Running { fleet: self.fleet.clone(), faults: self.faults.clone(), trust: self.trust.clone() }
    }

    /// Ends the streams, so that the sidecars know at once that they have to look for another control plane.
    pub(crate) async fn close(self) {
        // Whoever has not been told by then finds out.
        let _ = tokio::time::timeout(CLOSE, self.fleet.close()).await;
        if let Some(sockets) = &self.sockets {
            sockets.clear();
        }
        // Gone already, if this fails.
        let _ = fs::remove_file(admin_socket(&self.admin));
    }

    pub(crate) async fn serve_dangerous_plaintext(&self, address: SocketAddr) -> Result<SocketAddr, PlaneError> {
        let listen = |error| PlaneError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr()?;
        tokio::spawn(ads::serve_dangerous_plaintext(self.fleet.clone(), listener).map_err(listen)?);
        Ok(bound)
    }

    /// Answers operators elsewhere.
    pub(crate) async fn serve_operators(&self, config: &AdminConfig) -> Result<SocketAddr, PlaneError> {
        let state = remote::State { running: self.running(), operators: self.operators.clone() };
        let (bound, serving) = remote::serve(config, state).await?;
        tokio::spawn(serving);
        Ok(bound)
    }

    /// Serves sidecars by their SVIDs.
    pub(crate) async fn serve_tls(&self, trust: Arc<Trust>, address: SocketAddr) -> Result<SocketAddr, PlaneError> {
        let listen = |error| PlaneError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr()?;
        tokio::spawn(ads::serve_tls(self.fleet.clone(), trust, listener));
        Ok(bound)
    }

    pub(crate) async fn serve_notify(&self, address: SocketAddr) -> Result<SocketAddr, PlaneError> {
        self.transfers.listen(address).await.map_err(|error| PlaneError::Listen { address, error })
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
            Some(event) = self.transferred.recv() => self.on_transfer(event),
            _ = self.interrupt.recv() => Step::Stop,
            _ = self.terminate.recv() => Step::Stop,
        }
    }

    fn reload(&mut self) {
        // Compiling a long zone takes a second, in which the sidecars are served by others.
        let loaded = tokio::task::block_in_place(|| self.catalog.load());
        let mut faults: BTreeSet<String> = match &loaded {
            Ok(loaded) => loaded.faults.iter().chain(&loaded.left_out).map(ToString::to_string).collect(),
            Err(error) => BTreeSet::from([format!("ringfence: {}: {error}; nothing was changed", self.dir.display())]),
        };
        let catalog = &self.catalog;
        self.unfed.retain(|key, _| catalog.object(key).is_some());
        faults.extend(self.unfed.values().cloned());
        self.tell_faults(faults);
        for error in loaded.map(|loaded| self.publish(loaded)).unwrap_or_default() {
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
                if let Some(resource) = self.unfilled.get(&*issuer) {
                    let mut upserts = vec![resource.clone()];
                    self.feeds.fill(&mut upserts);
                    self.fleet.publish(Delta { upserts, removed: Vec::new() });
                    self.take_up_operators();
                }
            }
            FeedEvent::Failed { issuer, message } => self.on_failed(issuer_key(&issuer), "spec.jwks.uri", message),
            FeedEvent::Recovered { issuer } => self.on_recovered(&issuer_key(&issuer)),
        }
    }

    fn on_transfer(&mut self, event: TransferEvent) -> Step {
        match event {
            TransferEvent::Changed { zone, serial } => {
                say(format_args!("PolicyZone/{zone}: serial {serial} was transferred"));
                // Its object is made of the file that the transfer has left.
                self.reload();
                return Step::Reloaded;
            }
            TransferEvent::Failed { zone, message } => self.on_failed(zone_key(&zone), "spec.transfer.primary", message),
            TransferEvent::Recovered { zone } => self.on_recovered(&zone_key(&zone)),
        }
        Step::Fed
    }

    /// No sidecar is told of a policy without zones that have come by now.
    fn take_up_first_transfers(&mut self) {
        while let Ok(event) = self.transferred.try_recv() {
            self.on_transfer(event);
        }
    }

    /// Something from outside cannot be had, or not be kept.
    fn on_failed(&mut self, key: ObjectKey, path: &str, message: String) {
        let Some(object) = self.catalog.object(&key) else { return };
        if let Some(ledger) = &self.ledger {
            ledger.feed(&key, Some(Place { path: path.to_owned(), message: message.clone() }));
        }
        let fault = object.fault(path, message).to_string();
        let mut faults = self.faults.lock().clone();
        if let Some(old) = self.unfed.insert(key, fault.clone()) {
            faults.remove(&old);
        }
        faults.insert(fault);
        self.tell_faults(faults);
    }

    fn on_recovered(&mut self, key: &ObjectKey) {
        if let Some(ledger) = &self.ledger {
            ledger.feed(key, None);
        }
        let mut faults = self.faults.lock().clone();
        if let Some(fault) = self.unfed.remove(key) {
            faults.remove(&fault);
        }
        self.tell_faults(faults);
    }

    /// Pushes what is in force, one socket for each workload that is. Errors are those of single sockets.
    fn publish(&mut self, loaded: Loaded) -> Vec<PlaneError> {
        let mut delta = loaded.delta;
        let fetched = feed::wanted(self.catalog.objects());
        self.unfilled.retain(|issuer, _| fetched.contains_key(issuer));
        for resource in
            delta.upserts.iter().filter(|resource| resource.kind == ResourceKind::Issuer && fetched.contains_key(&resource.name))
        {
            self.unfilled.insert(resource.name.clone(), resource.clone());
        }
        self.feeds.reconcile(fetched);
        self.transfers.reconcile(transfer::wanted(self.catalog.objects()));
        self.feeds.fill(&mut delta.upserts);
        self.fleet.publish(delta);
        self.take_up_operators();
        let names: BTreeSet<String> = self.workloads().map(|object| object.key.name.to_string()).collect();
        let errors = self.sockets.as_mut().map(|sockets| sockets.serve(names, &self.fleet)).unwrap_or_default();
        errors.into_iter().map(|(path, error)| PlaneError::Path { path, error }).collect()
    }

    /// Operators are known by what their issuers publish at the time.
    fn take_up_operators(&self) {
        let platform = self.catalog.objects().find_map(|object| match &object.spec {
            Spec::Platform(platform) => Some(platform),
            _ => None,
        });
        let written = platform.map(|platform| platform.operators.as_slice()).unwrap_or_default();
        let names: BTreeSet<&str> = written.iter().map(|operator| operator.issuer.as_str()).collect();
        let issuer = |name: &str| match self.fleet.issuer(name) {
            Some(Decoded::Issuer(issuer)) => Some(issuer),
            _ => None,
        };
        let issuers = names.into_iter().filter_map(issuer).collect();
        let operators = written.iter().flat_map(|operator| {
            let role = Role::read(&operator.role, operator.tenant.as_deref()).ok();
            operator.subjects.iter().filter_map(move |subject| {
                Some(Operator { issuer: operator.issuer.clone(), subject: subject.clone(), role: role.clone()? })
            })
        });
        self.operators.store(Arc::new(Operators { issuers, operators: operators.collect() }));
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

fn zone_key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::PolicyZone, name: name.into() }
}

/// Secrets of every tenant: in no core file, and not for whatever else runs as this user (prctl(2), ptrace(2)).
pub(crate) fn close_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn admin_socket(dir: &Path) -> PathBuf {
    dir.join("status.sock")
}

/// Makes the state directory and takes its lock.
fn lock(state: &Path) -> Result<fs::File, fs::TryLockError> {
    let file = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
        fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(state.join("lock"))
    };
    let file = file().map_err(fs::TryLockError::Error)?;
    file.try_lock().map(|()| file)
}
