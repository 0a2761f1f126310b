//! A Unix socket for each workload, in a directory that is ours alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::AbortHandle;

use crate::{
    fleet::{Fleet, ads},
    plane::admin_socket,
};

#[derive(Debug)]
pub(crate) struct Sockets {
    dir: PathBuf,
    served: BTreeMap<String, AbortHandle>,
}

impl Sockets {
    /// Makes the directory; an error where others may put something into one that is there.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let dir = dir.canonicalize()?;
        if dir.metadata()?.permissions().mode() & 0o022 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it: chmod go-w"));
        }
        Ok(Self { dir, served: BTreeMap::new() })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// For whoever asks after the status.
    pub(crate) fn status(&self) -> PathBuf {
        admin_socket(&self.dir)
    }

    /// Serves these workloads, and no others. Errors are those of single sockets.
    pub(crate) fn serve(&mut self, workloads: BTreeSet<String>, fleet: &Arc<Fleet>) -> Vec<(PathBuf, io::Error)> {
        self.served.retain(|name, serving| {
            let keep = workloads.contains(name);
            if !keep {
                serving.abort();
                // Gone already, if this fails.
                let _ = fs::remove_file(socket(&self.dir, name));
            }
            keep
        });
        let mut errors = Vec::new();
        for name in workloads {
            if !self.served.contains_key(&name) {
                let path = socket(&self.dir, &name);
                match ads::serve_unix(fleet.clone(), &name, &path) {
                    Ok(serve) => drop(self.served.insert(name, tokio::spawn(serve).abort_handle())),
                    Err(error) => errors.push((path, error)),
                }
            }
        }
        errors
    }

    pub(crate) fn clear(&self) {
        for path in self.served.keys().map(|workload| socket(&self.dir, workload)).chain([self.status()]) {
            // Gone already, if this fails.
            let _ = fs::remove_file(path);
        }
    }
}

/// The socket of a workload's sidecar.
pub(crate) fn socket(sockets: &Path, workload: &str) -> PathBuf {
    sockets.join(format!("{workload}.ads"))
}
