//! Listeners on their way from one process to the next. What waits in a socket's queue stays there: it is the same socket.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use super::{ListenerKey, Listeners, Role, Sockets};

/// One socket of a listener.
#[derive(Debug)]
pub struct Passed {
    pub key: ListenerKey,
    /// Which of the listener's addresses, counted from 0: what is captured is awaited at two.
    pub place: usize,
    pub socket: PassedSocket,
}

#[derive(Debug)]
pub enum PassedSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl From<PassedSocket> for OwnedFd {
    fn from(socket: PassedSocket) -> Self {
        match socket {
            PassedSocket::Tcp(socket) => socket.into(),
            PassedSocket::Udp(socket) => socket.into(),
        }
    }
}

impl Listeners {
    /// All sockets that are served.
    pub fn to_pass(&self) -> io::Result<Vec<Passed>> {
        let mut passed = Vec::new();
        for (key, listener) in self.bound.iter().filter(|(_, listener)| listener.serving.is_some()) {
            for (place, sockets) in listener.sockets.iter().enumerate() {
                for socket in &sockets.of_threads {
                    passed.push(Passed { key: *key, place, socket: PassedSocket::Tcp(socket.try_clone()?) });
                }
                for socket in &sockets.udp {
                    passed.push(Passed { key: *key, place, socket: PassedSocket::Udp(socket.try_clone()?) });
                }
            }
        }
        Ok(passed)
    }

    /// Takes the sockets of the process that this one takes over from, for the policy that asks for them.
    ///
    /// With SO_REUSEPORT each has a queue of its own, so that all of them are served, be there more of them than data threads. Where there are
    /// fewer, threads share one.
    pub fn inherit(&mut self, passed: Vec<Passed>) -> io::Result<()> {
        let mut addresses: BTreeMap<(Role, SocketAddr, usize, usize), (ListenerKey, Sockets)> = BTreeMap::new();
        for Passed { key, place, socket } in passed {
            let address = match &socket {
                PassedSocket::Tcp(socket) => socket.local_addr()?,
                PassedSocket::Udp(socket) => socket.local_addr()?,
            };
            let empty = || (key, Sockets { address, of_threads: Vec::new(), udp: Vec::new() });
            let (_, sockets) = addresses.entry((key.role, key.listen, key.nth, place)).or_insert_with(empty);
            if sockets.address != address {
                return Err(io::Error::other(format!("sockets of {address} and {} were passed as one listener's", sockets.address)));
            }
            match socket {
                PassedSocket::Tcp(socket) => sockets.of_threads.push(socket),
                PassedSocket::Udp(socket) => sockets.udp.push(socket),
            }
        }
        for (key, mut sockets) in addresses.into_values() {
            sockets.share_among(self.threads.len())?;
            self.inherited.entry(key).or_default().push(sockets);
        }
        Ok(())
    }
}

impl Sockets {
    fn share_among(&mut self, threads: usize) -> io::Result<()> {
        let (tcp, udp) = (self.of_threads.len(), self.udp.len());
        let is_dns = udp > 0;
        if tcp == 0 || is_dns && udp != tcp {
            return Err(io::Error::other(format!("of {} {tcp} TCP sockets and {udp} of UDP were passed", self.address)));
        }
        for i in tcp..threads {
            self.of_threads.push(self.of_threads[i % tcp].try_clone()?);
            if is_dns {
                self.udp.push(self.udp[i % udp].try_clone()?);
            }
        }
        Ok(())
    }
}
