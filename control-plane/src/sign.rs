//! `ringfence sign`: compiles and signs a directory, for control planes that serve it elsewhere and cannot sign. No sidecar connects here.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    plane::{Plane, PlaneConfig, PlaneError, Step},
    say::say,
};

/// Writes `out`, once or, with `watch`, again at each change until SIGINT or SIGTERM.
pub async fn sign(dir: &Path, key: &Path, out: &Path, watch: bool) -> Result<(), PlaneError> {
    let own = tempfile::Builder::new().prefix("ringfence-").permissions(fs::Permissions::from_mode(0o700)).tempdir()?;
    let config =
        PlaneConfig { sockets: None, admin: own.path().to_owned(), trust: None, config_key: Some(key.to_owned()), or_as_before: false };
    let mut plane = Plane::open(dir, config).await?;
    let write = |plane: &Plane| -> Result<(), PlaneError> {
        plane.fleet.write_signed(out)?;
        say(format_args!("ringfence: {} resources signed in {}", plane.fleet.resources().len(), out.display()));
        Ok(())
    };
    let mut changes = plane.fleet.changes();
    changes.mark_unchanged();
    write(&plane)?;
    if !watch {
        return Ok(());
    }
    loop {
        match plane.step().await {
            Step::Stop => return Ok(()),
            Step::Reloaded | Step::Fed | Step::Event(_) => {
                // An edit with faults changes nothing.
                if changes.has_changed().unwrap_or(false) {
                    changes.mark_unchanged();
                    // What was written before stays good.
                    write(&plane).unwrap_or_else(|error| say(format_args!("ringfence: {error}")));
                }
            }
        }
    }
}
