//! Connections to one upstream: idle HTTP/1 ones, and a multiplexed HTTP/2 one for each tenant. One pool per inbound listener and thread,
//! and on the outbound route one per downstream connection and destination: nothing here is shared between threads.
//!
//! A connection carries one tenant's requests for all its life; those of public paths have connections of their own. A workload that
//! answers twice, late, shifts the answers of its connection by one, which nobody in front of it can tell: they stay with the tenant.
//!
//! pingora-pool was considered: it shares its map between threads behind locks and keys it by a hash, neither of which
//! a pool of one address on one thread needs.

mod http1;
mod idle;

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use ringfence_policy::{Deny, TenantId};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};

pub(crate) use self::http1::Http1;
use self::idle::{Idle, Rested};
use super::{
    body::RequestBody,
    leaving::Leaving,
    limits::{BUFFER, H2_CONNECTION_WINDOW, H2_STREAM_WINDOW, UPSTREAM_IDLE},
    socket::Socket,
};
use crate::{in_flight::InFlightGuard, telemetry::access_log};

/// A share in an HTTP/2 connection.
#[derive(Clone, Debug)]
pub(crate) struct Http2 {
    pub(crate) peer: SocketAddr,
    pub(crate) sender: http2::SendRequest<RequestBody>,
}

/// A connection to an upstream, before anything was asked on it.
#[derive(Debug)]
pub(crate) struct Connected {
    stream: Socket,
    peer: SocketAddr,
    /// It counts for a tenant until it ends.
    counted: Option<InFlightGuard>,
    /// All that was to be written on it is.
    is_flushed: bool,
}

impl Connected {
    /// `counted`: kept for as long as the connection lasts.
    pub(crate) fn new(stream: impl Into<Socket>, peer: SocketAddr, counted: Option<InFlightGuard>) -> Self {
        Self { stream: stream.into(), peer, counted, is_flushed: true }
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether nothing has come that nobody asked for, its end included, as far as can be told without a system call.
    ///
    /// tokio holds the waker of the task that last found nothing to read, and with it all of that task's memory, for as long as the
    /// connection rests: it is forgotten here.
    fn is_quiet(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        match &self.stream {
            Socket::Tcp(stream) => stream.poll_read_ready(&mut nobody).is_pending(),
            // TLS has records of its own: whoever reads finds out.
            Socket::Peer(_) => true,
        }
    }

    pub(crate) fn into_parts(self) -> (Socket, Option<InFlightGuard>) {
        (self.stream, self.counted)
    }
}

impl AsyncRead for Connected {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connected {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why there is no connection to the upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The upstream may not be connected to.
    #[error("{0}")]
    Refused(Deny),
}

impl ConnectError {
    /// For the access log.
    pub(crate) fn class(&self) -> access_log::ConnectError {
        match self {
            ConnectError::Timeout(_) => access_log::ConnectError::TimedOut,
            ConnectError::Io(error) => error.kind().into(),
            ConnectError::Http(_) | ConnectError::Refused(_) => access_log::ConnectError::Other,
        }
    }
}

/// Opens connections to an upstream.
pub(crate) trait Dial {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + '_>>;
}

/// The workload, which has one address.
#[derive(Debug)]
struct Workload {
    address: SocketAddr,
    limit: Duration,
}

impl Dial for Workload {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + '_>> {
        Box::pin(async {
            let connected = timeout(self.limit, TcpStream::connect(self.address)).await;
            let stream = connected.map_err(|_| ConnectError::Timeout(self.limit))??;
            stream.set_nodelay(true)?;
            Ok(Connected::new(stream, self.address, None))
        })
    }
}

/// An upstream and the connections to it.
pub struct Upstream {
    dial: Box<dyn Dial>,
    connect: Duration,
    idle: RefCell<Idle>,
    /// The streams of a connection share its window and the workload's bound on streams, and who reads none of its responses uses both up.
    http2: RefCell<HashMap<Option<TenantId>, Shared>>,
    leaving: Rc<Leaving>,
}

/// hyper's tasks of a connection, which end with what it leads to: the connection itself is one of them.
#[derive(Clone)]
struct UntilLeft(Rc<Leaving>);

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for UntilLeft {
    fn execute(&self, task: F) {
        let leaving = self.0.clone();
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = task => {}
                () = leaving.over() => {}
            }
        });
    }
}

struct Shared {
    connection: Http2,
    used: Instant,
}

impl Shared {
    fn is_usable(&self, now: Instant) -> bool {
        !self.connection.sender.is_closed() && now - self.used < UPSTREAM_IDLE
    }
}

impl Upstream {
    /// The workload's. `connect`: how long to wait for a connection.
    pub fn new(address: SocketAddr, connect: Duration) -> Self {
        Self::dialled_by(Box::new(Workload { address, limit: connect }), connect)
    }

    /// `connect`: how long to wait for HTTP/2 on a new connection.
    pub(crate) fn dialled_by(dial: Box<dyn Dial>, connect: Duration) -> Self {
        Self { dial, connect, idle: RefCell::default(), http2: RefCell::default(), leaving: Rc::default() }
    }

    /// When what goes there is to end.
    pub(crate) fn leaving(&self) -> &Rc<Leaving> {
        &self.leaving
    }

    /// An idle HTTP/1 connection of the tenant's. Age is looked at here and not by a timer, so that an idle sidecar sleeps; the upstream may
    /// close a connection whenever it likes.
    pub(crate) async fn reuse(&self, tenant: Option<&TenantId>) -> Option<Http1> {
        let rested = self.idle.borrow_mut().take(tenant, Instant::now())?;
        match rested {
            Rested::Warm(connection) => Some(connection),
            // Boxed, so that a request on a warm one does not carry its state about.
            Rested::Bare(stream) => Box::pin(Http1::begin(stream, tenant.cloned())).await.ok(),
        }
    }

    /// A new HTTP/1 connection.
    pub(crate) async fn connect_http1(&self, tenant: Option<TenantId>) -> Result<Http1, ConnectError> {
        let stream = self.dial.dial().await?;
        Ok(Http1::begin(stream, tenant).await?)
    }

    /// The tenant's HTTP/2 connection, made anew when it has died or rested too long. Requests that find none at the same time each make
    /// one and the last stays; the others end with their requests. That is cheaper than making requests wait for each other.
    pub(crate) async fn http2(&self, tenant: Option<TenantId>) -> Result<Http2, ConnectError> {
        let now = Instant::now();
        if let Some(shared) = self.http2.borrow_mut().get_mut(&tenant).filter(|shared| shared.is_usable(now)) {
            shared.used = now;
            return Ok(shared.connection.clone());
        }
        let stream = self.dial.dial().await?;
        let peer = stream.peer();
        let mut builder = http2::Builder::new(UntilLeft(self.leaving.clone()));
        builder.initial_connection_window_size(H2_CONNECTION_WINDOW).initial_stream_window_size(H2_STREAM_WINDOW).max_send_buf_size(BUFFER);
        let (sender, connection) =
            timeout(self.connect, builder.handshake(TokioIo::new(stream))).await.map_err(|_| ConnectError::Timeout(self.connect))??;
        tokio::task::spawn_local(connection);
        let connection = Http2 { peer, sender };
        let mut http2 = self.http2.borrow_mut();
        // Streams that are open on a forgotten connection go on until they end.
        http2.retain(|_, shared| shared.is_usable(now));
        http2.insert(tenant, Shared { connection: connection.clone(), used: now });
        Ok(connection)
    }
}

/// A connection that goes back to its pool when its exchange is over.
pub(crate) struct Lease {
    upstream: Rc<Upstream>,
    connection: Http1,
}

impl Lease {
    pub(crate) fn new(upstream: Rc<Upstream>, connection: Http1) -> Self {
        Self { upstream, connection }
    }

    /// Whether what is still under way on it is to be cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.upstream.leaving.is_cut()
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) {
        self.connection.poll(cx);
    }

    /// Wakes nobody until it is polled again.
    pub(crate) fn forget_waker(&self) {
        self.connection.forget_waker();
    }

    /// The exchange has ended as it should. A lease that is dropped instead closes its connection.
    pub(crate) fn give_back(self) {
        self.upstream.idle.borrow_mut().keep(self.connection, Instant::now());
    }
}
