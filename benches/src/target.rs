//! The programs under test, each a process of its own. A peer is one more constructor.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    Error,
    load::{Load, Outcome},
    policy::{Policy, WORKLOAD, ask},
};

const START: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_micros(200);

/// A process that ends with this value.
pub(crate) struct Process {
    child: Child,
    /// Held, lest it write into a closed pipe.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self, Error> {
        let mut child = command.spawn().map_err(Error::io(command.get_program().display().to_string()))?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self { child, stdout })
    }

    /// This program, in another role.
    fn role(arguments: &[&str]) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::io("own path"))?;
        Self::start(Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if let Some(stdout) = &mut self.stdout {
            stdout.read_line(&mut line).map_err(Error::io("standard output of a child"))?;
        }
        if line.is_empty() { Err(Error::Unexpected("a process ended before it was ready".into())) } else { Ok(line.trim_end().into()) }
    }

    fn address(&mut self) -> Result<SocketAddr, Error> {
        let line = self.line()?;
        line.parse().map_err(|_| Error::Unexpected(format!("{line:?} is no address")))
    }

    /// SIGTERM, and waits.
    fn end(mut self) -> Result<(), Error> {
        if let Some(pid) = Pid::from_raw(self.pid().cast_signed()) {
            kill_process(pid, Signal::TERM).map_err(|error| Error::io("kill")(error.into()))?;
        }
        self.child.wait().map(drop).map_err(Error::io("wait"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, if this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program under test.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Target {
    /// What the others stand before.
    pub(crate) fn origin() -> Result<Self, Error> {
        let mut process = Process::role(&["origin"])?;
        Ok(Self { name: "origin", address: process.address()?, process })
    }

    pub(crate) fn relay(upstream: SocketAddr) -> Result<Self, Error> {
        let mut process = Process::role(&["relay", &upstream.to_string()])?;
        Ok(Self { name: "relay", address: process.address()?, process })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn end(self) -> Result<(), Error> {
        self.process.end()
    }
}

/// A load that is under way.
pub(crate) struct Running(Process);

impl Running {
    pub(crate) fn start(load: &Load) -> Result<Self, Error> {
        let mut process = Process::role(&["load"])?;
        let mut stdin = process.child.stdin.take().ok_or_else(|| Error::Load("no standard input".into()))?;
        stdin.write_all(&serde_json::to_vec(load)?).map_err(Error::io("load"))?;
        Ok(Self(process))
    }

    pub(crate) fn wait(mut self) -> Result<Outcome, Error> {
        let Some(stdout) = &mut self.0.stdout else { return Err(Error::Load("no standard output".into())) };
        serde_json::from_reader(stdout).map_err(|error| Error::Load(error.to_string()))
    }
}

/// A control plane and a sidecar on this machine, with the policy that is timed.
pub(crate) struct Installation {
    dir: TempDir,
    pub(crate) policy: Policy,
    listen: SocketAddr,
    control_plane: Option<Process>,
}

impl Installation {
    pub(crate) fn new(upstream: SocketAddr) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let objects = dir.path().join("objects");
        fs::create_dir(&objects).map_err(Error::io("objects"))?;
        let listen = free_address()?;
        let policy = Policy::write(&objects, listen, upstream)?;
        let bootstrap = json!({
            "workload": WORKLOAD,
            "controlPlane": { "unix": dir.path().join("sockets").join(format!("{WORKLOAD}.ads")) },
            "admin": format!("unix:{}", dir.path().join("admin.sock").display()),
            "stateDir": dir.path().join("state"),
            "accessLog": { "file": dir.path().join("access.log") },
            "drainSeconds": 1,
        });
        fs::write(dir.path().join("bootstrap.json"), bootstrap.to_string()).map_err(Error::io("bootstrap.json"))?;
        Ok(Self { dir, policy, listen, control_plane: None })
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
        let process = Process::start(Command::new(beside("ringfence-proxy")?).arg("run").arg("--bootstrap").arg(self.bootstrap()))?;
        while !ask(self.listen, &head).is_ok_and(|(status, _)| status == 200) {
            if started.elapsed() > START {
                return Err(Error::Unexpected(format!("the sidecar gave no right answer within {START:?}")));
            }
            thread::sleep(POLL);
        }
        Ok((Target { name: "ringfence", address: self.listen, process }, started.elapsed()))
    }

    fn bootstrap(&self) -> PathBuf {
        self.dir.path().join("bootstrap.json")
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

/// A program of this build.
fn beside(name: &str) -> Result<PathBuf, Error> {
    std::env::current_exe().map(|path| path.with_file_name(name)).map_err(Error::io("own path"))
}

/// A port that nobody uses at this moment: the sidecar must find the same one again when it restarts.
fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).map_err(Error::io("a free port"))
}
