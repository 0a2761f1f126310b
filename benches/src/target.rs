//! A program under test, running.

use std::{
    fs::{self, OpenOptions},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error,
    measure::{self, Memory},
    peers::Kind,
    process::{POLL, Process, START},
};

pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Where it takes HTTP/2, with no TLS and from the first octet.
    pub(crate) http2: SocketAddr,
    /// Its access log, if it writes one.
    pub(crate) log: Option<PathBuf>,
    pub(crate) process: Process,
}

impl Target {
    /// What the others stand before.
    pub(crate) fn origin() -> Result<Self, Error> {
        Self::role("origin alone", &["origin"])
    }

    /// The floor: a relay that looks at nothing.
    pub(crate) fn relay(upstream: SocketAddr) -> Result<Self, Error> {
        Self::role("bare relay", &["relay", &upstream.to_string()])
    }

    /// This program, in another role, where it says that it listens.
    pub(crate) fn role(name: &str, arguments: &[&str]) -> Result<Self, Error> {
        let mut process = Process::role(arguments)?;
        let address = process.address()?;
        Ok(Self { kind: Kind::Own, name: name.into(), address, http2: address, log: None, process })
    }

    /// Waits until it listens.
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

    /// Of it and of the processes that it has started, here and below.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        measure::tree(self.process.pid())?.into_iter().map(measure::cpu).sum()
    }

    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        measure::tree(self.process.pid())?.into_iter().map(measure::memory).sum()
    }

    pub(crate) fn switches(&self) -> Result<u64, Error> {
        measure::tree(self.process.pid())?.into_iter().map(measure::switches).sum()
    }

    /// That its access log tells of as many requests at least, at the latest when what it holds back for a batch is written.
    pub(crate) fn check_log(&self, requests: usize) -> Result<(), Error> {
        let Some(path) = &self.log else { return Ok(()) };
        let started = Instant::now();
        loop {
            let log = fs::read(path).map_err(Error::io(path.display().to_string()))?;
            let lines = log.iter().filter(|&&octet| octet == b'\n').count();
            if lines >= requests {
                return Ok(());
            }
            if started.elapsed() > START {
                let name = &self.name;
                return Err(Error::Unexpected(format!("{name} does not log what it is timed for: {lines} lines for {requests} requests")));
            }
            thread::sleep(POLL);
        }
    }

    /// Empties the access log, lest it fill the disk.
    pub(crate) fn forget_log(&self) -> Result<(), Error> {
        let Some(path) = &self.log else { return Ok(()) };
        OpenOptions::new().write(true).truncate(true).open(path).map(drop).map_err(Error::io(path.display().to_string()))
    }

    pub(crate) fn end(self) -> Result<(), Error> {
        self.process.end()
    }
}
