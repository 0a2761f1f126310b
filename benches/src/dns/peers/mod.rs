//! Other resolvers with the same zone, one thread each, forwarding to the same upstream. Where one is not installed, it is left out.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    server::{Reload, Server},
    zone::ORIGIN,
};
use crate::{
    Error,
    process::{Process, free_address},
};

/// What a peer is started with.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Its directory: configuration, zone, sockets.
    dir: PathBuf,
    address: SocketAddr,
    program: &'static str,
    arguments: Vec<String>,
    reload: fn(&Path) -> Reload,
}

impl Peer {
    /// Writes their configurations, each into a directory of its own below `dir`.
    pub(super) fn all(dir: &Path, upstream: SocketAddr) -> Result<Vec<Self>, Error> {
        [Self::unbound, Self::bind, Self::powerdns].into_iter().map(|peer| peer(dir, upstream)).collect()
    }

    fn unbound(dir: &Path, upstream: SocketAddr) -> Result<Self, Error> {
        let texts = [("unbound.conf", include_str!("unbound.conf"))];
        let peer = Self::new("unbound", "unbound", dir, upstream, &texts)?;
        let arguments = vec!["-d".into(), "-c".into(), peer.path("unbound.conf")];
        let reload = |dir: &Path| {
            let config = dir.join("unbound.conf").display().to_string();
            Reload::Command(["unbound-control", "-c", &config, "auth_zone_reload", ORIGIN].map(str::to_owned).into())
        };
        Ok(Self { arguments, reload, ..peer })
    }

    fn bind(dir: &Path, upstream: SocketAddr) -> Result<Self, Error> {
        let peer = Self::new("bind", "named", dir, upstream, &[("named.conf", include_str!("named.conf"))])?;
        let arguments = vec!["-f".into(), "-n".into(), "1".into(), "-c".into(), peer.path("named.conf")];
        Ok(Self { arguments, reload: |_| Reload::Hangup, ..peer })
    }

    fn powerdns(dir: &Path, upstream: SocketAddr) -> Result<Self, Error> {
        let texts = [("recursor.conf", include_str!("recursor.conf")), ("rpz.lua", "rpzFile(\"DIR/big.rpz\", {policyName=\"big\"})\n")];
        let peer = Self::new("powerdns", "pdns_recursor", dir, upstream, &texts)?;
        let arguments = vec![format!("--config-dir={}", peer.dir.display())];
        let reload =
            |dir: &Path| Reload::Command(vec!["rec_control".into(), format!("--socket-dir={}", dir.display()), "reload-lua-config".into()]);
        Ok(Self { arguments, reload, ..peer })
    }

    fn new(name: &'static str, program: &'static str, dir: &Path, upstream: SocketAddr, texts: &[(&str, &str)]) -> Result<Self, Error> {
        let dir = dir.join(name);
        fs::create_dir(&dir).map_err(Error::io(name))?;
        let address = free_address()?;
        let fill = [("DIR", dir.display().to_string()), ("UPSTREAM", upstream.port().to_string()), ("PORT", address.port().to_string())];
        for (file, text) in texts {
            let text = fill.iter().fold((*text).to_owned(), |text, (name, value)| text.replace(name, value));
            fs::write(dir.join(file), text).map_err(Error::io(*file))?;
        }
        Ok(Self { name, dir, address, program, arguments: Vec::new(), reload: |_| Reload::ByItself })
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    /// Where its copy of the zone belongs.
    pub(super) fn zone(&self) -> PathBuf {
        self.dir.join(ORIGIN)
    }

    /// `None`: it is not installed.
    pub(super) fn start(&self) -> Result<Option<Server>, Error> {
        let mut command = Command::new(self.program);
        let process = match Process::start(command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null())) {
            Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            started => started?,
        };
        let reload = (self.reload)(&self.dir);
        Ok(Some(Server { name: self.name, address: self.address, process, zone: self.zone(), reload }))
    }
}
