//! What is installed, for the sidecar to see that its workload is captured: `capture.json`. The sidecar itself may not look at the rules.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Backend, CaptureError, Rules};

const FILE: &str = "capture.json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    pub(super) rules: Rules,
    pub(super) backend: Backend,
    /// Devices that AF_PACKET does not send through.
    pub(super) packet_fence: Vec<String>,
    /// As readlink(2) has it of `/proc/self/ns/net`: rules of another namespace are no rules.
    pub(super) network_namespace: PathBuf,
}

impl State {
    /// `None`: nothing is installed.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, CaptureError> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CaptureError::io(path.display().to_string())(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| CaptureError::io(path.display().to_string())(error.into()))
    }

    /// For all to read, for us to write.
    pub(super) fn write(&self, dir: &Path) -> Result<(), CaptureError> {
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
            let fresh = dir.join("capture.json.new");
            fs::write(&fresh, serde_json::to_vec(self)?)?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644))?;
            fs::rename(fresh, dir.join(FILE))
        };
        write().map_err(CaptureError::io(dir.join(FILE).display().to_string()))
    }

    pub(super) fn remove(dir: &Path) -> Result<(), CaptureError> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CaptureError::io(dir.join(FILE).display().to_string())(error)),
            _ => Ok(()),
        }
    }
}

pub(super) fn network_namespace() -> Result<PathBuf, CaptureError> {
    fs::read_link("/proc/thread-self/ns/net").map_err(CaptureError::io("the network namespace"))
}

/// Whether `dir` says that the rules are installed in this network namespace, and lead to these listeners: the sidecar's own check before a
/// policy with `capture: redirect` comes into force. The error names what is missing, for the field `egress.capture`.
pub fn require(dir: &Path, egress: SocketAddr, dns: SocketAddr) -> Result<(), String> {
    let install = "run `ringfence-proxy capture install` in this network namespace";
    let state = State::read(dir).map_err(|error| error.to_string())?;
    let Some(State { rules, network_namespace: theirs, .. }) = state else {
        return Err(format!("the redirect rules are not installed ({} is missing): {install}", dir.join(FILE).display()));
    };
    let ours = network_namespace().map_err(|error| error.to_string())?;
    if theirs != ours {
        return Err(format!("the redirect rules are those of another network namespace ({}): {install}", theirs.display()));
    }
    for (name, listener, installed) in [("egress", egress, rules.egress_port), ("dns", dns, rules.dns_port)] {
        if listener.port() != installed {
            return Err(format!("the redirect rules lead to {name} port {installed} and not to {listener}: {install}"));
        }
        if !(listener.ip().is_loopback() || listener.ip().is_unspecified()) {
            return Err(format!("the redirect rules lead to loopback and not to {name} listener {listener}"));
        }
    }
    if dns.ip().is_unspecified() {
        // The kernel would choose another source address than the one that was asked, and nobody would take the answer for one.
        return Err(format!("the redirect rules lead to loopback: answers over UDP need a dns listener there, not on {dns}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
