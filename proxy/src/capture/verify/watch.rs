//! A packet socket on all devices: sees what leaves them after every rule has been passed, in the order in which it does.

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt},
};

use super::Family;

/// The head of a packet: link layer, IP, and the target of a neighbour solicitation.
const HEAD: usize = 128;
const BUFFER: usize = 1024 * 1024;

pub(super) struct Watch {
    socket: OwnedFd,
    /// Heads of packets that were not the loopback device's.
    heads: Vec<Vec<u8>>,
}

impl Watch {
    /// Needs CAP_NET_RAW.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(eth::ALL))?;
        sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        Ok(Self { socket, heads: Vec::new() })
    }

    /// Takes in what has been seen, for `time` at most.
    pub(super) fn look(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            let mut head = [0; HEAD];
            match recv(&self.socket, &mut head, RecvFlags::TRUNC) {
                Ok((length, _)) if is_loopback(&head[..length]) => {}
                Ok((length, _)) => self.heads.push(head[..length].to_vec()),
                Err(rustix::io::Errno::AGAIN) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
                    if left.is_zero() || poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout))? == 0 {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether anything named the address of this number: a packet to it, or a question for its neighbour.
    pub(super) fn saw(&self, family: Family, number: u8) -> bool {
        self.names(family.address(number), HEAD)
    }

    /// Whether anything named the loopback address: a packet that was redirected and left all the same.
    pub(super) fn saw_loopback(&self, family: Family) -> bool {
        // Ethernet and IP, and no more: what others say of it is nothing to us.
        self.names(family.loopback(), if family == Family::Ipv4 { 14 + 20 } else { 14 + 40 })
    }

    fn names(&self, address: IpAddr, within: usize) -> bool {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        self.heads.iter().any(|head| head[..head.len().min(within)].windows(octets.len()).any(|window| window == octets))
    }
}

/// The loopback device puts an Ethernet header without addresses before its packets; no other has one.
fn is_loopback(head: &[u8]) -> bool {
    head.starts_with(&[0; 12])
}
