//! Connections of whoever can reach the port: TLS, and until a connection has shown an SVID, little room and little time.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{self, Stream};
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::accept::{self, Connection, Holder, Share, Shares};
use crate::trust::{Caller, Credentials};

/// Sidecars, and those that they take over from.
const MAX_CONNECTIONS: usize = 16_384;
/// Of one SVID's name.
const MAX_OF_ONE: usize = 16;
/// Handshakes at a time; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;
/// Connections that have not shown an SVID, of one address: a pod has one, and cannot take all the handshakes that there are.
const MAX_UNPROVEN_OF_ONE: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a caller without an SVID may take to ask for one.
const UNPROVEN: Duration = Duration::from_secs(30);
/// A peer that has vanished is noticed after idle time and probes …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// … and sooner where it was sent something: probes wait for what is unacknowledged, which is sent again for a quarter of an hour (tcp(7)).
/// Also ends one that takes nothing of it for so long.
const UNACKNOWLEDGED_MS: u32 = 30_000;

type TlsConnection = Connection<TlsStream<TcpStream>, Caller>;

struct Listening {
    listener: TcpListener,
    credentials: watch::Receiver<Arc<Credentials>>,
    places: Arc<Semaphore>,
    shares: Shares,
    handshakes: JoinSet<Option<TlsConnection>>,
}

pub(super) fn connections(
    listener: TcpListener,
    credentials: watch::Receiver<Arc<Credentials>>,
) -> impl Stream<Item = io::Result<TlsConnection>> {
    let (shares, handshakes) = Default::default();
    let listening = Listening { listener, credentials, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), shares, handshakes };
    stream::unfold(listening, |mut listening| async {
        let connection = listening.next().await?;
        Some((Ok(connection), listening))
    })
}

impl Listening {
    async fn next(&mut self) -> Option<TlsConnection> {
        loop {
            let accept = async {
                let place = self.places.clone().acquire_owned().await.ok()?;
                Some((place, accept::accept(&self.listener).await))
            };
            tokio::select! {
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Some(connection)) => return Some(connection),
                    // It failed, by whatever the peer did.
                    _ => continue,
                },
                accepted = accept, if self.handshakes.len() < MAX_HANDSHAKES => {
                    let (place, io) = accepted?;
                    self.begin(place, io);
                }
            }
        }
    }

    fn begin(&mut self, place: OwnedSemaphorePermit, io: TcpStream) {
        let Ok(address) = address(&io) else { return };
        let Ok(share) = self.unproven(address) else { return };
        let credentials = self.credentials.borrow().clone();
        let shares = self.shares.clone();
        self.handshakes.spawn(async move {
            keep_alive(&io).ok()?;
            let acceptor = TlsAcceptor::from(credentials.server.clone());
            let io = timeout(HANDSHAKE, acceptor.accept(io)).await.ok()?.ok()?;
            let caller = Caller::of(io.get_ref().1.peer_certificates(), address, &credentials)?;
            let (until, share) = match caller.peer() {
                Some(peer) => (None, Some(shares.take(Holder::Id(peer.id().clone()), MAX_OF_ONE)?)),
                None => (Some(Box::pin(tokio::time::sleep(UNPROVEN))), share),
            };
            Some(Connection { io, caller, until, _place: place, _share: share })
        });
    }

    /// An address's share of the connections that have shown nothing; an error where it has it already.
    fn unproven(&self, address: Option<IpAddr>) -> Result<Option<Share>, io::Error> {
        let Some(address) = address else { return Ok(None) };
        self.shares.take(Holder::Address(address), MAX_UNPROVEN_OF_ONE).map(Some).ok_or_else(|| io::ErrorKind::QuotaExceeded.into())
    }
}

/// The peer's, of IPv6 its /64 network; none on loopback, where all share one.
fn address(io: &TcpStream) -> io::Result<Option<IpAddr>> {
    let address = match io.peer_addr()?.ip().to_canonical() {
        address if address.is_loopback() => return Ok(None),
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    };
    Ok(Some(address))
}

/// The kernel's, which costs no memory here.
fn keep_alive(io: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(io, true)?;
    sockopt::set_tcp_keepidle(io, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(io, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(io, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(io, UNACKNOWLEDGED_MS)?;
    Ok(())
}
