//! `ringfence serve --signed`: serves what somebody else has compiled and signed. Whoever takes this process over can keep policy from
//! sidecars, and make none. Where it certifies, they can speak as any sidecar until the author leaves its authority out of the set.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use ringfence_xds::{policy::TrustBundle, resource::Kind, seal::ConfigKeys};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    admin,
    compile::Delta,
    fleet::{Fleet, FleetEvent, ads},
    plane::{self, PlaneError, STATE_DIR},
    say::say,
    signing::{self, set::SignedSet},
    sockets::Sockets,
    store::WatchedFile,
    trust::{self, SignedTrustConfig, Trust, TrustError},
};

/// What is served, and where sidecars connect.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// A file of `ringfence sign`.
    pub signed: PathBuf,
    /// A file of public keys, one of which must have signed it.
    pub config_keys: PathBuf,
    /// A directory with a Unix socket for each workload.
    pub sockets: Option<PathBuf>,
    /// Loopback, without authentication.
    pub dangerous_plaintext: Option<SocketAddr>,
    /// For mutual TLS, under the bundle that the set holds.
    pub tls: Option<(SocketAddr, SignedTrustConfig)>,
    /// Where `ringfence status` and `join` find this process; default: the sockets' directory, if there is one.
    pub state_dir: Option<PathBuf>,
}

struct Replica {
    file: PathBuf,
    keys: ConfigKeys,
    /// Published.
    set: SignedSet,
    fleet: Arc<Fleet>,
    sockets: Option<Sockets>,
    /// Certifies, where there are identities.
    trust: Option<Arc<Trust>>,
    /// Why the present file is not used, for `status`.
    faults: Arc<Mutex<BTreeSet<String>>>,
}

/// Runs until SIGINT or SIGTERM.
pub async fn serve(config: &ReplicaConfig) -> Result<(), PlaneError> {
    plane::close_memory()?;
    let keys = signing::config_keys(&config.config_keys)?;
    let mut watched = WatchedFile::new(&config.signed).map_err(PlaneError::Watch)?;
    let (fleet, mut events) = Fleet::new();
    let sockets = config.sockets.as_ref().map(|dir| Sockets::new(dir).map_err(PlaneError::at(dir))).transpose()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (set, trust, faults) = Default::default();
    let mut replica = Replica { file: config.signed.clone(), keys, set, fleet, sockets, trust, faults };
    replica.take_up()?;
    if let Some((address, config)) = &config.tls {
        say(format_args!("ringfence: TLS on {}", replica.serve_tls(*address, config).await?));
    }
    if let Some(dir) = config.state_dir.as_deref().or_else(|| replica.sockets.as_ref().map(Sockets::dir)) {
        replica.serve_status(dir).map_err(PlaneError::at(dir))?;
    }
    if let Some(sockets) = &config.sockets {
        say(format_args!("ringfence: sockets in {}", sockets.display()));
    }
    if let Some(address) = config.dangerous_plaintext {
        let listen = |error| PlaneError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr()?;
        tokio::spawn(ads::serve_dangerous_plaintext(replica.fleet.clone(), listener).map_err(listen)?);
        say(format_args!("ringfence: plaintext on {bound}"));
    }
    say("ready");
    loop {
        tokio::select! {
            edited = watched.edited() => {
                edited.map_err(PlaneError::Watch)?;
                replica.follow();
            }
            Some(event) = events.recv() => tell(&event),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    // Whoever has not been told by then finds out.
    let _ = tokio::time::timeout(plane::CLOSE, replica.fleet.close()).await;
    if let Some(sockets) = &replica.sockets {
        sockets.clear();
    }
    Ok(())
}

impl Replica {
    /// Publishes what the file holds, or leaves all as it was.
    fn take_up(&mut self) -> Result<(), PlaneError> {
        // A large set takes its time, in which sidecars are served by others.
        let next = tokio::task::block_in_place(|| SignedSet::read(&self.file, &self.keys, &self.set))?;
        let now = trust::since_epoch();
        // A set under which nobody could be certified here is not used.
        let prepared = match &self.trust {
            Some(trust) => trust.prepare(&bundle_of(&next)?, now)?,
            None => None,
        };
        self.fleet.publish(between(&self.set, &next));
        if let Some((trust, prepared)) = self.trust.as_ref().zip(prepared) {
            trust.go_on(prepared, now);
        }
        let workloads = next.resources().filter(|resource| resource.kind == Kind::Workload);
        let names: BTreeSet<String> = workloads.map(|workload| workload.name.to_string()).collect();
        say(format_args!("ringfence: {} resources, signed at epoch {}", next.resources().count(), next.epoch));
        self.set = next;
        let errors = self.sockets.as_mut().map(|sockets| sockets.serve(names, &self.fleet)).unwrap_or_default();
        errors.into_iter().next().map_or(Ok(()), |(path, error)| Err(PlaneError::Path { path, error }))
    }

    fn follow(&mut self) {
        let taken_up = self.take_up();
        let mut faults = self.faults.lock();
        faults.clear();
        if let Err(error) = taken_up {
            let fault = format!("ringfence: {error}");
            say(&fault);
            faults.insert(fault);
        }
    }

    /// By an intermediate of the operator's: this process vouches for sidecars, and whom they believe is signed as all else.
    async fn serve_tls(&mut self, address: SocketAddr, config: &SignedTrustConfig) -> Result<SocketAddr, PlaneError> {
        let listen = |error| PlaneError::Listen { address, error };
        let trust = Trust::under(&bundle_of(&self.set)?, config, self.fleet.clone(), trust::since_epoch())?;
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr()?;
        tokio::spawn(trust.clone().run());
        tokio::spawn(ads::serve_tls(self.fleet.clone(), trust.clone(), listener));
        self.trust = Some(trust);
        Ok(bound)
    }

    fn running(&self) -> admin::Running {
        admin::Running { fleet: self.fleet.clone(), faults: self.faults.clone(), trust: self.trust.clone() }
    }

    /// Answers `ringfence status DIR` and its like until the process ends.
    fn serve_status(&self, dir: &Path) -> io::Result<()> {
        let state = dir.join(STATE_DIR);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
        let socket = self.sockets.as_ref().map_or_else(|| plane::admin_socket(&state), Sockets::status);
        tokio::spawn(admin::serve(&socket, &state, self.running())?);
        Ok(())
    }
}

fn bundle_of(set: &SignedSet) -> Result<TrustBundle, TrustError> {
    trust::bundle_among(set.resources()).ok_or(TrustError::NoAuthorities)
}

/// The same content under a later seal counts as changed: it takes the place of the earlier, and is not sent for that.
fn between(before: &SignedSet, next: &SignedSet) -> Delta {
    let known = |resource: &_| before.get(resource) == Some(resource);
    Delta {
        upserts: next.resources().filter(|resource| !known(resource)).cloned().collect(),
        removed: before.resources().filter(|old| next.get(old).is_none()).map(|old| (old.kind, old.name.clone())).collect(),
    }
}

fn tell(event: &FleetEvent) {
    match event {
        FleetEvent::Rejected { workload, rejections } => {
            for rejection in rejections {
                say(format_args!("{rejection} (said by the sidecar of {workload})"));
            }
        }
        FleetEvent::Disconnected { workload } => say(format_args!("{workload}: a sidecar left")),
        // Whoever has the key fetches them.
        FleetEvent::KeysWanted { .. } => {}
    }
}
