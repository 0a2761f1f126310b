//! A control plane with a file for each tenant.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    Error,
    measure::{self, Memory},
    peers::{directory, write},
    policy::Issuer,
    process::{Process, beside, free_address},
    sidecars::{Reach, Tls, now},
};

const TENANT: &str = include_str!("../../../peers/ringfence-push-tenant.yaml");
const PLATFORM: &str = include_str!("../../../peers/ringfence-push-platform.yaml");
/// Between two questions whether all are in sync; each costs the control plane some of its time.
const POLL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(120);
/// Not the address that connections on loopback come from: while the control plane is away, one of the sidecars would sooner or later
/// connect to its own port, and have taken the control plane's.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 15);
const TRUST_DOMAIN: &str = "bench.example";
/// No renewal falls into what is timed.
const SVID_TTL: &str = "24h";

/// How the sidecars of a site connect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Tls,
    /// Without TLS, to a Unix socket for each workload.
    Sockets,
}

pub(super) struct Site {
    _dir: TempDir,
    _states: TempDir,
    objects: PathBuf,
    pub(super) workloads: Vec<String>,
    pub(super) reach: Reach,
    /// Makes each edit another one.
    edits: usize,
    control_plane: Process,
}

/// What `ringfence status` says.
#[derive(Deserialize)]
struct Status {
    sidecars: Vec<Sidecar>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sidecar {
    in_sync: bool,
}

impl Site {
    /// So many workloads, each with a tenant of its own; one issuer and the platform. The control plane is ready.
    pub(super) fn new(workloads: usize, link: Link) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let states = in_memory()?;
        let objects = directory(dir.path(), "objects")?;
        fs::write(objects.join("jwks.json"), Issuer::generate()?.jwks()?.to_string()).map_err(Error::io("jwks.json"))?;
        let workloads: Vec<String> = (0..workloads).map(|number| format!("tenant-{number}")).collect();
        write_platform(&objects, 0)?;
        for (number, tenant) in workloads.iter().enumerate() {
            write_tenant(&objects, number, tenant, 0)?;
        }
        let reach = match link {
            Link::Sockets => Reach::Sockets(dir.path().join("sockets")),
            Link::Tls => Reach::Tls(Tls {
                address: SocketAddr::from((HOST, free_address()?.port())),
                trust_domain: TRUST_DOMAIN.into(),
                bundle: own(&objects).join("trust/bundle.pem"),
                states: states.path().into(),
            }),
        };
        let control_plane = serve(&objects, &reach)?;
        Ok(Self { _dir: dir, _states: states, objects, workloads, reach, edits: 0, control_plane })
    }

    /// Where the control plane keeps what is its own.
    pub(super) fn own(&self) -> PathBuf {
        own(&self.objects)
    }

    /// Gives a tenant another limit. When its file began to be written.
    pub(super) fn edit_tenant(&mut self, number: usize) -> Result<Duration, Error> {
        self.edits += 1;
        let at = now()?;
        write_tenant(&self.objects, number, &self.workloads[number], self.edits)?;
        Ok(at)
    }

    /// Gives all tenants another limit of what is under way.
    pub(super) fn edit_platform(&mut self) -> Result<Duration, Error> {
        self.edits += 1;
        let at = now()?;
        write_platform(&self.objects, self.edits)?;
        Ok(at)
    }

    /// Ends the control plane by SIGKILL and starts another one, which is ready when this returns. When it was killed.
    pub(super) fn restart(&mut self) -> Result<Duration, Error> {
        let at = now()?;
        self.kill()?;
        self.control_plane = serve(&self.objects, &self.reach)?;
        Ok(at)
    }

    /// Ends the control plane by SIGKILL.
    pub(super) fn kill(&mut self) -> Result<(), Error> {
        self.control_plane.child.kill().and_then(|()| self.control_plane.child.wait()).map(drop).map_err(Error::io("kill"))
    }

    /// Waits until the control plane takes so many sidecars for in sync.
    pub(super) fn in_sync(&self, sidecars: usize) -> Result<(), Error> {
        let from = now()?;
        loop {
            let output = Command::new(beside("ringfence")?).arg("status").arg(&self.objects).args(["-o", "json"]).output();
            let output = output.map_err(Error::io("ringfence status"))?;
            let status: Status = serde_json::from_slice(&output.stdout)?;
            let in_sync = status.sidecars.iter().filter(|sidecar| sidecar.in_sync).count();
            if in_sync == sidecars {
                return Ok(());
            }
            if now()? - from > LIMIT {
                return Err(Error::Unexpected(format!("{in_sync} of {sidecars} sidecars are in sync after {LIMIT:?}")));
            }
            thread::sleep(POLL);
        }
    }

    /// Of the control plane.
    pub(super) fn cpu(&self) -> Result<Duration, Error> {
        measure::cpu(self.control_plane.pid())
    }

    pub(super) fn memory(&self) -> Result<Memory, Error> {
        measure::memory(self.control_plane.pid())
    }
}

/// For the sidecars' states, where there is such a place: each syncs its SVID to disk, and here they have one disk and one thread.
fn in_memory() -> Result<TempDir, Error> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).map_err(Error::io("temporary directory"))
}

fn own(objects: &Path) -> PathBuf {
    objects.join(".ringfence")
}

fn serve(objects: &Path, reach: &Reach) -> Result<Process, Error> {
    let mut serve = Command::new(beside("ringfence")?);
    serve.arg("serve").arg(objects);
    match reach {
        Reach::Sockets(dir) => serve.arg("--sockets").arg(dir),
        Reach::Tls(tls) => serve.args(["--tls", &tls.address.to_string(), "--trust-domain", &tls.trust_domain, "--svid-ttl", SVID_TTL]),
    };
    let mut process = Process::start(serve.stdout(Stdio::piped()))?;
    while process.line()? != "ready" {}
    Ok(process)
}

fn write_tenant(objects: &Path, number: usize, tenant: &str, edit: usize) -> Result<(), Error> {
    // Loopback addresses, which nobody binds: no two workloads may listen on the same.
    let host = format!("127.{}.{}.1", number / 256 + 1, number % 256);
    let fill = [("TENANT", tenant.to_owned()), ("HOST", host), ("RATE", (1_000 + edit).to_string())];
    write(&objects.join(format!("{tenant}.yaml")), TENANT, &fill)
}

fn write_platform(objects: &Path, edit: usize) -> Result<(), Error> {
    write(&objects.join("platform.yaml"), PLATFORM, &[("IN_FLIGHT", (10_000 + edit).to_string())])
}
