//! What a workload may try.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, Protocol, RawProtocol, SendFlags, SocketFlags, SocketType, connect, ipproto, sendto, socket_with},
};
use socket2::SockRef;

use super::{
    super::devices::devices,
    Family, PATIENCE,
    listen::{Port, Sidecar},
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Redirected.
    Tcp(u16, Port),
    /// A DNS query over UDP; redirected.
    Query,
    Udp(u16),
    /// Bound to each device, which a redirection does not change.
    Bound,
    /// IP with this protocol number and these octets.
    Raw {
        v4: (u8, &'static [u8]),
        v6: (u8, &'static [u8]),
    },
    /// The second half of a UDP packet whose first half never comes.
    Fragment,
}

pub(super) const BOUND: &str = "TCP, bound to a device";

pub(super) const PROBES: &[(&str, Kind)] = &[
    ("TCP port 80", Kind::Tcp(80, Port::Egress)),
    ("TCP port 853", Kind::Tcp(853, Port::Egress)),
    ("DNS over TCP", Kind::Tcp(53, Port::Dns)),
    ("DNS over UDP", Kind::Query),
    ("QUIC (UDP port 443)", Kind::Udp(443)),
    ("UDP port 123", Kind::Udp(123)),
    ("UDP port 4433", Kind::Udp(4433)),
    (BOUND, Kind::Bound),
    ("ICMP echo", Kind::Raw { v4: (1, &[8, 0, 0xf7, 0xfe, 0, 1, 0, 0]), v6: (58, &[128, 0, 0, 0, 0, 1, 0, 0]) }),
    ("SCTP", Kind::Raw { v4: (132, &SCTP), v6: (132, &SCTP) }),
    ("an IP protocol without a name (253)", Kind::Raw { v4: (253, b"ringfence"), v6: (253, b"ringfence") }),
    ("a fragment", Kind::Fragment),
];

/// A common header (RFC 9260 §3.1): ports, verification tag, checksum.
const SCTP: [u8; 12] = [0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0];
/// The names of the root's servers, without recursion (RFC 1035 §4.1): a sidecar refuses at once, without asking anybody.
const QUERY: [u8; 17] = [0x72, 0x66, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

impl Kind {
    pub(super) fn is_redirected(self) -> bool {
        matches!(self, Kind::Tcp(..) | Kind::Query)
    }

    pub(super) fn exists_in(self, family: Family) -> bool {
        !matches!(self, Kind::Fragment) || family == Family::Ipv4
    }

    /// `Ok`: it was sent, or a rule refused it; for what is redirected, that it came back. Else it could not be tried, or went astray.
    pub(super) fn send(self, destination: IpAddr, sidecar: &Sidecar) -> io::Result<()> {
        let to = |port| SocketAddr::new(destination, port);
        let family = if destination.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        match self {
            Kind::Tcp(port, sidecars) => {
                let stream = TcpStream::connect_timeout(&to(port), PATIENCE)?;
                sidecar.accepts(sidecars, &stream, to(port))
            }
            Kind::Query => {
                let socket = udp(destination)?;
                socket.connect(to(53))?;
                sidecar.answers(&socket, &QUERY)
            }
            Kind::Udp(port) => tried(udp(destination)?.send_to(b"ringfence", to(port))),
            Kind::Bound => {
                let tries = devices().map_err(io::Error::other)?.into_iter().map(|device| bound(family, &device, to(80)));
                tries.reduce(io::Result::or).unwrap_or(Ok(()))
            }
            Kind::Raw { v4, v6 } => {
                let (number, octets) = if destination.is_ipv4() { v4 } else { v6 };
                raw(family, number, octets, to(0))
            }
            // IPPROTO_RAW: the octets begin with the IP header; length, checksum and source are filled in.
            Kind::Fragment => raw(family, 255, &fragment(destination), to(0)),
        }
    }
}

fn udp(destination: IpAddr) -> io::Result<UdpSocket> {
    let family = if destination.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    UdpSocket::bind(family.unspecified())
}

/// The first packet is sent before this returns.
fn bound(family: AddressFamily, device: &str, to: SocketAddr) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    SockRef::from(&socket).bind_device(Some(device.as_bytes()))?;
    tried(connect(&socket, &to))
}

fn raw(family: AddressFamily, number: u8, octets: &[u8], to: SocketAddr) -> io::Result<()> {
    let protocol = RawProtocol::new(number.into()).map(Protocol::from_raw);
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    tried(sendto(&socket, octets, SendFlags::empty(), &to))
}

/// Offset 64, UDP, 8 octets.
fn fragment(destination: IpAddr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0x72, 0x66, 0, 8, 64, 17, 0, 0, 0, 0, 0, 0];
    if let IpAddr::V4(v4) = destination {
        packet.extend(v4.octets());
    }
    packet.extend(*b"ringfenc");
    packet
}

/// A rule may tell the sender (EPERM), and a connection is not there at once.
fn tried<T>(sent: Result<T, impl Into<io::Error>>) -> io::Result<()> {
    match sent.map_err(Into::into) {
        Ok(_) => Ok(()),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::INPROGRESS | Errno::NOBUFS) => Ok(()),
            _ => Err(error),
        },
    }
}
