//! One downstream connection from its first octet to its last: TLS, the choice of protocol, the requests, the end.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc};

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use super::{Inbound, Transport, exchange::Exchange, handle, headers::Origin, mutual, tls, upgrade};
use crate::{
    hop::{
        connection::{self as hop, Activity},
        guard::{Guarded, Signals, Targets},
        leaving::Leaving,
    },
    identity::peer::Peer,
    listeners::Drain,
};

/// What the requests of one downstream connection share.
pub(super) struct Downstream {
    pub(super) inbound: Rc<Inbound>,
    pub(super) origin: Origin,
    /// Of a listener with mTLS.
    pub(super) peer: Option<Rc<Peer>>,
    pub(super) signals: Rc<Signals>,
    /// The upstream's half of a WebSocket, left here by the request that opened it, and when it is to end.
    pub(super) tunnel: Cell<Option<(OnUpgrade, Rc<Leaving>)>>,
    /// The request that opened it, as long as it lasts.
    pub(super) exchange: Cell<Option<Box<Exchange>>>,
    pub(super) activity: Rc<Activity>,
}

impl Downstream {
    pub(super) fn new(inbound: Rc<Inbound>, address: SocketAddr, peer: Option<Rc<Peer>>) -> io::Result<Self> {
        let address = HeaderValue::try_from(address.ip().to_canonical().to_string()).map_err(io::Error::other)?;
        let is_tls = !matches!(inbound.transport, Transport::Tcp);
        let origin = Origin { peer: address, is_tls };
        Ok(Self {
            inbound,
            origin,
            peer,
            signals: Rc::default(),
            tunnel: Cell::new(None),
            exchange: Cell::new(None),
            activity: Rc::new(Activity::new()),
        })
    }
}

/// Serves `stream` until either side has had enough.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, inbound: Rc<Inbound>, drain: Drain) -> io::Result<()> {
    let downstream = || Downstream::new(inbound.clone(), peer, None).map(Rc::new);
    match &inbound.transport {
        Transport::Tcp => sniff(stream, downstream()?, drain).await,
        // Boxed, here and below: plain HTTP/1 need not carry their state about.
        Transport::Tls(acceptor) => {
            let serve = async {
                let stream = timeout(inbound.timeouts.handshake, acceptor.accept(stream)).await??;
                secured(stream, downstream()?, drain).await
            };
            Box::pin(serve).await
        }
        Transport::Mutual => Box::pin(mutual::serve(stream, peer, inbound.clone(), drain)).await,
    }
}

/// Serves what comes over TLS.
pub(super) async fn secured(stream: TlsStream<TcpStream>, downstream: Rc<Downstream>, drain: Drain) -> io::Result<()> {
    match stream.get_ref().1.alpn_protocol() {
        Some(tls::H2) => http2(stream, Vec::new(), downstream, drain).await,
        Some(_) => http1(stream, Vec::new(), downstream, drain).await,
        None => sniff(stream, downstream, drain).await,
    }
}

async fn sniff<S: AsyncRead + AsyncWrite + Unpin + 'static>(mut stream: S, downstream: Rc<Downstream>, mut drain: Drain) -> io::Result<()> {
    let mut initial = Vec::with_capacity(4 * 1024);
    match hop::is_http2(&mut stream, &mut initial, downstream.inbound.timeouts.head, &mut drain).await? {
        Some(true) => Box::pin(http2(stream, initial, downstream, drain)).await,
        Some(false) => http1(stream, initial, downstream, drain).await,
        None => Ok(()),
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    initial: Vec<u8>,
    downstream: Rc<Downstream>,
    drain: Drain,
) -> io::Result<()> {
    let timeouts = &downstream.inbound.timeouts;
    let guarded = Guarded::http1(stream, initial, Targets::Server, downstream.signals.clone(), timeouts.head);
    let each = |request| handle(request, downstream.clone());
    let mut ended = hop::http1(guarded, each, &downstream.activity, timeouts, drain).await;
    match downstream.tunnel.take() {
        Some((upstream, leaving)) => {
            let _exchange = downstream.exchange.take();
            let spliced = async {
                tokio::select! {
                    spliced = upgrade::splice(ended.stream, &ended.rest, upstream) => spliced,
                    () = leaving.over() => Ok(()),
                }
            };
            Box::pin(spliced).await
        }
        None => hop::linger(&mut ended.stream, timeouts.linger).await.and(ended.outcome),
    }
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    initial: Vec<u8>,
    downstream: Rc<Downstream>,
    drain: Drain,
) -> io::Result<()> {
    let guarded = Guarded::http2(stream, initial, downstream.signals.clone());
    let each = |request| handle(request, downstream.clone());
    hop::http2(guarded, each, &downstream.activity, &downstream.inbound.timeouts, drain).await
}
