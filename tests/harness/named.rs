//! BIND, as the primary of a policy zone: transfers are signed, and may come over TLS.

use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{process::Process, tls};

pub const ZONE: &str = "rpz.test";
pub const KEY: &str = "key.test";
/// In base64.
pub const SECRET: &str = "QSBzZWNyZXQgb2YgdGhpcnR5LXR3byBvY3RldHMgLi4=";
/// What its certificate is for.
pub const SERVER_NAME: &str = "ns.test";

/// Not started, but where it will be.
pub struct Named {
    pub address: SocketAddr,
    pub tls: SocketAddr,
    dir: TempDir,
}

impl Named {
    /// `None`, and said, where BIND is missing.
    #[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
    pub fn new() -> Option<Self> {
        if program().is_none() {
            println!("skipped: needs named");
            return None;
        }
        // It cannot ask the system for a port itself: it gets two that were free a moment ago.
        let [first, second] = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [address, tls] = [first, second].map(|listener| listener.local_addr().unwrap());
        Some(Self { address, tls, dir: tempfile::tempdir().unwrap() })
    }

    /// The zone from now on. `rules`: lines of its file.
    pub fn write(&self, serial: u32, rules: &str) {
        let text = format!("$TTL 60\n@ SOA ns.{ZONE}. root.{ZONE}. {serial} 3600 600 86400 60\n@ NS ns.{ZONE}.\nns A 192.0.2.53\n{rules}");
        // In one move, and never with the same time as before.
        let (new, file) = (self.dir.path().join("new"), self.dir.path().join("rpz.zone"));
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// Starts it with the zone that was written. `notify`: whom it tells of changes, signed.
    #[track_caller]
    pub fn start(&self, notify: SocketAddr) -> Process {
        let dir = self.dir.path();
        let (certificate, key) = tls::pair(SERVER_NAME);
        fs::write(dir.join("certificate.pem"), certificate).unwrap();
        fs::write(dir.join("key.pem"), key).unwrap();
        fs::write(dir.join("named.conf"), self.configuration(dir, notify)).unwrap();
        let program = program().expect("it was there before");
        let mut process = Process::start(Command::new(program).arg("-g").arg("-n").arg("1").arg("-c").arg(dir.join("named.conf")));
        process.line(|line| line.ends_with(" running"));
        process
    }

    fn configuration(&self, dir: &Path, notify: SocketAddr) -> String {
        let (dir, address) = (dir.display(), self.address.ip());
        let mut text = String::new();
        write!(
            text,
            r#"
            controls {{ }};
            key "{KEY}" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
            tls ours {{ cert-file "{dir}/certificate.pem"; key-file "{dir}/key.pem"; protocols {{ TLSv1.3; }}; }};
            options {{
                directory "{dir}"; pid-file none; session-keyfile none; lock-file none;
                listen-on port {plain} {{ {address}; }};
                listen-on port {tls} tls ours {{ {address}; }};
                listen-on-v6 {{ none; }};
                recursion no; dnssec-validation no; notify-delay 0; notify-source {address};
                ixfr-from-differences yes; max-ixfr-ratio unlimited;
                allow-transfer {{ key "{KEY}"; }};
            }};
            zone "{ZONE}" {{
                type primary; file "rpz.zone"; check-names ignore;
                also-notify {{ {to} port {port} key "{KEY}"; }};
            }};
            "#,
            plain = self.address.port(),
            tls = self.tls.port(),
            to = notify.ip(),
            port = notify.port(),
        )
        .unwrap();
        text
    }
}

/// Makes BIND read its zone anew.
pub fn reload(named: &Process) {
    named.signal(Signal::HUP);
}

/// It is in nobody's path but root's.
fn program() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join("named")).find(|program| program.is_file())
}
