//! A pod whose workload is captured: the redirect rules, and a sidecar that runs in the pod as a user of its own. The control plane runs
//! outside of both namespaces and is met on a Unix socket.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::json;

use crate::{DEADLINE, Net, Serve, Sidecar, Site, binaries::binary, netns::Namespace, site::object};

pub const SIDECAR: u32 = 1337;
pub const WORKLOAD: u32 = 2000;
pub const EGRESS: u16 = 15001;
pub const DNS: u16 = 15053;
pub const INBOUND: u16 = 18080;

// Ended in this order.
pub struct Pod {
    pub serve: Serve,
    pub site: Site,
    pub net: Net,
}

impl Pod {
    /// With rules and without a sidecar. `egress`: of the tenant's spec. `dns`: the one upstream. `None`: see [`Net::new`].
    pub fn captured(net: Net, egress: &str, dns: SocketAddr) -> Self {
        let site = Site::new();
        site.tenant("acme", egress);
        let listeners = format!(
            "inbound: [{{ listen: 127.0.0.1:{INBOUND}, upstream: 127.0.0.1:19000 }}], \
             egress: {{ listen: 127.0.0.1:{EGRESS}, capture: redirect }}, dns: {{ listen: 127.0.0.1:{DNS}, upstreams: [\"udp://{dns}\"] }}"
        );
        site.write("pod.yaml", &object("Workload", "pod", &format!("{{ tenant: acme, {listeners} }}")));
        let serve = Serve::start(&site);
        // The sidecar's user is to find its files.
        fs::set_permissions(site.beside(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(serve.socket("pod").parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(serve.socket("pod"), Some(SIDECAR), Some(SIDECAR)).unwrap();
        let pod = Self { serve, site, net };
        let installed = pod.capture("install");
        assert!(installed.status.success(), "{installed:?}");
        pod
    }

    /// `ringfence-proxy capture install` or `verify`, as the init step runs it.
    pub fn capture(&self, what: &str) -> Output {
        let mut command = self.net.pod.command(binary("ringfence-proxy"));
        command.args(["capture", what]).args(["--egress-port", &EGRESS.to_string(), "--dns-port", &DNS.to_string()]);
        command.args(["--uid", &SIDECAR.to_string()]);
        if what == "install" {
            command.arg("--state").arg(self.state());
        }
        command.output().unwrap()
    }

    fn state(&self) -> PathBuf {
        self.site.beside().join("capture")
    }

    /// Starts the sidecar. Not waited for.
    #[track_caller]
    pub fn start(&self) -> Sidecar {
        let bootstrap = json!({ "controlPlane": { "unix": self.serve.socket("pod") }, "captureDir": self.state(), "drainSeconds": 2 });
        let own = self.site.beside().join("pod");
        fs::create_dir_all(&own).unwrap();
        chown(&own, Some(SIDECAR), Some(SIDECAR)).unwrap();
        let command = self.net.pod.command_as(SIDECAR, binary("ringfence-proxy"));
        Sidecar::begin_as(command, &self.site, "pod", &bootstrap)
    }

    /// Counts what [`Pod::opened`] tells, from now on.
    pub fn watch(&self) {
        let rules = format!(
            "table inet opened {{\ncounter connections {{ }}\nchain output {{\ntype filter hook output priority -400; policy accept;\n\
             meta skuid {SIDECAR} tcp flags & (syn | ack) == syn counter name connections\n}}\n}}"
        );
        let output = self.net.pod.command("nft").arg(rules).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// TCP connections that the sidecar has begun since this was asked last, to wherever, as the kernel counts them.
    #[track_caller]
    pub fn opened(&self) -> usize {
        let output = self.net.pod.command("nft").args(["reset", "counter", "inet", "opened", "connections"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let packets = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        packets.unwrap_or_else(|| panic!("{text}"))
    }

    /// A program that the workload runs.
    pub fn workload(&self, program: &str) -> Command {
        self.net.pod.command_as(WORKLOAD, program)
    }

    /// A connection that the workload opens.
    pub fn connect(&self, address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
        connect(&self.net.pod, WORKLOAD, address, port)
    }
}

/// A connection that a user opens in a namespace; whoever says nothing is waited for no longer than [`DEADLINE`].
pub fn connect(namespace: &Namespace, uid: u32, address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let stream = namespace.inside_as(uid, || TcpStream::connect_timeout(&(address, port).into(), DEADLINE))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}
