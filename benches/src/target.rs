//! The programs under test, each a process of its own. A peer is one more constructor.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
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
    policy::{OUTBOUND, Policy, WORKLOAD, ask},
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
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
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
        Self::role("origin", &["origin"])
    }

    pub(crate) fn relay(upstream: SocketAddr) -> Result<Self, Error> {
        Self::role("relay", &["relay", &upstream.to_string()])
    }

    /// This program, in another role, where it says that it listens.
    pub(crate) fn role(name: &'static str, arguments: &[&str]) -> Result<Self, Error> {
        let mut process = Process::role(arguments)?;
        Ok(Self { name, address: process.address()?, process })
    }

    pub(crate) fn new(name: &'static str, address: SocketAddr, process: Process) -> Self {
        Self { name, address, process }
    }

    /// Waits until it does.
    pub(crate) fn listening(&self) -> Result<(), Error> {
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if started.elapsed() > START {
                return Err(Error::Unexpected(format!("{} does not listen on {} after {START:?}", self.name, self.address)));
            }
            thread::sleep(POLL);
        }
        Ok(())
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

/// A program of this build.
fn beside(name: &str) -> Result<PathBuf, Error> {
    std::env::current_exe().map(|path| path.with_file_name(name)).map_err(Error::io("own path"))
}

/// A port that nobody uses at this moment: the sidecar must find the same one again when it restarts.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).map_err(Error::io("a free port"))
}
