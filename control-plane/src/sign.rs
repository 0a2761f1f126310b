//! `ringfence sign`: compiles and signs a directory, for control planes that serve it elsewhere and cannot sign. No sidecar connects here.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ringfence_xds::{policy::TrustBundle, seal::ConfigKeys};

use crate::{
    compile::Delta,
    plane::{Plane, PlaneConfig, PlaneError, Step},
    say::say,
    signing::{self, set::SignedSet},
    store::WatchedFile,
    trust::{self, Authorities},
};

/// What is signed, by what, and where it goes.
#[derive(Clone, Debug)]
pub struct SignConfig {
    pub dir: PathBuf,
    pub key: PathBuf,
    /// Replaced whole.
    pub out: PathBuf,
    /// Whom sidecars are to believe; `None`: those that connect have no identities.
    pub authorities: Option<Authorities>,
}

struct Author<'a> {
    config: &'a SignConfig,
    plane: Plane,
    /// Of the set that is to be replaced.
    before: Option<TrustBundle>,
    /// Published.
    bundle: Option<TrustBundle>,
}

/// Writes the set, once or, with `watch`, again at each change until SIGINT or SIGTERM.
pub async fn sign(config: &SignConfig, watch: bool) -> Result<(), PlaneError> {
    let own = tempfile::Builder::new().prefix("ringfence-").permissions(fs::Permissions::from_mode(0o700)).tempdir()?;
    let plane = PlaneConfig {
        sockets: None,
        admin: own.path().to_owned(),
        trust: None,
        config_key: Some(config.key.clone()),
        fall_back_to_last: false,
    };
    let watched = config.authorities.as_ref().filter(|_| watch).map(|authorities| WatchedFile::new(&authorities.file));
    let mut watched = watched.transpose().map_err(PlaneError::Watch)?;
    let keys = signing::public_keys(&config.key)?;
    let before = signed_before(&config.out, &keys);
    let mut author = Author { config, plane: Plane::open(&config.dir, plane).await?, before, bundle: None };
    author.take_up_authorities()?;
    let mut changes = author.plane.fleet.changes();
    changes.mark_unchanged();
    author.write()?;
    if !watch {
        return Ok(());
    }
    loop {
        tokio::select! {
            step = author.plane.step() => if matches!(step, Step::Stop) {
                return Ok(());
            },
            edited = edited(&mut watched) => {
                edited.map_err(PlaneError::Watch)?;
                // Those that were signed before stay.
                author.take_up_authorities().unwrap_or_else(|error| say(format_args!("ringfence: {error}")));
            }
        }
        // An edit with faults changes nothing.
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            // What was written before stays good.
            author.write().unwrap_or_else(|error| say(format_args!("ringfence: {error}")));
        }
    }
}

impl Author<'_> {
    fn take_up_authorities(&mut self) -> Result<(), PlaneError> {
        let Some(authorities) = &self.config.authorities else { return Ok(()) };
        let resource = authorities.read(self.bundle.as_ref().or(self.before.as_ref()), trust::since_epoch())?;
        let next = trust::bundle_among([&resource]);
        if next != self.bundle {
            self.plane.fleet.publish(Delta { upserts: vec![resource], removed: Vec::new() });
            self.bundle = next;
        }
        Ok(())
    }

    fn write(&self) -> Result<(), PlaneError> {
        let (fleet, out) = (&self.plane.fleet, &self.config.out);
        fleet.write_signed(out)?;
        say(format_args!("ringfence: {} resources signed in {}", fleet.resources().len(), out.display()));
        Ok(())
    }
}

/// The bundle of the set that is to be replaced, if that is of this key.
fn signed_before(out: &Path, keys: &ConfigKeys) -> Option<TrustBundle> {
    let set = SignedSet::read(out, keys, &SignedSet::default()).ok()?;
    trust::bundle_among(set.resources())
}

/// Never, where nothing is watched.
async fn edited(watched: &mut Option<WatchedFile>) -> io::Result<()> {
    match watched {
        Some(watched) => watched.edited().await,
        None => std::future::pending().await,
    }
}
