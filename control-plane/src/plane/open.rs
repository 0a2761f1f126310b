//! Where the objects come from, and whoever signs and vouches for what is made of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use ringfence_xds::resource::Resource;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Plane, PlaneError, STATE_DIR, admin_socket, close_memory,
    last::{self, LastPublished},
};
use crate::{
    admin,
    compile::Delta,
    feed::{
        self, Feeds,
        transfer::{self, Transfers},
    },
    fleet::Fleet,
    kubernetes::{
        Installation,
        trust::{sign, vouch},
    },
    say::say,
    signing::{self, Signer},
    sockets::Sockets,
    store::{
        Catalog, Loaded,
        kube::{Cluster, Ledger},
    },
    trust::{self, Trust, TrustConfig},
};

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
    /// Whether a directory that has faults at the start is served as it was published last.
    pub(crate) fall_back_to_last: bool,
}

/// Where the objects come from, and the first of them.
struct Origin {
    catalog: Catalog,
    loaded: Loaded,
    ledger: Option<Arc<Ledger>>,
    /// Of the cluster: its replicas share the keys.
    installation: Option<Installation>,
    /// In the place of a directory that has faults.
    standing: Option<Vec<Resource>>,
}

impl Plane {
    /// Reads the directory, publishes it under the seal of a configuration key and serves each workload's socket. Faults are printed, and
    /// are an error here, unless what was published last may be served in its place.
    pub(crate) async fn open(dir: &Path, config: PlaneConfig) -> Result<Self, PlaneError> {
        close_memory()?;
        // Links in it are followed at each reading anew.
        let dir = std::path::absolute(dir).map_err(PlaneError::at(dir))?;
        let mut catalog = Catalog::new(&dir).map_err(PlaneError::Watch)?;
        let mut loaded = catalog.load().map_err(PlaneError::at(&dir))?;
        if !loaded.faults.is_empty() && !config.fall_back_to_last {
            return Err(refused(dir, &loaded));
        }
        let state = dir.canonicalize().map_err(PlaneError::at(&dir))?.join(STATE_DIR);
        let (state, lock) = match lock(&state) {
            Ok(lock) => (Some(state), Some(lock)),
            Err(fs::TryLockError::WouldBlock) => return Err(PlaneError::Served { dir }),
            Err(fs::TryLockError::Error(error)) => {
                say(format_args!("ringfence: {}: {error}: `ringfence status` will not find this control plane", state.display()));
                (None, None)
            }
        };
        let mut standing = None;
        if !loaded.faults.is_empty() {
            let Some(before) = state.as_deref().and_then(last::load) else { return Err(refused(dir, &loaded)) };
            catalog.clear();
            loaded.delta = Delta { upserts: before.clone(), removed: Vec::new() };
            standing = Some(before);
        }
        let origin = Origin { catalog, loaded, ledger: None, installation: None, standing };
        Self::start(dir.display().to_string(), origin, (state, lock), config).await
    }

    /// The same of custom resources. One that has faults is as it was when it last had none, and its status says so; the others are served.
    /// `state`: a directory of our own, for what is fetched and transferred.
    pub(crate) async fn open_cluster(installation: &Installation, state: &Path, config: PlaneConfig) -> Result<Self, PlaneError> {
        close_memory()?;
        let lock = match lock(state) {
            Ok(lock) => lock,
            Err(fs::TryLockError::WouldBlock) => return Err(PlaneError::Served { dir: state.to_owned() }),
            Err(fs::TryLockError::Error(error)) => return Err(PlaneError::at(state)(error)),
        };
        let mut cluster = Cluster::new(&installation.client, state);
        let ledger = cluster.ledger();
        cluster.listed().await;
        let mut catalog = Catalog::of_cluster(cluster);
        catalog.load_last_accepted();
        let mut loaded = catalog.load()?;
        loaded.delta = Delta::between(&[], &catalog.resources().collect::<Vec<_>>());
        let origin = Origin { catalog, loaded, ledger: Some(ledger), installation: Some(installation.clone()), standing: None };
        Self::start("the cluster".to_owned(), origin, (Some(state.to_owned()), Some(lock)), config).await
    }

    async fn start(
        place: String,
        Origin { catalog, loaded, ledger, installation, standing }: Origin,
        (state, lock): (Option<PathBuf>, Option<fs::File>),
        config: PlaneConfig,
    ) -> Result<Self, PlaneError> {
        let mut faults: BTreeSet<String> = loaded.faults.iter().chain(&loaded.left_out).map(ToString::to_string).collect();
        faults.extend(standing.is_some().then(|| last::told(&place)));
        faults.iter().for_each(say);
        let sockets = config.sockets.map(|sockets| Sockets::new(&sockets).map_err(PlaneError::at(&sockets))).transpose()?;
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
                    (Some(_), None) => return Err(PlaneError::NowhereForKeys { place }),
                    (Some(config), Some(state)) => {
                        let trust = Trust::open(trust::dir(state), config, fleet.clone(), trust::since_epoch())?;
                        tokio::spawn(trust.clone().run());
                        Some(trust)
                    }
                }
            }
        };
        let state_dir = state.clone().unwrap_or_else(|| Path::new(&place).join(STATE_DIR));
        let (feeds, fed) = Feeds::new(&state_dir);
        let (transfers, transferred) = Transfers::new(&state_dir);
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let last = match (&state, &installation) {
            (Some(state), None) => Some(LastPublished::of(state, &fleet)),
            _ => None,
        };
        let name = |resource: &Resource| (resource.kind, resource.name.clone());
        let mut plane = Self {
            place,
            catalog,
            fleet,
            events,
            feeds,
            fed,
            transfers,
            transferred,
            unfilled: Default::default(),
            state,
            sockets,
            admin: config.admin,
            trust,
            trust_text,
            faults: Arc::new(Mutex::new(faults)),
            ledger,
            unfed: BTreeMap::new(),
            operators: Arc::default(),
            last,
            standing: standing.as_ref().map(|standing| standing.iter().map(name).collect()),
            _lock: lock,
            interrupt,
            terminate,
        };
        match &standing {
            None => say(format_args!("ringfence: {} objects in {}", plane.catalog.objects().count(), plane.place)),
            Some(before) => say(format_args!("ringfence: serving {} resources as published before", before.len())),
        }
        // No sidecar is told of an issuer without keys because it asked a moment too early.
        plane.feeds.reconcile(feed::wanted(plane.catalog.objects()));
        plane.transfers.reconcile(transfer::wanted(plane.catalog.objects()));
        tokio::join!(plane.feeds.tried(), plane.transfers.tried());
        let published = plane.publish(loaded);
        if let Some(last) = &plane.last {
            // Whatever fails from here on: it was signed.
            last.keep();
            tokio::spawn(last.clone().follow());
        }
        published.into_iter().next().map_or(Ok(()), Err)?;
        plane.take_up_first_transfers();
        plane.serve_admin()?;
        Ok(plane)
    }

    /// Answers `ringfence status DIR` and its like until the process ends.
    fn serve_admin(&self) -> Result<(), PlaneError> {
        let Some(state) = &self.state else { return Ok(()) };
        let socket = admin_socket(&self.admin);
        tokio::spawn(admin::serve(&socket, state, self.running()).map_err(PlaneError::at(&socket))?);
        Ok(())
    }

    pub(super) fn running(&self) -> admin::Running {
        admin::Running { fleet: self.fleet.clone(), faults: self.faults.clone(), trust: self.trust.clone() }
    }
}

fn refused(dir: PathBuf, loaded: &Loaded) -> PlaneError {
    loaded.faults.iter().for_each(say);
    PlaneError::Faults { dir, faults: loaded.faults.len() }
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
