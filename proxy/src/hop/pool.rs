//! Connections to one upstream: idle HTTP/1 ones, and a multiplexed HTTP/2 one for each tenant. One pool per listener and thread, so
//! nothing here is shared between threads.
//!
//! A connection carries one tenant's requests for all its life; those of public paths have connections of their own. A workload that
//! answers twice, late, shifts the answers of its connection by one, which nobody in front of it can tell: they stay with the tenant.
//!
//! pingora-pool was considered: it shares its map between threads behind locks and keys it by a hash, neither of which
//! a pool of one address on one thread needs.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use ringfence_policy::TenantId;
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

pub(crate) type Http2 = http2::SendRequest<RequestBody>;

/// An HTTP/1 connection. Dropping it closes it, whatever was under way: a request that is still being written would go on without anybody
/// who counts it, and the workload may have long stopped reading it as one.
#[derive(Debug)]
pub(crate) struct Http1 {
    tenant: Option<TenantId>,
    pub(crate) sender: http1::SendRequest<RequestBody>,
    /// `None`: it lives on as a tunnel.
    task: Option<JoinHandle<hyper::Result<()>>>,
}

impl Http1 {
    /// Leaves the connection to what `hyper::upgrade` makes of it.
    pub(crate) fn detach(mut self) {
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
pub(crate) enum ConnectError {
    #[error("not connected within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    /// For the access log.
    pub(crate) fn class(&self) -> access_log::ConnectError {
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
    /// The longest at rest first.
    idle: RefCell<VecDeque<Idle>>,
    /// The streams of a connection share its window and the workload's bound on streams, and who reads none of its responses uses both up.
    http2: RefCell<HashMap<Option<TenantId>, Shared>>,
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

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An idle HTTP/1 connection of the tenant's, the one used last: the others grow old and are dropped in turn. Age is looked at here
    /// and not by a timer, so that an idle sidecar sleeps; the upstream may close a connection whenever it likes.
    pub(crate) fn reuse(&self, tenant: Option<&TenantId>) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        while idle.front().is_some_and(|oldest| now - oldest.since >= UPSTREAM_IDLE) {
            idle.pop_front();
        }
        // Not ready: it was closed, or the end of its last exchange is still being written.
        let is_fit = |idle: &Idle| idle.connection.tenant.as_ref() == tenant && idle.connection.sender.is_ready();
        let at = idle.iter().rposition(is_fit)?;
        idle.remove(at).map(|idle| idle.connection)
    }

    fn keep(&self, connection: Http1) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() == MAX_IDLE_UPSTREAM {
            idle.pop_front();
        }
        idle.push_back(Idle { connection, since: Instant::now() });
    }

    /// A new HTTP/1 connection.
    pub(crate) async fn connect_http1(&self, tenant: Option<TenantId>) -> Result<Http1, ConnectError> {
        let stream = self.dial().await?;
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
        let task = tokio::task::spawn_local(connection.with_upgrades());
        Ok(Http1 { tenant, sender, task: Some(task) })
    }

    /// The tenant's HTTP/2 connection, made anew when it has died or rested too long. Requests that find none at the same time each make
    /// one and the last stays; the others end with their requests. That is cheaper than making requests wait for each other.
    pub(crate) async fn http2(&self, tenant: Option<TenantId>) -> Result<Http2, ConnectError> {
        let now = Instant::now();
        if let Some(shared) = self.http2.borrow_mut().get_mut(&tenant).filter(|shared| shared.is_usable(now)) {
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
        http2.insert(tenant, Shared { connection: sender.clone(), used: now });
        Ok(sender)
    }

    async fn dial(&self) -> Result<TcpStream, ConnectError> {
        let stream = timeout(self.connect, TcpStream::connect(self.address)).await.map_err(|_| ConnectError::Timeout(self.connect))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A connection that goes back to its pool when its exchange is over.
pub(crate) struct Lease {
    upstream: Rc<Upstream>,
    connection: Http1,
    /// The request had been written to its end when the response began. A workload that answers earlier may never read the rest as a body:
    /// it could take those octets, which the client chose, for a request, and answer that in the place of the next one.
    reusable: bool,
}

impl Lease {
    pub(crate) fn new(upstream: Rc<Upstream>, connection: Http1, reusable: bool) -> Self {
        Self { upstream, connection, reusable }
    }

    /// The exchange has ended as it should. A lease that is dropped instead closes its connection.
    pub(crate) fn give_back(self) {
        if self.reusable {
            self.upstream.keep(self.connection);
        }
    }
}
