//! A control plane that compiles the zone, and the sidecars that answer.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use super::{
    server::{Reload, Server},
    zone::ORIGIN,
};
use crate::{
    Error,
    process::{Process, beside, free_address},
};

const OBJECTS: &str = include_str!("ringfence.yaml");

/// The workloads of `ringfence.yaml`.
pub(super) const PLAIN: &str = "plain";
pub(super) const LOGGING: &str = "logging";
pub(super) const SECOND: &str = "second";
pub(super) const FOR_ONE: &str = "for-one";
pub(super) const FOR_TWO: &str = "for-two";

pub(super) struct Ringfence {
    dir: PathBuf,
    /// Where the workloads listen.
    listen: HashMap<&'static str, SocketAddr>,
    control_plane: Option<Process>,
}

impl Ringfence {
    /// Writes its configuration into a directory of its own below `dir`.
    pub(super) fn new(dir: &Path, upstream: SocketAddr) -> Result<Self, Error> {
        let dir = dir.join("ringfence");
        let objects = dir.join("objects");
        fs::create_dir_all(&objects).map_err(Error::io("objects"))?;
        let mut text = OBJECTS.replace("UPSTREAM", &upstream.to_string());
        let mut listen = HashMap::new();
        for workload in [PLAIN, LOGGING, SECOND, FOR_ONE, FOR_TWO] {
            let address = free_address()?;
            text = text.replace(&format!("\"{}\"", workload.to_uppercase()), &format!("\"{address}\""));
            listen.insert(workload, address);
        }
        fs::write(objects.join("objects.yaml"), text).map_err(Error::io("objects"))?;
        let ringfence = Self { dir, listen, control_plane: None };
        ringfence.listen.keys().try_for_each(|workload| ringfence.write_bootstrap(workload))?;
        Ok(ringfence)
    }

    fn write_bootstrap(&self, workload: &str) -> Result<(), Error> {
        let dir = &self.dir;
        let log = if workload == LOGGING { json!({ "file": self.log() }) } else { json!("off") };
        let bootstrap = json!({
            "workload": workload,
            "controlPlane": { "unix": dir.join("sockets").join(format!("{workload}.ads")) },
            "stateDir": self.state(workload),
            "accessLog": log,
            "drainSeconds": 1,
        });
        fs::write(self.bootstrap(workload), bootstrap.to_string()).map_err(Error::io("bootstrap"))
    }

    fn bootstrap(&self, workload: &str) -> PathBuf {
        self.dir.join(format!("{workload}.json"))
    }

    /// Of each sidecar its own: no two can use one.
    fn state(&self, workload: &str) -> PathBuf {
        self.dir.join("state").join(workload)
    }

    fn log(&self) -> PathBuf {
        self.dir.join("access.log")
    }

    pub(super) fn zone(&self) -> PathBuf {
        self.dir.join("objects").join(ORIGIN)
    }

    /// Returns when it has compiled the zone.
    pub(super) fn start_control_plane(&mut self) -> Result<(), Error> {
        let (objects, sockets) = (self.dir.join("objects"), self.dir.join("sockets"));
        let mut serve = Command::new(beside("ringfence")?);
        let mut process = Process::start(serve.arg("serve").arg(objects).arg("--sockets").arg(sockets).stdout(Stdio::piped()))?;
        while process.line()? != "ready" {}
        self.control_plane = Some(process);
        Ok(())
    }

    pub(super) fn stop_control_plane(&mut self) -> Result<(), Error> {
        self.control_plane.take().map_or(Ok(()), Process::end)
    }

    /// While there is one.
    pub(super) fn control_plane_pid(&self) -> Option<u32> {
        self.control_plane.as_ref().map(Process::pid)
    }

    pub(super) fn start_sidecar(&self, workload: &'static str) -> Result<Server, Error> {
        let process = Process::start(Command::new(beside("ringfence-proxy")?).arg("run").arg("--bootstrap").arg(self.bootstrap(workload)))?;
        let name = if workload == LOGGING { "ringfence, refusals logged" } else { "ringfence" };
        Ok(Server { name, address: self.listen[workload], process, zone: self.zone(), reload: Reload::ByItself })
    }

    /// Takes the last known good of a sidecar away.
    pub(super) fn forget(&self, workload: &str) -> Result<(), Error> {
        match fs::remove_dir_all(self.state(workload)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("state")(error)),
            _ => Ok(()),
        }
    }

    /// Empties the access log, lest it fill the disk.
    pub(super) fn forget_log(&self) -> Result<(), Error> {
        let emptied = fs::OpenOptions::new().write(true).truncate(true).open(self.log());
        emptied.map(drop).map_err(Error::io("access log"))
    }
}
