//! The sockets of the DNS route: one port, over UDP and TCP.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    rc::Rc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Dns, tcp, udp};
use crate::listeners::{Serve, accept};

/// Pause after a receive that failed for want of memory: the cause does not go away by asking again.
pub(super) const SCARCE: Duration = Duration::from_millis(100);
/// How often another port is tried where the kernel's choice for UDP is taken for TCP.
const ATTEMPTS: usize = 16;
/// Octets of queries and answers that the kernel keeps for a UDP socket, each way. A burst of lookups at a program's start must fit.
const UDP_BUFFER: usize = 1024 * 1024;

/// Answers what arrives until the drain begins.
///
/// Must run in a `LocalRuntime` or a `LocalSet`: all work of a query stays on this thread.
pub async fn serve(serve: Serve, dns: Rc<Dns>) -> io::Result<()> {
    let listener = serve.key.listen;
    let over_tcp =
        accept::serve(serve.socket, serve.drain.clone(), |stream, peer, drain| tcp::serve(stream, peer, listener, dns.clone(), drain));
    let over_udp = async {
        match serve.udp {
            Some(socket) => udp::serve(socket, listener, dns.clone(), serve.drain).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(over_tcp, over_udp).map(|_| ())
}

/// Binds both on one port. `share`: so that several threads may each listen on it (SO_REUSEPORT). Port 0: the kernel chooses.
pub fn bind(address: SocketAddr, share: bool) -> io::Result<(UdpSocket, TcpListener)> {
    for _ in 1..ATTEMPTS {
        match bind_once(address, share) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() == 0 => {}
            bound => return bound,
        }
    }
    bind_once(address, share)
}

fn bind_once(address: SocketAddr, share: bool) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = bind_udp(address, share)?;
    let tcp = accept::bind(udp.local_addr()?, share)?;
    Ok((udp, tcp))
}

fn bind_udp(address: SocketAddr, share: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    // The kernel grants what its limits allow.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
