//! Programs that let out what goes to one of a list of names, asked by CONNECT or by the name in the TLS.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{Kind, Program, directory, envoy, filled, find, haproxy, ringfence::Installation, squid, write};
use crate::{Error, policy::Issuer, process::free_address};

const RINGFENCE: &str = include_str!("../../peers/ringfence-egress.yaml");
const ENVOY_CONNECT: &str = include_str!("../../peers/envoy-connect.yaml");
const ENVOY_SNI: &str = include_str!("../../peers/envoy-sni.yaml");
const HAPROXY_SNI: &str = include_str!("../../peers/haproxy-sni.cfg");
const NGINX_SNI: &str = include_str!("../../peers/nginx-sni.conf");
/// Where Debian keeps what nginx loads.
const NGINX_MODULES: &str = "/usr/lib/nginx/modules";

/// Where one may go.
pub(crate) struct Egress {
    pub(crate) names: Vec<String>,
    /// Where the names lead.
    pub(crate) upstream: SocketAddr,
    /// Who says so, over UDP.
    pub(crate) dns: SocketAddr,
    /// Where a captured workload's own questions go.
    pub(crate) dns_listen: SocketAddr,
}

/// A program, or the name of one that is not installed.
type Peer = (&'static str, Option<Program>);

impl Egress {
    pub(crate) fn installation(&self, dir: &Path, capture: &'static str) -> Result<Installation, Error> {
        let fill = [
            ("NAMES", self.names.join(", ")),
            ("CAPTURE", capture.to_owned()),
            ("DNS_LISTEN", self.dns_listen.to_string()),
            ("DNS", self.dns.to_string()),
        ];
        let dir = directory(dir, &format!("ringfence-{capture}"))?;
        Installation::new(dir, &filled(RINGFENCE, &fill), self.upstream, &Issuer::generate()?)
    }

    pub(crate) fn by_connect(&self, dir: &Path) -> Result<[Peer; 2], Error> {
        // Envoy looks names up with the port that CONNECT gives.
        let with_port = |name: &String| format!("\"{name}:{}\"", self.upstream.port());
        let envoy = self.envoy(dir, "envoy-connect", ENVOY_CONNECT, self.names.iter().map(with_port).collect())?;
        Ok([("envoy", envoy), ("squid", squid::connect(dir, self)?)])
    }

    pub(crate) fn by_sni(&self, dir: &Path) -> Result<[Peer; 4], Error> {
        Ok([
            ("envoy", self.envoy(dir, "envoy-sni", ENVOY_SNI, self.names.clone())?),
            ("haproxy", self.haproxy(dir, "haproxy", "")?),
            ("haproxy", self.haproxy(dir, "haproxy, splice", "option splice-auto")?),
            ("nginx with its stream module", self.nginx(dir)?),
        ])
    }

    fn envoy(&self, dir: &Path, file: &str, template: &str, names: Vec<String>) -> Result<Option<Program>, Error> {
        let fill = [("NAMES", names.join(", ")), ("DNS_PORT", self.dns.port().to_string())];
        envoy::program("envoy", &directory(dir, file)?, &filled(template, &fill), self.upstream, "")
    }

    fn haproxy(&self, dir: &Path, name: &str, option: &str) -> Result<Option<Program>, Error> {
        let dir = directory(dir, &name.replace(", ", "-"))?;
        write(&dir.join("names"), &self.lines(|name| format!("{name}\n")), &[])?;
        haproxy::program(name, &dir, HAPROXY_SNI, self.upstream, option)
    }

    fn nginx(&self, dir: &Path) -> Result<Option<Program>, Error> {
        let modules = PathBuf::from(NGINX_MODULES);
        let Some(path) = find("nginx").filter(|_| modules.join("ngx_stream_module.so").is_file()) else { return Ok(None) };
        let dir = directory(dir, "nginx-sni")?;
        let (file, log, address) = (dir.join("nginx.conf"), dir.join("access.log"), free_address()?);
        write(&dir.join("names"), &self.lines(|name| format!("{name} {};\n", self.upstream)), &[])?;
        let fill = [("DIR", dir.display().to_string()), ("LISTEN", address.to_string()), ("MODULES", NGINX_MODULES.to_owned())];
        write(&file, NGINX_SNI, &fill)?;
        let arguments = ["-c".into(), file.into(), "-p".into(), dir.into()].to_vec();
        let name = "nginx".into();
        Ok(Some(Program { kind: Kind::Nginx, name, address, http2: address, path, arguments, log: Some(log), logs_to_stdout: false }))
    }

    pub(super) fn lines(&self, line: impl Fn(&String) -> String) -> String {
        self.names.iter().map(line).collect()
    }
}
