//! Processes that end with those who hold them.

use std::{
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

pub(crate) const START: Duration = Duration::from_secs(30);
pub(crate) const POLL: Duration = Duration::from_micros(200);

/// A process that ends with this value.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Held, lest it write into a closed pipe.
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self, Error> {
        let mut child = command.spawn().map_err(Error::io(command.get_program().display().to_string()))?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self { child, stdout })
    }

    /// This program, in another role.
    pub(crate) fn role(arguments: &[&str]) -> Result<Self, Error> {
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

    pub(crate) fn address(&mut self) -> Result<SocketAddr, Error> {
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

/// It ends with the process that holds its other end.
pub(crate) fn until_stdin_ends() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// A program of this build.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Error> {
    std::env::current_exe().map(|path| path.with_file_name(name)).map_err(Error::io("own path"))
}

/// A port that nobody uses at this moment: the sidecar must find the same one again when it restarts.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).map_err(Error::io("a free port"))
}
