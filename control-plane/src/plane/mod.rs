//! The control plane: the objects of a directory or of a cluster, published to the sidecars that connect. `serve` is this alone, `up` this with
//! the sidecars.
//!
//! 1. `open`: where the objects come from, and whoever signs and vouches for what is published;
//! 2. `last`: what was published last, for a start at which the directory has faults;
//! 3. `outside`: keys and zones that are fetched elsewhere;
//! 4. here: edits, from the store to the fleet.

mod last;
mod open;
mod outside;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ringfence_xds::{
    decode::{Decoded, Rejection},
    resource::Kind as ResourceKind,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::{
    net::TcpListener,
    signal::unix::Signal,
    sync::{mpsc, watch},
};

use crate::{
    admin::{
        remote::{self, AdminConfig, AdminError, Operators},
        roles::{Operator, Role},
    },
    feed::{
        self, FeedEvent, Feeds,
        transfer::{self, TransferEvent, Transfers},
    },
    fleet::{Fleet, FleetEvent, ads},
    inject::WebhookError,
    kubernetes::{InstallationError, trust::TrustText},
    say::say,
    signing::{SigningError, set::SetError},
    sockets::Sockets,
    spec::{Kind, Object, ObjectKey, Spec},
    store::{Catalog, Loaded, kube::Ledger},
    trust::{Trust, TrustError},
};
use last::LastPublished;
pub(crate) use open::PlaneConfig;
use outside::Unfilled;

/// Where a directory's control plane keeps what is its own.
pub const STATE_DIR: &str = ".ringfence";

/// How long sidecars are waited for at the end.
pub(crate) const CLOSE: Duration = Duration::from_secs(1);

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
    #[error("{place} must be writable: the keys of the certificate authority are kept there")]
    NowhereForKeys { place: String },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

impl PlaneError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Path { path, error }
    }
}

pub(crate) struct Plane {
    /// Where the objects are, as the operator calls it.
    pub(crate) place: String,
    pub(crate) catalog: Catalog,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) events: mpsc::Receiver<FleetEvent>,
    feeds: Feeds,
    fed: mpsc::Receiver<FeedEvent>,
    transfers: Transfers,
    transferred: mpsc::Receiver<TransferEvent>,
    unfilled: Unfilled,
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
    /// None where there is no place for it, or the cluster keeps what was accepted last.
    last: Option<LastPublished>,
    /// What of that is in force because the directory has had faults ever since.
    standing: Option<Vec<(ResourceKind, Arc<str>)>>,
    /// Locked: two control planes on one directory would start its sidecars twice.
    _lock: Option<fs::File>,
    interrupt: Signal,
    terminate: Signal,
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
    /// Ends the streams, so that the sidecars know at once that they have to look for another control plane.
    pub(crate) async fn close(self) {
        // Whoever has not been told by then finds out.
        let _ = tokio::time::timeout(CLOSE, self.fleet.close()).await;
        if let Some(sockets) = &self.sockets {
            sockets.clear();
        }
        if let Some(last) = &self.last {
            last.keep();
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
            Err(error) => BTreeSet::from([format!("ringfence: {}: {error}; nothing was changed", self.place)]),
        };
        let errors = loaded.map(|loaded| self.take_up(loaded)).unwrap_or_default();
        let catalog = &self.catalog;
        self.unfed.retain(|key, _| catalog.object(key).is_some());
        faults.extend(self.unfed.values().cloned());
        faults.extend(self.standing.is_some().then(|| last::told(&self.place)));
        self.tell_faults(faults);
        for error in errors {
            say(format_args!("ringfence: {error}"));
        }
        self.fill_set_aside();
    }

    /// In the place of what was published before the start the directory comes whole, or not at all.
    fn take_up(&mut self, mut loaded: Loaded) -> Vec<PlaneError> {
        match self.standing.take() {
            None => self.publish(loaded),
            Some(standing) if loaded.faults.is_empty() => {
                let upserts: HashSet<(ResourceKind, &str)> =
                    loaded.delta.upserts.iter().map(|resource| (resource.kind, &*resource.name)).collect();
                let gone = standing.into_iter().filter(|(kind, name)| !upserts.contains(&(*kind, name))).collect::<Vec<_>>();
                loaded.delta.removed.extend(gone);
                self.publish(loaded)
            }
            Some(standing) => {
                self.catalog.clear();
                self.standing = Some(standing);
                Vec::new()
            }
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

    /// Pushes what is in force, one socket for each workload that is. Errors are those of single sockets.
    fn publish(&mut self, loaded: Loaded) -> Vec<PlaneError> {
        let mut delta = loaded.delta;
        let fetched = feed::wanted(self.catalog.objects());
        self.unfilled.compiled(&delta.upserts, |issuer| fetched.contains_key(issuer));
        self.feeds.reconcile(fetched);
        self.transfers.reconcile(transfer::wanted(self.catalog.objects()));
        self.feeds.fill(&mut delta.upserts);
        match self.standing {
            Some(_) => self.fleet.publish_signed(delta.upserts),
            None => self.fleet.publish(delta),
        }
        self.take_up_operators();
        let fleet = &self.fleet;
        let errors = self.sockets.as_mut().map(|sockets| sockets.serve(fleet.workloads(), fleet)).unwrap_or_default();
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

/// Secrets of every tenant: in no core file, and not for whatever else runs as this user (prctl(2), ptrace(2)).
pub(crate) fn close_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Where `ringfence status` asks, in a directory of the control plane's.
pub(crate) fn admin_socket(dir: &Path) -> PathBuf {
    dir.join("status.sock")
}
