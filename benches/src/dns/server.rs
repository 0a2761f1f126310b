//! A server under test: its process, its own copy of the zone, and how it is told of an edit.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    ask::{self, NOERROR, NXDOMAIN},
    zone::{Changing, ZoneText},
};
use crate::{Error, process::Process};

/// Within which a sample must be answered.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) process: Process,
    pub(super) zone: PathBuf,
    pub(super) reload: Reload,
}

/// How a server comes to read its zone again.
pub(super) enum Reload {
    /// It watches the file.
    ByItself,
    /// SIGHUP.
    Hangup,
    /// A program with its arguments.
    Command(Vec<String>),
}

impl Server {
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// That it refuses what the zone's rules refuse, and nothing else.
    pub(super) fn check(&self, zone: &ZoneText) -> Result<(), Error> {
        for (name, refused) in zone.samples() {
            let wanted = if refused { NXDOMAIN } else { NOERROR };
            ask::first(self.address, &name, wanted, ANSWER).map_err(|error| {
                Error::Unexpected(format!("{} does not enforce the zone, so its speed says nothing: {error}", self.name))
            })?;
        }
        Ok(())
    }

    /// Puts an edited zone in place and has it read; the second value runs until the server has read it, and ends with it. Yields at the
    /// moment when the file is there.
    pub(super) fn edit(&self, zone: &ZoneText, serial: u32, changing: Changing) -> Result<Option<Process>, Error> {
        zone.write(&self.zone, serial, changing)?;
        match &self.reload {
            Reload::ByItself => Ok(None),
            Reload::Hangup => {
                let pid = Pid::from_raw(self.pid().cast_signed());
                pid.map_or(Ok(()), |pid| kill_process(pid, Signal::HUP)).map_err(|error| Error::io("kill")(error.into()))?;
                Ok(None)
            }
            Reload::Command(command) => {
                let (program, arguments) = command.split_first().ok_or_else(|| Error::Unexpected("no command".into()))?;
                Process::start(Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null())).map(Some)
            }
        }
    }
}
