//! `ringfence serve --kubernetes`: one control plane of several.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{Sidecar, Site, binaries::binary, eventually, process::Process};

pub struct Replica {
    pub process: Process,
    state: PathBuf,
    sockets: PathBuf,
}

impl Replica {
    /// With a socket for each workload; ready when this returns. What it keeps lies beside the site, under its name.
    #[track_caller]
    pub fn start(site: &Site, kubeconfig: &Path, name: &str) -> Self {
        let (state, sockets) = (site.beside().join(name), site.beside().join(format!("{name}.ads")));
        let mut command = Command::new(binary("ringfence"));
        command.args(["serve", "--kubernetes", "--state-dir"]).arg(&state).arg("--sockets").arg(&sockets);
        let mut process = Process::start(command.env("KUBECONFIG", kubeconfig).env("POD_NAME", name));
        process.line(|line| line == "ready");
        Self { process, state, sockets }
    }

    /// A sidecar of `workload` at this replica, ready when this returns; `instance`: which of them.
    #[track_caller]
    pub fn sidecar(&self, site: &Site, workload: &str, instance: &str) -> Sidecar {
        let socket = self.sockets.join(format!("{workload}.ads"));
        eventually("the workload is served", || socket.exists().then_some(()));
        let fields = json!({
            "workload": workload,
            "controlPlane": { "unix": socket },
            "configKeys": self.state.join(".ringfence/trust/config.pub"),
        });
        Sidecar::begin(site, &format!("{workload}-{instance}"), &fields).ready()
    }
}
