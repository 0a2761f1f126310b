//! Attempts to get past the sidecar by what the kernel offers. Each is made twice: where no rules are, where the canary must see it, and
//! where they are.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use ringfence_tests::{
    netns::{GATEWAY_V4, GATEWAY_V6, Namespace},
    packet,
    pod::WORKLOAD,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use socket2::{Domain, Protocol, Socket, Type};

use super::world::{ALLOWED_V4, FOREIGN_V4, FOREIGN_V6, METADATA, RESOLVER_V4, RESOLVER_V6};

/// Who makes an attempt.
#[derive(Clone, Copy)]
pub(super) enum Who {
    User(u32),
    /// As containers often run: uid 0, and not one capability.
    RootWithoutCapabilities,
    /// Root in the pod. The rules are not made to hold it, and its raw sockets get nowhere all the same.
    Root,
}

pub(super) struct Attempt {
    pub(super) name: &'static str,
    who: Who,
    how: fn(),
}

impl Attempt {
    /// What the one who tries is told of it is all the same: the canary tells.
    pub(super) fn make(&self, pod: &Namespace) {
        match self.who {
            Who::User(uid) => pod.inside_as(uid, self.how),
            Who::Root => pod.inside(self.how),
            Who::RootWithoutCapabilities => pod.inside(|| {
                let none = CapabilitySet::empty();
                set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
                (self.how)();
            }),
        }
    }
}

const fn by(who: Who, name: &'static str, how: fn()) -> Attempt {
    Attempt { name, who, how }
}

const fn user(name: &'static str, how: fn()) -> Attempt {
    by(Who::User(WORKLOAD), name, how)
}

pub(super) const ATTEMPTS: [Attempt; 31] = [
    user("TCP over IPv4", || tcp(FOREIGN_V4, 443)),
    user("TCP over IPv6", || tcp(FOREIGN_V6, 443)),
    by(Who::User(65534), "TCP as another user", || tcp(FOREIGN_V4, 443)),
    by(Who::RootWithoutCapabilities, "TCP as root without capabilities", || tcp(FOREIGN_V4, 443)),
    by(Who::RootWithoutCapabilities, "UDP as root without capabilities", || udp(FOREIGN_V4, 443)),
    user("TCP to an IPv4-mapped address", || tcp(mapped(FOREIGN_V4), 443)),
    user("UDP to an IPv4-mapped address", || udp(mapped(FOREIGN_V4), 4500)),
    user("TCP to ports of all kinds", || [1, 22, 25, 853, 6443, 15001, 65535].into_iter().for_each(|port| tcp(FOREIGN_V4, port))),
    user("TCP to the metadata address", || tcp(METADATA, 80)),
    user("TCP to the gateway", || tcp(GATEWAY_V4, 8080)),
    user("QUIC over IPv4", || udp(FOREIGN_V4, 443)),
    user("QUIC over IPv6", || udp(FOREIGN_V6, 443)),
    user("QUIC to an allowed host", || udp(ALLOWED_V4, 443)),
    user("UDP to ports of all kinds", || [1, 123, 500, 4500, 15053, 51820, 65535].into_iter().for_each(|port| udp(FOREIGN_V4, port))),
    user("UDP to the gateway over IPv6", || udp(GATEWAY_V6, 5000)),
    user("DNS to another server", || udp(RESOLVER_V4, 53)),
    user("DNS to another server over IPv6", || udp(RESOLVER_V6, 53)),
    user("DNS over TCP to another server", || tcp(RESOLVER_V4, 53)),
    user("DNS over TCP to another server over IPv6", || tcp(RESOLVER_V6, 53)),
    user("UDP in fragments", || udp_with(FOREIGN_V4, 5000, &[0; 6000])),
    user("UDP to everybody", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_broadcast(true).unwrap();
        let _ = socket.send_to(b"canary", "255.255.255.255:67");
        let _ = socket.send_to(b"canary", "10.77.0.255:67");
    }),
    user("UDP to groups", || {
        udp([224, 0, 0, 251].into(), 5353);
        udp([239, 255, 255, 250].into(), 1900);
    }),
    user("UDP and TCP from ports of one's choice", || {
        for port in [1337, 15002, 33434] {
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            let _ = socket.send_to(b"canary", (FOREIGN_V4, 443));
            tcp_on(&Socket::new(Domain::IPV4, Type::STREAM, None).unwrap(), Some(port));
        }
    }),
    user("TCP and UDP bound to the device", || {
        for kind in [Type::STREAM, Type::DGRAM] {
            let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
            socket.bind_device(Some(b"eth0")).unwrap();
            tcp_on(&socket, None);
        }
    }),
    by(Who::Root, "UDP from an address that is not the pod's", || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_ip_transparent_v4(true).unwrap();
        socket.bind(&SocketAddr::from(([10, 77, 0, 99], 0)).into()).unwrap();
        let _ = socket.send_to(b"canary", &SocketAddr::new(FOREIGN_V4, 443).into());
    }),
    user("data in the first packet (TCP fast open)", || {
        const MSG_FASTOPEN: i32 = 0x2000_0000;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.send_to_with_flags(b"canary", &SocketAddr::new(FOREIGN_V4, 443).into(), MSG_FASTOPEN);
    }),
    user("ICMP echo over IPv4", || ping(Domain::IPV4, Protocol::ICMPV4, FOREIGN_V4, &[8, 0, 0, 0, 0, 1, 0, 1])),
    user("ICMP echo over IPv6", || ping(Domain::IPV6, Protocol::ICMPV6, FOREIGN_V6, &[128, 0, 0, 0, 0, 1, 0, 1])),
    by(Who::Root, "SCTP, GRE, UDP-Lite and others on raw sockets", || {
        for (domain, address) in [(Domain::IPV4, FOREIGN_V4), (Domain::IPV6, FOREIGN_V6)] {
            for protocol in [132, 47, 136, 33, 50, 4, 41, 253] {
                let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol))).unwrap();
                let _ = socket.send_to(&[0; 40], &SocketAddr::new(address, 0).into());
            }
        }
    }),
    by(Who::Root, "UDP with a packet mark", || {
        for mark in [1, 2, 1337] {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_mark(mark).unwrap();
            let _ = socket.send_to(b"canary", &SocketAddr::new(FOREIGN_V4, 443).into());
        }
    }),
    by(Who::Root, "frames past the kernel's IP", || {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 253, 0, 0, 10, 77, 0, 2, 45, 33, 32, 156];
        packet.extend(b"canary!!");
        let _ = packet::send_ipv4("eth0", &packet);
    }),
];

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        address => address,
    }
}

/// Neither TLS nor HTTP, and told so at once.
const OPAQUE: &[u8] = b"\0\x01canary";
/// A connection that is taken is given up by the sidecar sooner.
const WAIT: Duration = Duration::from_secs(5);

fn tcp(address: IpAddr, port: u16) {
    if let Ok(mut stream) = TcpStream::connect_timeout(&(address, port).into(), WAIT) {
        say(&mut stream);
    }
}

fn tcp_on(socket: &Socket, port: Option<u16>) {
    if let Some(port) = port {
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).unwrap();
    }
    if socket.connect_timeout(&SocketAddr::new(FOREIGN_V4, 443).into(), WAIT).is_ok() {
        let _ = socket.send(OPAQUE);
    }
}

/// Until the other side has had enough.
fn say(stream: &mut TcpStream) {
    let _ = stream.set_read_timeout(Some(WAIT)).and_then(|()| stream.write_all(OPAQUE));
    let _ = std::io::copy(stream, &mut std::io::sink());
}

fn udp(address: IpAddr, port: u16) {
    udp_with(address, port, b"canary");
}

fn udp_with(address: IpAddr, port: u16, datagram: &[u8]) {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let _ = UdpSocket::bind((any, 0)).unwrap().send_to(datagram, (address, port));
}

fn ping(domain: Domain, protocol: Protocol, address: IpAddr, echo: &[u8]) {
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
    let _ = socket.send_to(echo, &SocketAddr::new(address, 0).into());
}
