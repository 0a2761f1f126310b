//! A network namespace with one way out, and all that goes there redirected to the program under test, as it is in a pod.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    path::Path,
    process::Command,
    thread,
};

use rustix::{
    process::geteuid,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{Error, process::beside};

/// Outside; nothing gets there, for all is redirected on its way (RFC 5737).
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The user whose traffic is let out. What programs dial is on loopback, which is left alone, so that none here need be that user.
const SIDECAR: u32 = 1337;

/// Thousands of new connections a second soon meet their own ports again. On loopback they may have them after a second, and so it is here:
/// otherwise the load looks for free ports instead (tcp_tw_reuse in ip-sysctl.rst), and conntrack knows the old connection still.
const PORTS: [&str; 2] = ["net.ipv4.tcp_tw_reuse=1", "net.netfilter.nf_conntrack_tcp_timeout_time_wait=1"];

/// Deleted when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Needs root.
    pub(crate) fn new() -> Result<Self, Error> {
        if !geteuid().is_root() {
            return Err(Error::Unexpected("a network namespace needs root".into()));
        }
        let name = format!("ringfence-bench-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        // A cable of which both ends are here.
        for arguments in [
            "link set lo up",
            "link add eth0 type veth peer name eth1",
            "address add 10.77.0.2/24 dev eth0",
            "link set eth0 up",
            "link set eth1 up",
            "route add default via 10.77.0.1",
        ] {
            ip(&[&["-n", &namespace.name][..], &arguments.split(' ').collect::<Vec<_>>()].concat())?;
        }
        ip(&[&["netns", "exec", &namespace.name, "sysctl", "-qw"][..], &PORTS].concat())?;
        Ok(namespace)
    }

    /// Does it there, on a thread of its own. Processes that it starts are there too.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        let namespace = File::open(format!("/run/netns/{}", self.name)).map_err(Error::io(&self.name))?;
        let work = || {
            let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
            entered.map_err(|error| Error::io(&self.name)(error.into()))?;
            work()
        };
        thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err(Error::Unexpected("a measurement panicked".into())))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Already gone, if this fails.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// From now on all TCP that leaves this namespace goes to `egress` and all DNS to `dns`, whatever was so before. `state`: where it is said
/// that this is so.
pub(crate) fn redirect(egress: SocketAddr, dns: SocketAddr, state: &Path) -> Result<(), Error> {
    let mut install = Command::new(beside("ringfence-proxy")?);
    install.args(["capture", "install", "--egress-port", &egress.port().to_string(), "--dns-port", &dns.port().to_string()]);
    install.args(["--uid", &SIDECAR.to_string(), "--state"]).arg(state);
    done(&mut install)
}

fn ip(arguments: &[&str]) -> Result<(), Error> {
    done(Command::new("ip").args(arguments))
}

fn done(command: &mut Command) -> Result<(), Error> {
    let output = command.output().map_err(Error::io(command.get_program().display().to_string()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(Error::Unexpected(format!("{command:?}: {told}"))) }
}
