//! The sockets that hickory asks over UDP with: as its own, but connected.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
};

/// What is not connected is never told that nobody listens at the other end (ICMP, RFC 1122 §4.1.3.3), and waits until its time is up. The
/// kernel tells a connected socket of such an error only where the error quotes the port that the question came from, which is as hard to
/// guess as it is to forge an answer.
#[derive(Clone, Default)]
pub(super) struct Connected(TokioRuntimeProvider);

impl RuntimeProvider for Connected {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Socket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> TokioHandle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        patience: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.0.connect_tcp(server, local, patience)
    }

    /// `local`: with the random port that hickory has chosen.
    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Pin<Box<dyn Send + Future<Output = io::Result<Socket>>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Socket { socket, server })
        })
    }
}

pub(super) struct Socket {
    socket: UdpSocket,
    server: SocketAddr,
}

#[async_trait]
impl DnsUdpSocket for Socket {
    type Time = TokioTime;

    fn poll_recv_from(&self, context: &mut Context<'_>, octets: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut octets = ReadBuf::new(octets);
        self.socket.poll_recv(context, &mut octets).map_ok(|()| (octets.filled().len(), self.server))
    }

    /// The only one that hickory waits with. A socket that has an error and no datagram is not readable as tokio's own methods see it.
    async fn recv_from(&self, octets: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let receive = || Ok(recv(&self.socket, &mut *octets, RecvFlags::empty())?.0);
        let length = self.socket.async_io(Interest::READABLE | Interest::ERROR, receive).await?;
        Ok((length, self.server))
    }

    fn poll_send_to(&self, context: &mut Context<'_>, octets: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, octets)
    }
}
