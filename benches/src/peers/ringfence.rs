//! The sidecar, and the control plane that configures it.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    Error,
    policy::{OUTBOUND, Policy, WORKLOAD, ask},
    target::{POLL, Process, START, Target, beside, free_address},
};

/// A control plane and a sidecar on this machine, with the policy that is timed.
pub(crate) struct Installation {
    dir: TempDir,
    pub(crate) policy: Policy,
    listen: SocketAddr,
    egress: SocketAddr,
    control_plane: Option<Process>,
}

impl Installation {
    pub(crate) fn new(upstream: SocketAddr) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let objects = dir.path().join("objects");
        fs::create_dir(&objects).map_err(Error::io("objects"))?;
        let (listen, egress) = (free_address()?, free_address()?);
        let policy = Policy::write(&objects, listen, egress, upstream)?;
        for workload in [WORKLOAD, OUTBOUND] {
            let bootstrap = json!({
                "workload": workload,
                "controlPlane": { "unix": dir.path().join("sockets").join(format!("{workload}.ads")) },
                "admin": format!("unix:{}", dir.path().join(format!("{workload}.admin")).display()),
                "stateDir": dir.path().join("state"),
                "accessLog": { "file": dir.path().join("access.log") },
                "drainSeconds": 1,
            });
            fs::write(dir.path().join(format!("{workload}.json")), bootstrap.to_string()).map_err(Error::io("bootstrap"))?;
        }
        Ok(Self { dir, policy, listen, egress, control_plane: None })
    }

    pub(crate) fn start_control_plane(&mut self) -> Result<(), Error> {
        let (objects, sockets) = (self.dir.path().join("objects"), self.dir.path().join("sockets"));
        let mut serve = Command::new(beside("ringfence")?);
        let mut process = Process::start(serve.arg("serve").arg(objects).arg("--sockets").arg(sockets).stdout(Stdio::piped()))?;
        while process.line()? != "ready" {}
        self.control_plane = Some(process);
        Ok(())
    }

    pub(crate) fn stop_control_plane(&mut self) -> Result<(), Error> {
        self.control_plane.take().map_or(Ok(()), Process::end)
    }

    /// The sidecar, and the time from its start to the first request that it let pass under its policy.
    pub(crate) fn start_sidecar(&self) -> Result<(Target, Duration), Error> {
        let head = self.policy.request("acme", "start")?;
        let started = Instant::now();
        let process = self.sidecar_of(WORKLOAD)?;
        while !ask(self.listen, &head).is_ok_and(|(status, _)| status == 200) {
            if started.elapsed() > START {
                return Err(Error::Unexpected(format!("the sidecar gave no right answer within {START:?}")));
            }
            thread::sleep(POLL);
        }
        Ok((Target { name: "ringfence", address: self.listen, process }, started.elapsed()))
    }

    /// The sidecar of the workload that only goes out.
    pub(crate) fn start_outbound(&self) -> Result<Target, Error> {
        let target = Target::new("ringfence, CONNECT", self.egress, self.sidecar_of(OUTBOUND)?);
        target.listening()?;
        Ok(target)
    }

    fn sidecar_of(&self, workload: &str) -> Result<Process, Error> {
        let bootstrap = self.dir.path().join(format!("{workload}.json"));
        Process::start(Command::new(beside("ringfence-proxy")?).arg("run").arg("--bootstrap").arg(bootstrap))
    }

    /// Empties the access log, lest it fill the disk.
    pub(crate) fn forget_log(&self) -> Result<(), Error> {
        truncate(&self.dir.path().join("access.log"))
    }

    pub(crate) fn logged(&self) -> Result<usize, Error> {
        let log = fs::read(self.dir.path().join("access.log")).map_err(Error::io("access.log"))?;
        Ok(log.iter().filter(|&&octet| octet == b'\n').count())
    }
}

fn truncate(path: &Path) -> Result<(), Error> {
    fs::OpenOptions::new().write(true).truncate(true).open(path).map(drop).map_err(Error::io(path.display().to_string()))
}
