//! A pod and the world outside of it: two network namespaces joined by a cable, each with its own addresses, routes, rules and sockets.
//!
//! ```text
//! pod                                    outside
//! eth0 10.77.0.2/24 fd77::2/64  <---->   eth0 10.77.0.1/24 fd77::1/64     the pod's default route, IPv4 and IPv6
//! lo                                     lo   192.0.2.1 192.0.2.53 2001:db8::1 2001:db8::53, and what `address` adds
//! ```
//!
//! Tests play the outside with sockets of their own ([`Namespace::inside`]) and run programs in the pod ([`Namespace::command_as`]).

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

pub const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
pub const OUTSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
pub const OUTSIDE_DNS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53));
pub const OUTSIDE_DNS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53));

/// Deleted when dropped, after a panic too.
#[derive(Debug)]
pub struct Net {
    pub pod: Namespace,
    pub outside: Namespace,
}

impl Net {
    /// `None` where this process may not make namespaces, after saying so in the form that `tests/run` looks for.
    #[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
    pub fn new() -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let id = unique();
        let net = Self { pod: Namespace::add(format!("{id}-pod")), outside: Namespace::add(format!("{id}-outside")) };
        ip(&["link", "add", "eth0", "netns", &net.pod.name, "type", "veth", "peer", "name", "eth0", "netns", &net.outside.name]);
        for (namespace, v4, v6) in [(&net.pod, POD_V4, POD_V6), (&net.outside, GATEWAY_V4, GATEWAY_V6)] {
            namespace.ip(&["address", "add", &format!("{v4}/24"), "dev", "eth0"]);
            namespace.ip(&["address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
        }
        for namespace in [&net.pod, &net.outside] {
            namespace.ip(&["link", "set", "lo", "up"]);
            namespace.ip(&["link", "set", "eth0", "up"]);
        }
        net.pod.ip(&["route", "add", "default", "via", &GATEWAY_V4.to_string()]);
        net.pod.ip(&["route", "add", "default", "via", &GATEWAY_V6.to_string()]);
        for address in [OUTSIDE_V4, OUTSIDE_DNS_V4, OUTSIDE_V6, OUTSIDE_DNS_V6] {
            net.outside.address(address);
        }
        Some(net)
    }
}

/// A network namespace with a name of its own.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// One that is joined to nothing. `what`: it is for, as a part of its name.
    pub fn new(what: &str) -> Self {
        Self::add(format!("{}-{what}", unique()))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn add(name: String) -> Self {
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        // An address may be used at once: nobody else is there to have it.
        namespace.inside(|| fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").expect("IPv6 is there"));
        namespace
    }

    /// Gives it one more address, on its loopback device.
    #[track_caller]
    pub fn address(&self, address: IpAddr) {
        self.ip(&["address", "add", &address.to_string(), "dev", "lo"]);
    }

    /// `ip` with these arguments, in the namespace.
    #[track_caller]
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }

    /// A program that runs in the namespace, as root. The process started is the program itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).stdin(Stdio::null());
        command
    }

    /// The same as a user, without any capability; of a group of the same number.
    pub fn command_as(&self, uid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command("setpriv");
        let id = uid.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--bounding-set", "-all", "--"]).arg(program);
        command
    }

    /// From now on, or no longer: every packet that comes or goes is lost without a word, but for those of its loopback device.
    #[track_caller]
    pub fn lose_everything(&self, lost: bool) {
        let chain = |name: &str, device: &str| format!("chain {name} {{ type filter hook {name} priority 0; {device} != lo drop; }}\n");
        let rules = match lost {
            true => format!("table inet lost {{\n{}{}}}", chain("input", "iifname"), chain("output", "oifname")),
            false => "delete table inet lost".into(),
        };
        let output = self.command("nft").arg(&rules).output().expect("nftables is installed");
        assert!(output.status.success(), "{rules}: {output:?}");
    }

    /// Does it in the namespace, on a thread of its own. Sockets made there stay there, whoever uses them later.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the namespace is there");
        let enter = || move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter it");
        let work = || {
            enter();
            work()
        };
        let ended = thread::scope(|scope| scope.spawn(work).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The same as a user: what the kernel and its rules take for the owner of the sockets made there.
    pub fn inside_as<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> T {
        self.inside(move || {
            // Of this thread alone: these are the system calls, not the C library's.
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
            set_thread_groups(&[]).expect("root may drop its groups");
            set_thread_res_gid(group, group, group).expect("root may change its group");
            set_thread_res_uid(user, user, user).expect("root may change its user");
            work()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Already gone, if this fails. A namespace without a name lasts until its last process and socket are gone.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).stderr(Stdio::null()).status();
    }
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("ringfence-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}
