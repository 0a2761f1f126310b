//! `ringfence` as an operator runs it.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    Site,
    binaries::binary,
    process::Process,
    procfs,
    sidecar::{self, Admin},
};

/// Runs a command that ends by itself.
pub fn ringfence<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new(binary("ringfence")).args(arguments).stdin(Stdio::null()).output().expect("ringfence runs")
}

/// What `ringfence status` says.
pub fn status(dir: &Path) -> Value {
    let output = ringfence(["status".as_ref(), dir.as_os_str(), "-o".as_ref(), "json".as_ref()]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("status prints JSON: {error}: {output:?}"));
    let is_empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
    let is_well =
        is_empty(&status["faults"]) && status["sidecars"].as_array().unwrap().iter().all(|sidecar| is_empty(&sidecar["rejections"]));
    assert_eq!(output.status.code(), Some(if is_well { 0 } else { 1 }), "{output:?}");
    status
}

/// `ringfence up`: the control plane and its sidecars.
pub struct Up {
    pub process: Process,
    dir: PathBuf,
}

impl Up {
    /// Ready when this returns.
    #[track_caller]
    pub fn start(dir: &Path) -> Self {
        let mut up = Self::begin(dir);
        up.process.line(|line| line == "ready");
        up
    }

    /// The same, and where it listens for the notifications of primaries.
    #[track_caller]
    pub fn start_notified(dir: &Path) -> (Self, SocketAddr) {
        let mut up = Self::begin_with(dir, &["--notify", "127.0.0.1:0"]);
        up.process.line(|line| line == "ready");
        let line = up.process.line(|line| line.contains("notifications on"));
        (up, line.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("the line ends in an address"))
    }

    /// Not waited for.
    pub fn begin(dir: &Path) -> Self {
        Self::begin_with(dir, &[])
    }

    fn begin_with(dir: &Path, options: &[&str]) -> Self {
        binary("ringfence-proxy");
        Self { process: Process::start(Command::new(binary("ringfence")).arg("up").arg(dir).args(options)), dir: dir.to_owned() }
    }

    /// Where `up` keeps what is a sidecar's own.
    pub fn state(&self, workload: &str) -> PathBuf {
        self.dir.join(".ringfence").join(workload)
    }

    /// The admin endpoint of a workload's sidecar, once that is started.
    #[track_caller]
    pub fn admin(&self, workload: &str) -> Admin {
        Admin::of_bootstrap(&self.state(workload).join("bootstrap.json"))
    }

    /// Where the sidecar of `workload` listens first.
    #[track_caller]
    pub fn address(&self, workload: &str) -> SocketAddr {
        self.admin(workload).address()
    }

    #[track_caller]
    pub fn access_log(&self, workload: &str) -> sidecar::AccessLog {
        sidecar::AccessLog(self.state(workload).join("access.log"))
    }

    /// The process id of a workload's sidecar.
    pub fn sidecar_pid(&self, workload: &str) -> Option<u32> {
        let bootstrap = self.state(workload).join("bootstrap.json").canonicalize().ok()?.display().to_string();
        procfs::children(self.process.pid()).into_iter().find(|pid| procfs::arguments(*pid).contains(&bootstrap))
    }
}

/// `ringfence serve`: the control plane alone.
pub struct Serve {
    pub process: Process,
    sockets: PathBuf,
    /// Where it takes anybody.
    pub plaintext: SocketAddr,
}

impl Serve {
    /// With a socket for each workload, and a plaintext port; ready when this returns.
    #[track_caller]
    pub fn start(site: &Site) -> Self {
        Self::start_at(site, &site.dir(), SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same for another directory or plaintext port, with the sockets where `site` has them.
    #[track_caller]
    pub fn start_at(site: &Site, dir: &Path, plaintext: SocketAddr) -> Self {
        Self::start_with(dir, site.beside().join("ads"), plaintext)
    }

    /// A replica of its own: another directory, and beside it the sockets.
    #[track_caller]
    pub fn replica(dir: &Path) -> Self {
        Self::start_with(dir, dir.with_extension("ads"), SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    #[track_caller]
    fn start_with(dir: &Path, sockets: PathBuf, plaintext: SocketAddr) -> Self {
        let mut command = Command::new(binary("ringfence"));
        command.arg("serve").arg(dir).arg("--dangerous-plaintext").arg(plaintext.to_string());
        Self::begin(sockets, command)
    }

    /// One that has no key, and serves what `ringfence sign` has left in a file.
    #[track_caller]
    pub fn start_signed(site: &Site, file: &Path, config_keys: &Path) -> Self {
        let mut command = Command::new(binary("ringfence"));
        command.arg("serve").arg("--signed").arg(file).arg("--config-keys").arg(config_keys).arg("--dangerous-plaintext=127.0.0.1:0");
        Self::begin(site.beside().join("ads"), command)
    }

    #[track_caller]
    fn begin(sockets: PathBuf, mut command: Command) -> Self {
        command.arg("--sockets").arg(&sockets);
        let mut process = Process::start(&mut command);
        process.line(|line| line == "ready");
        let line = process.line(|line| line.contains("plaintext on"));
        let plaintext = line.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("the line ends in an address");
        Self { process, sockets, plaintext }
    }

    /// Directory of the sockets.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The socket of a workload's sidecar.
    pub fn socket(&self, workload: &str) -> PathBuf {
        self.sockets.join(format!("{workload}.ads"))
    }
}

/// `ringfence serve --tls`: for sidecars that prove who they are.
pub struct ServeTls {
    pub process: Process,
    pub address: SocketAddr,
    /// PEM: what a sidecar believes at first.
    pub bundle: PathBuf,
    dir: PathBuf,
}

impl ServeTls {
    /// Ready when this returns. `svid_ttl`: e.g. `20s`; renewed between 8 and 12 s.
    #[track_caller]
    pub fn start(site: &Site, svid_ttl: &str) -> Self {
        Self::start_by(Command::new(binary("ringfence")), site, SocketAddr::from(([127, 0, 0, 1], 0)), svid_ttl)
    }

    /// The same by a command that ends in the program: elsewhere.
    #[track_caller]
    pub fn start_by(mut command: Command, site: &Site, listen: SocketAddr, svid_ttl: &str) -> Self {
        command.arg("serve").arg(site.dir()).args(["--tls", &listen.to_string(), "--svid-ttl", svid_ttl]);
        let mut process = Process::start(&mut command);
        process.line(|line| line == "ready");
        let line = process.line(|line| line.contains("TLS on"));
        let (address, bundle) = line.split_once("TLS on ").and_then(|(_, rest)| rest.split_once(", trust bundle in ")).expect(&line);
        Self { process, address: address.parse().expect(&line), bundle: bundle.into(), dir: site.dir() }
    }

    /// Of the bootstrap of a sidecar that finds it at `address`, and its join token in a file beside the site, which is not written yet.
    pub fn bootstrap(&self, site: &Site, workload: &str, address: SocketAddr) -> Value {
        json!({
            "controlPlane": { "tls": address },
            "configKeys": site.config_keys(),
            "identity": {
                "trustDomain": "ringfence.internal",
                "bundle": self.bundle,
                "source": { "controlPlane": { "joinToken": { "file": join_token_file(site, workload) } } },
            },
        })
    }

    /// Writes a join token where the bootstrap says that it is.
    pub fn join(&self, site: &Site, workload: &str) {
        write_join_token(&join_token_file(site, workload), &self.join_token(workload));
    }

    /// A join token for one sidecar.
    pub fn join_token(&self, workload: &str) -> String {
        let output = ringfence(["join".as_ref(), self.dir.as_os_str(), "--workload".as_ref(), workload.as_ref()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("a token is text").trim_end().to_owned()
    }
}

pub fn join_token_file(site: &Site, workload: &str) -> PathBuf {
    site.beside().join(format!("{workload}.join-token"))
}

pub fn write_join_token(path: &Path, token: &str) {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(token.as_bytes()).unwrap();
}
