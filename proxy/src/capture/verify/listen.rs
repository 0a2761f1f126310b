//! The sidecar's ports: where no sidecar listens yet, somebody who stands in for it.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{CaptureError, Family, PATIENCE, Rules};
use crate::outbound::capture::original_destination;

/// One family's ports. `None`: a sidecar has it, and answers by itself.
pub(super) struct Sidecar {
    egress: Option<TcpListener>,
    dns: Option<TcpListener>,
    dns_udp: Option<UdpSocket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Egress,
    Dns,
}

impl Sidecar {
    pub(super) fn stand_in(family: Family, rules: &Rules) -> Result<Self, CaptureError> {
        let address = |port| SocketAddr::new(family.loopback(), port);
        let tcp = |port| unless_taken(TcpListener::bind(address(port)), "tcp", address(port));
        let dns_udp = unless_taken(UdpSocket::bind(address(rules.dns_port)), "udp", address(rules.dns_port))?;
        let sidecar = Self { egress: tcp(rules.egress_port)?, dns: tcp(rules.dns_port)?, dns_udp };
        for listener in sidecar.egress.iter().chain(&sidecar.dns) {
            listener.set_nonblocking(true).map_err(CaptureError::io("a listener"))?;
        }
        if let Some(socket) = &sidecar.dns_udp {
            socket.set_read_timeout(Some(PATIENCE)).map_err(CaptureError::io("a socket"))?;
        }
        Ok(sidecar)
    }

    /// That `stream`, which is connected to `dialled` for all it knows, is connected to this port.
    pub(super) fn accepts(&self, port: Port, stream: &TcpStream, dialled: SocketAddr) -> io::Result<()> {
        let listener = match port {
            Port::Egress => &self.egress,
            Port::Dns => &self.dns,
        };
        // Connected, and nothing has been seen on a device: then it was the sidecar.
        let Some(listener) = listener else { return Ok(()) };
        let (ours, until) = (stream.local_addr()?, Instant::now() + PATIENCE);
        loop {
            match listener.accept() {
                Ok((accepted, peer)) if peer == ours => {
                    return match original_destination(&accepted, listener.local_addr()?)? {
                        Some(original) if original == dialled => Ok(()),
                        other => Err(io::Error::other(format!("its original destination is {other:?}"))),
                    };
                }
                // Others may be in the queue.
                Ok(_) => {}
                // The dialling side is connected by the answer; here it is once that was acknowledged, which a busy machine does later.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !is_readable(listener, until.saturating_duration_since(Instant::now()))? {
                        return Err(io::Error::other("connected elsewhere"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// That what `socket` sends to whom it is connected to is answered in their name: the answer comes back through the redirection.
    pub(super) fn answers(&self, socket: &UdpSocket, query: &[u8]) -> io::Result<()> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(query)?;
        let mut datagram = [0; 512];
        if let Some(sidecar) = &self.dns_udp {
            let until = Instant::now() + PATIENCE;
            loop {
                let (length, peer) = sidecar.recv_from(&mut datagram)?;
                sidecar.send_to(&datagram[..length], peer)?;
                if peer == socket.local_addr()? {
                    break;
                }
                if Instant::now() > until {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        socket.recv(&mut datagram).map(drop)
    }
}

/// Whether there is something to accept, within `time`.
fn is_readable(listener: &TcpListener, time: Duration) -> io::Result<bool> {
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    Ok(poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&time))? > 0)
}

fn unless_taken<T>(bound: io::Result<T>, protocol: &str, address: SocketAddr) -> Result<Option<T>, CaptureError> {
    match bound {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(CaptureError::io(format!("{protocol} {address}"))(error)),
    }
}
