//! The programs under test, each a process of its own. A peer is one more constructor.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    Error,
    load::{Load, Outcome},
};

pub(crate) const START: Duration = Duration::from_secs(10);
pub(crate) const POLL: Duration = Duration::from_micros(200);

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

    pub(crate) fn line(&mut self) -> Result<String, Error> {
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
    pub(crate) fn end(mut self) -> Result<(), Error> {
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
    pub(crate) process: Process,
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

/// A program of this build.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Error> {
    std::env::current_exe().map(|path| path.with_file_name(name)).map_err(Error::io("own path"))
}

/// A port that nobody uses at this moment: the sidecar must find the same one again when it restarts.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).map_err(Error::io("a free port"))
}
