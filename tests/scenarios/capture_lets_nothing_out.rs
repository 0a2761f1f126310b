//! The redirect rules in a pod of their own: what leaves the workload comes to the sidecar or nowhere, with either backend.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output},
    thread,
    time::Instant,
};

use ringfence_proxy::{capture::require, outbound::capture::original_destination};
use ringfence_tests::{
    DEADLINE, Net,
    binaries::binary,
    netns::{OUTSIDE_DNS_V4, OUTSIDE_DNS_V6, OUTSIDE_V4, OUTSIDE_V6, POD_V4, POD_V6},
    packet,
};
use rustix::net::{AddressFamily, Protocol, RawProtocol, SendFlags, SocketType, sendto, socket};
use serde_json::Value;
use tempfile::TempDir;

const SIDECAR: u32 = 1337;
const WORKLOAD: u32 = 2000;
const EGRESS: u16 = 15001;
const DNS: u16 = 15053;
const RULES: [&str; 6] = ["--egress-port", "15001", "--dns-port", "15053", "--uid", "1337"];
/// Programs of which a machine without nftables has one set.
const IPTABLES: [&str; 4] = ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Backend {
    Nft,
    IptablesLegacy,
    IptablesNft,
}

const BACKENDS: [Backend; 3] = [Backend::Nft, Backend::IptablesLegacy, Backend::IptablesNft];

struct Pod {
    net: Net,
    dir: TempDir,
    backend: Backend,
}

impl Pod {
    #[allow(clippy::print_stdout, reason = "what a test skips it says in its output")]
    fn new(backend: Backend) -> Option<Self> {
        let pod = Self { net: Net::new()?, dir: TempDir::new().unwrap(), backend };
        let tools = match backend {
            Backend::Nft => return Some(pod),
            Backend::IptablesLegacy => "xtables-legacy-multi",
            Backend::IptablesNft => "xtables-nft-multi",
        };
        fs::create_dir(pod.tools()).unwrap();
        let Some(tools) = which(tools) else {
            println!("skipped: needs iptables");
            return None;
        };
        IPTABLES.iter().for_each(|name| symlink(&tools, pod.tools().join(name)).unwrap());
        Some(pod)
    }

    /// In force when this returns.
    fn captured(backend: Backend) -> Option<Self> {
        let pod = Self::new(backend)?;
        let output = pod.capture("install", &RULES);
        assert!(output.status.success(), "{backend:?}: {output:?}");
        Some(pod)
    }

    fn tools(&self) -> PathBuf {
        self.dir.path().join("tools")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn command(&self) -> Command {
        let mut command = self.net.pod.command("env");
        if self.backend != Backend::Nft {
            command.arg(format!("PATH={}", self.tools().display()));
        }
        command
    }

    fn capture(&self, what: &str, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.arg(binary("ringfence-proxy")).args(["capture", what]).args(arguments);
        if what != "verify" {
            command.arg("--state").arg(self.state());
        }
        command.output().unwrap()
    }

    /// Names of the probes that failed.
    fn verify(&self) -> Vec<String> {
        let output = self.capture("verify", &[&RULES[..], &["-o", "json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let probes = report["probes"].as_array().unwrap();
        assert!(probes.len() > 40, "{report}");
        let failed = probes.iter().filter(|probe| probe["ok"] == false).map(|probe| probe["probe"].as_str().unwrap().to_owned());
        let failed: Vec<_> = failed.collect();
        assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())), "{output:?}");
        failed
    }

    /// `nft` in the pod.
    fn nft(&self, arguments: &[&str]) -> String {
        let output = self.net.pod.command("nft").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A socket of a user's in the pod.
    fn udp(&self, uid: u32, address: IpAddr, port: u16) -> UdpSocket {
        self.net.pod.inside_as(uid, || UdpSocket::bind((address, port)).unwrap())
    }

    /// A socket in the world outside.
    fn canary(&self, address: IpAddr, port: u16) -> UdpSocket {
        let socket = self.net.outside.inside(|| UdpSocket::bind((address, port)).unwrap());
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }
}

fn received(canary: &UdpSocket) -> String {
    let mut datagram = [0; 100];
    let length = canary.recv(&mut datagram).unwrap();
    String::from_utf8_lossy(&datagram[..length]).into_owned()
}

#[test]
fn what_is_installed_is_verified_and_what_is_removed_is_gone() {
    for backend in BACKENDS {
        let Some(pod) = Pod::new(backend) else { return };
        let begun = Instant::now();
        assert!(pod.capture("install", &RULES).status.success());
        let installed = begun.elapsed();
        assert_eq!(pod.verify(), Vec::<String>::new(), "{backend:?}");
        println!("{backend:?}: installed in {installed:?}, verified in {:?}", begun.elapsed() - installed);
        assert!(pod.capture("install", &RULES).status.success(), "again");
        assert_eq!(pod.verify(), Vec::<String>::new(), "{backend:?}, installed twice");
        let found = pod.net.pod.inside(|| require(&pod.state(), ([127, 0, 0, 1], EGRESS).into(), ([127, 0, 0, 1], DNS).into()));
        assert_eq!(found, Ok(()));
        assert!(require(&pod.state(), ([127, 0, 0, 1], EGRESS).into(), ([127, 0, 0, 1], DNS).into()).is_err(), "the test's own namespace");
        for _ in 0..2 {
            assert!(pod.capture("remove", &[]).status.success(), "{backend:?}");
        }
        assert!(!pod.state().join("capture.json").exists());
        let canary = pod.canary(OUTSIDE_V4, 443);
        pod.udp(WORKLOAD, POD_V4, 0).send_to(b"free", (OUTSIDE_V4, 443)).unwrap();
        assert_eq!(received(&canary), "free");
    }
}

#[test]
fn a_hole_is_found_by_its_name() {
    let Some(pod) = Pod::captured(Backend::Nft) else { return };
    for (chain, rule, probes) in [
        ("outgoing", "udp dport 443 accept", "QUIC (UDP port 443)"),
        ("outgoing", "meta l4proto { icmp, icmpv6 } accept", "ICMP echo"),
        ("outgoing", "meta l4proto 132 accept", "SCTP"),
        ("leaving", "accept", "TCP, bound to a device"),
        ("captured", "tcp dport 53 redirect to :15001", "DNS over TCP"),
    ] {
        pod.nft(&["insert", "rule", "inet", "ringfence", chain, rule]);
        let failed = pod.verify();
        assert!(!failed.is_empty() && failed.iter().all(|name| name == probes), "{rule}: {failed:?}");
        assert!(pod.capture("install", &RULES).status.success());
    }
    // Where the sidecar itself does not get out, nothing was proven.
    pod.nft(&["insert", "rule", "inet", "ringfence", "outgoing", "meta skuid 1337 drop"]);
    assert_eq!(pod.verify(), ["the sidecar's own gets out", "the sidecar's own gets out"]);
}

#[test]
fn original_destinations_of_both_families_reach_a_listener_of_both() {
    for backend in BACKENDS {
        let Some(pod) = Pod::captured(backend) else { return };
        let listener = pod.net.pod.inside(|| TcpListener::bind(("::", EGRESS)).unwrap());
        let bound = listener.local_addr().unwrap();
        for destination in [OUTSIDE_V4, OUTSIDE_V6].map(|address| SocketAddr::new(address, 4433)) {
            let _stream = pod.net.pod.inside_as(WORKLOAD, || TcpStream::connect_timeout(&destination, DEADLINE).unwrap());
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(original_destination(&accepted, bound).unwrap(), Some(destination), "{backend:?}");
        }
        let _direct = pod.net.pod.inside_as(WORKLOAD, || TcpStream::connect(("127.0.0.1", EGRESS)).unwrap());
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(original_destination(&accepted, bound).unwrap(), None, "{backend:?}: an explicit proxy's client");
    }
}

#[test]
fn a_resolver_on_loopback_is_the_sidecars() {
    for backend in BACKENDS {
        let Some(pod) = Pod::captured(backend) else { return };
        let sidecar = pod.udp(SIDECAR, [127, 0, 0, 1].into(), DNS);
        let workload = pod.udp(WORKLOAD, [127, 0, 0, 1].into(), 0);
        workload.send_to(b"query", "127.0.0.53:53").unwrap();
        sidecar.set_read_timeout(Some(DEADLINE)).unwrap();
        let (length, peer) = sidecar.recv_from(&mut [0; 100]).unwrap();
        sidecar.send_to(b"answer", peer).unwrap();
        workload.set_read_timeout(Some(DEADLINE)).unwrap();
        let (_, from) = workload.recv_from(&mut [0; 100]).unwrap();
        assert_eq!((length, from), (5, "127.0.0.53:53".parse().unwrap()), "{backend:?}");
    }
}

#[test]
fn who_connects_from_outside_gets_an_answer() {
    for backend in BACKENDS {
        let Some(pod) = Pod::captured(backend) else { return };
        for address in [POD_V4, POD_V6] {
            let workload = pod.net.pod.inside_as(WORKLOAD, || TcpListener::bind((address, 8080)).unwrap());
            let mut client = pod.net.outside.inside(|| TcpStream::connect_timeout(&(address, 8080).into(), DEADLINE).unwrap());
            let (mut accepted, _) = workload.accept().unwrap();
            accepted.write_all(b"answer").unwrap();
            drop(accepted);
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "answer", "{backend:?}");
            let refused = pod.net.outside.inside(|| TcpStream::connect_timeout(&(address, 8081).into(), DEADLINE)).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{backend:?}: nobody listens, and the client is told");
        }
    }
}

#[test]
fn what_the_sidecar_sent_before_it_closed_arrives_whole() {
    // More than the kernel sends before the socket is closed.
    const LENGTH: usize = 4 * 1024 * 1024;
    for backend in BACKENDS {
        let Some(pod) = Pod::captured(backend) else { return };
        let outside = pod.net.outside.inside(|| TcpListener::bind((OUTSIDE_V4, 8080)).unwrap());
        let sender = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let connect = || TcpStream::connect_timeout(&(OUTSIDE_V4, 8080).into(), DEADLINE);
                let mut stream = pod.net.pod.inside_as(SIDECAR, connect).unwrap();
                stream.set_nonblocking(true).unwrap();
                let mut sent = 0;
                // As much as its buffers take while nobody reads; then it is closed.
                while let Ok(length) = stream.write(&[0; 64 * 1024]) {
                    sent += length;
                    if sent > LENGTH {
                        break;
                    }
                }
                sent
            });
            sender.join().unwrap()
        });
        let (mut accepted, _) = outside.accept().unwrap();
        accepted.set_read_timeout(Some(DEADLINE)).unwrap();
        let received = std::io::copy(&mut accepted, &mut std::io::sink()).unwrap();
        assert_eq!(received, sender as u64, "{backend:?}");
    }
}

#[test]
fn nobody_gets_out_by_a_port_that_the_sidecar_used_nor_catches_it_by_one_of_his() {
    for backend in BACKENDS {
        let Some(pod) = Pod::captured(backend) else { return };
        for (address, server) in [(POD_V4, OUTSIDE_DNS_V4), (POD_V6, OUTSIDE_DNS_V6)] {
            let canary = pod.canary(server, 53);
            let dns = if address.is_ipv4() {
                pod.udp(SIDECAR, [127, 0, 0, 1].into(), DNS)
            } else {
                pod.udp(SIDECAR, "::1".parse().unwrap(), DNS)
            };
            dns.set_read_timeout(Some(DEADLINE)).unwrap();
            // The workload's query leads to the sidecar, and its port leads there for a while.
            pod.udp(WORKLOAD, address, 40000).send_to(b"workload", (server, 53)).unwrap();
            assert_eq!(received(&dns), "workload");
            pod.udp(SIDECAR, address, 40000).send_to(b"sidecar", (server, 53)).unwrap();
            assert_eq!(received(&canary), "sidecar", "{backend:?}");
            // And the other way round.
            pod.udp(SIDECAR, address, 40001).send_to(b"first", (server, 53)).unwrap();
            assert_eq!(received(&canary), "first");
            pod.udp(WORKLOAD, address, 40001).send_to(b"second", (server, 53)).unwrap();
            assert_eq!(received(&dns), "second", "{backend:?}");
            pod.udp(SIDECAR, address, 40002).send_to(b"last", (server, 53)).unwrap();
            assert_eq!(received(&canary), "last", "{backend:?}");
        }
    }
}

/// An IPv4 packet with UDP in it; the kernel or nobody looks at UDP's checksum, which may be left out (RFC 768).
fn udp_packet(from: IpAddr, to: SocketAddr, from_port: u16, text: &str) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(destination)) = (from, to.ip()) else { panic!("IPv4") };
    let length = 8 + text.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + length).to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets().into_iter().chain(destination.octets()));
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    [from_port, to.port(), length, 0].iter().for_each(|field| packet.extend(field.to_be_bytes()));
    packet.extend(text.bytes());
    packet
}

#[test]
fn who_has_raw_sockets_does_not_forge_a_way_out() {
    for backend in BACKENDS {
        let Some(pod) = Pod::captured(backend) else { return };
        let canary = pod.canary(OUTSIDE_V4, 9000);
        let outside = SocketAddr::new(OUTSIDE_V4, 9000);
        let own = SocketAddr::new(POD_V4, 9001);
        let workload = pod.udp(WORKLOAD, POD_V4, 9001);
        // What seems to have come from outside came over loopback: the answer to it is none.
        pod.net.pod.inside(|| {
            let raw = socket(AddressFamily::INET, SocketType::RAW, RawProtocol::new(255).map(Protocol::from_raw)).unwrap();
            let _ = sendto(&raw, &udp_packet(OUTSIDE_V4, own, 9000, "forged"), SendFlags::empty(), &own);
        });
        let _ = workload.send_to(b"answer", outside);
        if backend == Backend::Nft {
            let sent = pod.net.pod.inside(|| packet::send_ipv4("eth0", &udp_packet(POD_V4, outside, 9001, "frame")));
            assert!(sent.is_err(), "the packet fence refuses it");
        }
        pod.udp(SIDECAR, POD_V4, 0).send_to(b"control", outside).unwrap();
        assert_eq!(received(&canary), "control", "{backend:?}");
    }
}

#[test]
fn what_is_missing_is_named_and_nothing_is_left() {
    let Some(pod) = Pod::new(Backend::IptablesLegacy) else { return };
    fs::remove_file(pod.tools().join("ip6tables-restore")).unwrap();
    let output = pod.capture("install", &RULES);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("ip6tables-restore is not installed"), "{said}");

    // The last of eight commits fails.
    let script = format!(
        "#!/bin/sh\nread table\ncase $table in *nat*) echo 'no nat' >&2; exit 1; esac\n{{ echo \"$table\"; while read -r line; do echo \"$line\"; done; }} | {} \"$@\"\n",
        which("ip6tables-legacy-restore").unwrap().display()
    );
    let tool = pod.tools().join("ip6tables-restore");
    fs::write(&tool, script).unwrap();
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = pod.capture("install", &RULES);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("ip6tables-restore: no nat"), "{said}");
    assert!(!pod.state().join("capture.json").exists());
    for save in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        let rules = pod.net.pod.command(save).output().unwrap();
        assert!(!String::from_utf8_lossy(&rules.stdout).contains("RINGFENCE"), "{rules:?}");
    }
}

fn which(tool: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(tool)).find(|tool| tool.exists())
}
