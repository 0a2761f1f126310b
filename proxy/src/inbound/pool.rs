//! Connections to one upstream: a few idle HTTP/1 ones and a multiplexed HTTP/2 one for each tenant. One pool per listener and thread,
//! so nothing here is shared between threads.
//!
//! pingora-pool was considered: it shares its map between threads behind locks and keys it by a hash, neither of which
//! a pool of one address on one thread needs.

use std::{cell::RefCell, collections::HashMap, io, net::SocketAddr, rc::Rc, time::Duration};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    body::RequestBody,
    connection::LocalExecutor,
    limits::{BUFFER, H2_CONNECTION_WINDOW, H2_STREAM_WINDOW, MAX_IDLE_UPSTREAM, UPSTREAM_IDLE},
};
use crate::telemetry::access_log;

pub(super) type Http2 = http2::SendRequest<RequestBody>;

/// An HTTP/1 connection. Dropping it closes it, whatever was under way: a request that is still being written would go on without anybody
/// who counts it, and the workload may have long stopped reading it as one.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    /// `None`: it lives on as a tunnel.
    task: Option<JoinHandle<hyper::Result<()>>>,
}

impl Http1 {
    /// Leaves the connection to what `hyper::upgrade` makes of it.
    pub(super) fn detach(mut self) {
        self.task = None;
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Why there is no connection to the upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// For the access log.
    pub(super) fn class(&self) -> access_log::ConnectError {
        match self {
            ConnectError::Timeout(_) => access_log::ConnectError::TimedOut,
            ConnectError::Io(error) => error.kind().into(),
            ConnectError::Http(_) => access_log::ConnectError::Other,
        }
    }
}

/// The workload's address and the connections to it.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    connect: Duration,
    idle: RefCell<Vec<Idle>>,
    /// By tenant: the streams of a connection share its window and the workload's bound on streams, and who reads none of its responses
    /// uses both up. Nobody's connection, that of public paths, stands under the empty name.
    http2: RefCell<HashMap<Box<str>, Shared>>,
}

#[derive(Debug)]
struct Shared {
    connection: Http2,
    used: Instant,
}

impl Shared {
    fn is_usable(&self, now: Instant) -> bool {
        !self.connection.is_closed() && now - self.used < UPSTREAM_IDLE
    }
}

#[derive(Debug)]
struct Idle {
    connection: Http1,
    since: Instant,
}

impl Upstream {
    /// `connect`: how long to wait for a connection.
    pub fn new(address: SocketAddr, connect: Duration) -> Self {
        Self { address, connect, idle: RefCell::default(), http2: RefCell::default() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An idle HTTP/1 connection, the one used last: the others grow old and are dropped in turn. Age is looked at here
    /// and not by a timer, so that an idle sidecar sleeps; the upstream may close a connection whenever it likes.
    pub(super) fn reuse(&self) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        idle.retain(|idle| !idle.connection.sender.is_closed() && now - idle.since < UPSTREAM_IDLE);
        // Not ready: the end of its last exchange is still being written.
        let at = idle.iter().rposition(|idle| idle.connection.sender.is_ready())?;
        Some(idle.remove(at).connection)
    }

    fn keep(&self, connection: Http1) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE_UPSTREAM && !connection.sender.is_closed() {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// A new HTTP/1 connection.
    pub(super) async fn connect_http1(&self) -> Result<Http1, ConnectError> {
        let stream = self.dial().await?;
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
        let task = tokio::task::spawn_local(connection.with_upgrades());
        Ok(Http1 { sender, task: Some(task) })
    }

    /// The tenant's HTTP/2 connection, made anew when it has died or rested too long. Requests that find none at the same time each make
    /// one and the last stays; the others end with their requests. That is cheaper than making requests wait for each other.
    pub(super) async fn http2(&self, tenant: &str) -> Result<Http2, ConnectError> {
        let now = Instant::now();
        if let Some(shared) = self.http2.borrow_mut().get_mut(tenant).filter(|shared| shared.is_usable(now)) {
            shared.used = now;
            return Ok(shared.connection.clone());
        }
        let stream = self.dial().await?;
        let mut builder = http2::Builder::new(LocalExecutor);
        builder.initial_connection_window_size(H2_CONNECTION_WINDOW).initial_stream_window_size(H2_STREAM_WINDOW).max_send_buf_size(BUFFER);
        let (sender, connection) =
            timeout(self.connect, builder.handshake(TokioIo::new(stream))).await.map_err(|_| ConnectError::Timeout(self.connect))??;
        tokio::task::spawn_local(connection);
        let mut http2 = self.http2.borrow_mut();
        // Streams that are open on a forgotten connection go on until they end.
        http2.retain(|_, shared| shared.is_usable(now));
        http2.insert(tenant.into(), Shared { connection: sender.clone(), used: now });
        Ok(sender)
    }

    async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let stream = timeout(self.connect, TcpStream::connect(self.address)).await.map_err(|_| ConnectError::Timeout(self.connect))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A connection that goes back to its pool when its exchange is over.
pub(super) struct Lease {
    upstream: Rc<Upstream>,
    connection: Http1,
    /// The request had been written to its end when the response began. A workload that answers earlier may never read the rest as a body:
    /// it could take those octets, which the client chose, for a request, and answer that in the place of the next one.
    reusable: bool,
}

impl Lease {
    pub(super) fn new(upstream: Rc<Upstream>, connection: Http1, reusable: bool) -> Self {
        Self { upstream, connection, reusable }
    }

    /// The exchange has ended as it should. A lease that is dropped instead closes its connection.
    pub(super) fn give_back(self) {
        if self.reusable {
            self.upstream.keep(self.connection);
        }
    }
}
