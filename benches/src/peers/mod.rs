//! The programs that are measured, a file for each: how it is found, told what to do, and started.

pub(crate) mod egress;
pub(crate) mod envoy;
pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod ringfence;
mod squid;

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error,
    policy::ask,
    process::{POLL, Process, START},
    target::Target,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The origin, the source or the relay: this program in another role.
    Own,
    Ringfence,
    Envoy,
    Nginx,
    Haproxy,
    Squid,
}

/// A program and what it is told. It can be started as often as one likes.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Where it takes HTTP/2.
    http2: SocketAddr,
    path: PathBuf,
    arguments: Vec<OsString>,
    /// The access log, if it writes one.
    log: Option<PathBuf>,
    /// It knows of no files to log to: its standard output becomes one.
    logs_to_stdout: bool,
}

impl Program {
    /// Until it listens.
    pub(crate) fn start(&self) -> Result<Target, Error> {
        let target = self.spawn()?;
        target.listening()?;
        Ok(target)
    }

    /// Until it answers `head` with 200, and the time that this took.
    pub(crate) fn start_until_right(&self, head: &str) -> Result<(Target, Duration), Error> {
        let started = Instant::now();
        let target = self.spawn()?;
        while !ask(self.address, head).is_ok_and(|(status, _)| status == 200) {
            if started.elapsed() > START {
                return Err(Error::Unexpected(format!("{} gave no right answer within {START:?}", self.name)));
            }
            thread::sleep(POLL);
        }
        Ok((target, started.elapsed()))
    }

    fn spawn(&self) -> Result<Target, Error> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        if self.kind != Kind::Ringfence {
            command.stderr(Stdio::null()).stdout(Stdio::null());
        }
        if let Some(log) = self.log.as_ref().filter(|_| self.logs_to_stdout) {
            let file = fs::OpenOptions::new().append(true).create(true).open(log);
            command.stdout(file.map_err(Error::io(log.display().to_string()))?);
        }
        let process = Process::start(&mut command)?;
        Ok(Target { kind: self.kind, name: self.name.clone(), address: self.address, http2: self.http2, log: self.log.clone(), process })
    }
}

/// Where the program stands: what the environment variable of its name in capitals says, else in PATH or where Debian keeps servers.
fn find(name: &str) -> Option<PathBuf> {
    if let Some(told) = env::var_os(name.to_uppercase()) {
        return Some(told.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).map(|dir| dir.join(name)).find(|program| program.is_file())
}

/// Writes `template` with `{{NAME}}` replaced.
pub(crate) fn write(path: &Path, template: &str, fill: &[(&str, String)]) -> Result<(), Error> {
    fs::write(path, filled(template, fill)).map_err(Error::io(path.display().to_string()))
}

fn filled(template: &str, fill: &[(&str, String)]) -> String {
    fill.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

/// Replaces what stands between a line `# each tenant` and a line `# end` by as many copies, `{{TENANT}}` in each replaced by a name.
fn each_tenant<'a>(template: &str, tenants: impl Iterator<Item = &'a str> + Clone) -> String {
    let (mut text, mut repeated) = (String::new(), None::<String>);
    for line in template.split_inclusive('\n') {
        match (line.trim(), &mut repeated) {
            ("# each tenant", _) => repeated = Some(String::new()),
            ("# end", Some(block)) => {
                tenants.clone().for_each(|tenant| text.push_str(&block.replace("{{TENANT}}", tenant)));
                repeated = None;
            }
            (_, Some(block)) => block.push_str(line),
            (_, None) => text.push_str(line),
        }
    }
    text
}

/// A directory for one program's files.
pub(crate) fn directory(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).map_err(Error::io(dir.display().to_string()))?;
    Ok(dir)
}
