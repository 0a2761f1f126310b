//! The sidecar, and the control plane that configures it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use super::{Kind, Program, directory, each_tenant, write};
use crate::{
    Error,
    policy::Issuer,
    process::{Process, beside, free_address},
};

const POLICY: &str = include_str!("../../peers/ringfence-policy.yaml");
const TENANTS: &str = include_str!("../../peers/ringfence-tenants.yaml");
/// The workload that is asked, and one that only goes out.
const WORKLOAD: &str = "bench-api";
const OUTBOUND: &str = "bench-out";

/// A control plane on this machine and what its sidecars are told.
pub(crate) struct Installation {
    dir: PathBuf,
    listen: SocketAddr,
    egress: SocketAddr,
    control_plane: Option<Process>,
}

impl Installation {
    /// With the policy that is timed, in a directory of its own below `dir`.
    pub(crate) fn policy(dir: &Path, upstream: SocketAddr, issuer: &Issuer) -> Result<Self, Error> {
        Self::new(directory(dir, "ringfence")?, POLICY, upstream, issuer)
    }

    /// A shared workload with one issuer, and for each tenant a path, a scope and a limit of its own.
    pub(crate) fn tenants(dir: &Path, upstream: SocketAddr, issuer: &Issuer, tenants: &[String]) -> Result<Self, Error> {
        let objects = each_tenant(TENANTS, tenants.iter().map(|tenant| &**tenant));
        Self::new(directory(dir, &format!("ringfence-{}", tenants.len()))?, &objects, upstream, issuer)
    }

    pub(super) fn new(dir: PathBuf, objects: &str, upstream: SocketAddr, issuer: &Issuer) -> Result<Self, Error> {
        let (listen, egress) = (free_address()?, free_address()?);
        let fill = [
            ("LISTEN", listen.to_string()),
            ("EGRESS", egress.to_string()),
            ("UPSTREAM_PORT", upstream.port().to_string()),
            ("UPSTREAM", upstream.to_string()),
        ];
        let directory = directory(&dir, "objects")?;
        write(&directory.join("objects.yaml"), objects, &fill)?;
        fs::write(directory.join("jwks.json"), issuer.jwks()?.to_string()).map_err(Error::io("jwks.json"))?;
        let mut installation = Self { dir, listen, egress, control_plane: None };
        installation.start_control_plane()?;
        Ok(installation)
    }

    fn start_control_plane(&mut self) -> Result<(), Error> {
        let (objects, sockets) = (self.dir.join("objects"), self.dir.join("sockets"));
        let mut serve = Command::new(beside("ringfence")?);
        let mut process = Process::start(serve.arg("serve").arg(objects).arg("--sockets").arg(sockets).stdout(Stdio::piped()))?;
        while process.line()? != "ready" {}
        self.control_plane = Some(process);
        Ok(())
    }

    /// From then on a sidecar begins with what it knew last.
    pub(crate) fn stop_control_plane(&mut self) -> Result<(), Error> {
        self.control_plane.take().map_or(Ok(()), Process::end)
    }

    pub(crate) fn sidecar(&self) -> Result<Program, Error> {
        self.sidecar_of(WORKLOAD, "ringfence", self.listen)
    }

    /// Where it is said that its workload is captured.
    pub(crate) fn capture_dir(&self) -> PathBuf {
        self.dir.join("capture")
    }

    /// The sidecar of the workload that only goes out.
    pub(crate) fn outbound(&self) -> Result<Program, Error> {
        self.sidecar_of(OUTBOUND, "ringfence, CONNECT", self.egress)
    }

    fn sidecar_of(&self, workload: &str, name: &str, address: SocketAddr) -> Result<Program, Error> {
        let (file, log) = (self.dir.join(format!("{workload}.json")), self.dir.join(format!("{workload}.log")));
        let bootstrap = json!({
            "workload": workload,
            "controlPlane": { "unix": self.dir.join("sockets").join(format!("{workload}.ads")) },
            "admin": format!("unix:{}", self.dir.join(format!("{workload}.admin")).display()),
            "stateDir": self.dir.join("state"),
            "captureDir": self.capture_dir(),
            "accessLog": { "file": log },
            "drainSeconds": 1,
        });
        fs::write(&file, bootstrap.to_string()).map_err(Error::io("bootstrap"))?;
        let arguments = ["run".into(), "--bootstrap".into(), file.into()].to_vec();
        let path = beside("ringfence-proxy")?;
        let name = name.into();
        Ok(Program { kind: Kind::Ringfence, name, address, http2: address, path, arguments, log: Some(log), logs_to_stdout: false })
    }
}
