//! `ringfence serve --signed`: serves what somebody else has compiled and signed. Whoever takes this process over can keep policy from
//! sidecars, and make none.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ringfence_xds::{resource::Kind, seal::ConfigKeys};
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
    serve::ServeConfig,
    signing::{self, set::SignedSet},
    sockets::Sockets,
    store::WatchedFile,
};

/// How long sidecars are waited for at the end.
const CLOSE: Duration = Duration::from_secs(1);

struct Replica {
    file: PathBuf,
    keys: ConfigKeys,
    /// Published.
    set: SignedSet,
    fleet: Arc<Fleet>,
    sockets: Option<Sockets>,
    /// Why the present file is not used, for `status`.
    faults: Arc<Mutex<BTreeSet<String>>>,
}

/// Runs until SIGINT or SIGTERM. `keys`: a file of public keys, one of which must have signed `file`.
pub async fn serve(file: &Path, keys: &Path, config: &ServeConfig) -> Result<(), PlaneError> {
    plane::close_memory()?;
    let keys = signing::config_keys(keys)?;
    let mut watched = WatchedFile::new(file).map_err(PlaneError::Watch)?;
    let (fleet, mut events) = Fleet::new();
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| PlaneError::Path { path, error }
    };
    let sockets = config.sockets.as_ref().map(|dir| Sockets::new(dir).map_err(at(dir))).transpose()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut replica = Replica { file: file.into(), keys, set: SignedSet::default(), fleet, sockets, faults: Arc::default() };
    replica.take_up()?;
    replica.serve_status()?;
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
    let _ = tokio::time::timeout(CLOSE, replica.fleet.close()).await;
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
        self.fleet.publish(between(&self.set, &next));
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

    fn running(&self) -> admin::Running {
        admin::Running { fleet: self.fleet.clone(), faults: self.faults.clone(), trust: None }
    }

    /// Answers `ringfence status SOCKETS` until the process ends.
    fn serve_status(&self) -> Result<(), PlaneError> {
        let Some(sockets) = &self.sockets else { return Ok(()) };
        let (socket, state) = (sockets.status(), sockets.dir().join(STATE_DIR));
        let at = |error| PlaneError::Path { path: socket.clone(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(at)?;
        tokio::spawn(admin::serve(&socket, &state, self.running()).map_err(at)?);
        Ok(())
    }
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
