//! Many datagrams with one system call, each way: for a query that is answered from memory, the way into the kernel and out of it costs as
//! much as the answer.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::AsRawFd,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::{
    io::Errno,
    net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::dns::limits::{UDP_BATCH, UDP_QUERY};

/// Room for a batch of queries. What no datagram has been in yet takes no memory.
pub(super) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    slots: Vec<[u8; UDP_QUERY]>,
    /// Length and sender of each that arrived last.
    arrived: Vec<(usize, SocketAddr)>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let headers = MultiHeaders::preallocate(UDP_BATCH, None);
        Self { headers, slots: vec![[0; UDP_QUERY]; UDP_BATCH], arrived: Vec::with_capacity(UDP_BATCH) }
    }

    /// Takes in what has arrived. [`io::ErrorKind::WouldBlock`]: nothing has.
    pub(super) fn receive(&mut self, socket: &AsyncFd<UdpSocket>) -> io::Result<()> {
        let Self { headers, slots, arrived } = self;
        arrived.clear();
        let received = socket.try_io(Interest::READABLE, |socket| {
            let mut rest = slots.iter_mut();
            let mut slots: [_; UDP_BATCH] = array::from_fn(|_| [IoSliceMut::new(rest.next().map_or(&mut [], |slot| slot))]);
            let datagrams = recvmmsg(socket.as_raw_fd(), headers, slots.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
            arrived.extend(datagrams.filter_map(|datagram| Some((datagram.bytes, ip(&datagram.address?)?))));
            // Less than there was room for was all that there is: this spares the call that would find nothing.
            if arrived.len() < UDP_BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if arrived.is_empty() { received } else { Ok(()) }
    }

    /// Whether more may have arrived than there was room for.
    pub(super) fn is_full(&self) -> bool {
        self.arrived.len() == UDP_BATCH
    }

    /// What arrived last and from whom.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        self.slots.iter().zip(&self.arrived).map(|(slot, (length, sender))| (&slot[..*length], *sender))
    }
}

fn ip(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from(*address));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from(*address)))
}

/// The answers to a batch.
#[derive(Default)]
pub(super) struct Outbox {
    octets: Vec<u8>,
    /// Where each answer stands, and whose it is.
    answers: Vec<(Range<usize>, SocketAddrAny)>,
}

impl Outbox {
    /// Adds what `write` appends for `receiver`; nothing where that is nothing.
    pub(super) fn add<T>(&mut self, receiver: SocketAddr, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.octets.len();
        let written = write(&mut self.octets);
        let end = self.octets.len();
        if start < end {
            self.answers.push((start..end, receiver.into()));
        }
        written
    }

    /// Sends all, and is empty then. A full socket drops them as the network might: clients ask again.
    pub(super) fn send(&mut self, socket: &UdpSocket) {
        let slices: Vec<_> = self.answers.iter().map(|(place, _)| [IoSlice::new(&self.octets[place.clone()])]).collect();
        let mut no_control: [_; UDP_BATCH] = array::from_fn(|_| SendAncillaryBuffer::default());
        let parts = self.answers.iter().zip(&slices).zip(&mut no_control);
        let mut messages: Vec<_> = parts.map(|(((_, receiver), slice), none)| MMsgHdr::new_with_addr(receiver, slice, none)).collect();
        let mut left = &mut messages[..];
        while !left.is_empty() {
            let sent = match sendmmsg(socket, left, SendFlags::DONTWAIT) {
                Ok(sent) => sent,
                Err(Errno::WOULDBLOCK) => break,
                // The first of them cannot be sent where it is to go.
                Err(_) => 1,
            };
            left = &mut left[sent.max(1)..];
        }
        drop(messages);
        self.octets.clear();
        self.answers.clear();
    }
}
