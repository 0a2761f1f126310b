//! One downstream connection from its first octet to its last: TLS, the choice of protocol, the requests, the end.

use std::{cell::Cell, convert::Infallible, io, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use http::HeaderValue;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    Inbound,
    exchange::Exchange,
    guard::{Guarded, PREFACE, Signals},
    handle,
    headers::Origin,
    limits::{
        BUFFER, H2_CONNECTION_WINDOW, H2_MAX_LOCAL_RESETS, H2_MAX_PENDING_RESETS, H2_MAX_STREAMS, H2_STREAM_WINDOW, LINGER_OCTETS,
        MAX_HEAD, Timeouts,
    },
    listener::Drain,
    tls,
};

/// hyper's tasks stay on the thread of their connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// What the requests of one downstream connection share.
pub struct Downstream {
    pub(super) inbound: Rc<Inbound>,
    pub(super) origin: Origin,
    pub(super) signals: Rc<Signals>,
    /// The upstream's half of a WebSocket, left here by the request that opened it.
    pub(super) tunnel: Cell<Option<OnUpgrade>>,
    /// The request that opened it, as long as it lasts.
    pub(super) exchange: Cell<Option<Exchange>>,
    /// Requests begun.
    requests: Cell<u64>,
    in_flight: Cell<usize>,
    /// When a request last began or ended, or a body moved.
    moved: Cell<Instant>,
}

impl Downstream {
    fn new(inbound: Rc<Inbound>, peer: SocketAddr) -> io::Result<Self> {
        let address = HeaderValue::try_from(peer.ip().to_canonical().to_string()).map_err(io::Error::other)?;
        let origin = Origin { peer: address, is_tls: inbound.tls.is_some(), forward_token: inbound.forward_token };
        Ok(Self {
            inbound,
            origin,
            signals: Rc::default(),
            tunnel: Cell::new(None),
            exchange: Cell::new(None),
            requests: Cell::new(0),
            in_flight: Cell::new(0),
            moved: Cell::new(Instant::now()),
        })
    }

    /// The number of the request that begins now, counted from 1.
    pub(super) fn begin(&self) -> u64 {
        self.requests.update(|requests| requests + 1);
        self.requests.get()
    }

    /// How long nothing has been asked for; `None` while a request is in flight.
    fn idle_for(&self) -> Option<Duration> {
        (self.in_flight.get() == 0).then(|| self.moved.get().elapsed())
    }

    /// Whether requests are in flight and none of them moves: longer than the workload is ever waited for, so it is the client who takes
    /// nothing. An HTTP/2 client can keep its windows shut for as long as it likes, and no body is asked for until they open.
    fn stands_still(&self) -> bool {
        let Timeouts { stall, response_head, .. } = self.inbound.timeouts;
        self.in_flight.get() > 0 && self.moved.get().elapsed() > stall + response_head
    }

    pub(super) fn moved(&self, now: Instant) {
        self.moved.set(now);
    }

    /// Keeps the connection from counting as idle.
    pub(super) fn in_flight(self: &Rc<Self>) -> InFlight {
        self.in_flight.update(|count| count + 1);
        self.moved(Instant::now());
        InFlight(self.clone())
    }
}

/// An exchange that has not ended. Dropping it ends it.
pub(super) struct InFlight(Rc<Downstream>);

impl InFlight {
    pub(super) fn moved(&self) {
        self.0.moved(Instant::now());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.update(|count| count - 1);
        self.0.moved(Instant::now());
    }
}

/// Serves `stream` until either side has had enough.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, inbound: Rc<Inbound>, drain: Drain) -> io::Result<()> {
    let downstream = Rc::new(Downstream::new(inbound.clone(), peer)?);
    let Some(acceptor) = &inbound.tls else { return sniff(stream, downstream, drain).await };
    let stream = timeout(inbound.timeouts.handshake, acceptor.accept(stream)).await??;
    match stream.get_ref().1.alpn_protocol() {
        Some(tls::H2) => http2(stream, Vec::new(), downstream, drain).await,
        Some(_) => http1(stream, Vec::new(), downstream, drain).await,
        None => sniff(stream, downstream, drain).await,
    }
}

/// Tells HTTP/2 with prior knowledge from HTTP/1 by the first octets.
async fn sniff<S: AsyncRead + AsyncWrite + Unpin + 'static>(mut stream: S, downstream: Rc<Downstream>, mut drain: Drain) -> io::Result<()> {
    let mut initial = Vec::with_capacity(4 * 1024);
    let first_octets = async {
        loop {
            let length = initial.len().min(PREFACE.len());
            if initial[..length] != PREFACE[..length] || length == PREFACE.len() {
                return io::Result::Ok(initial.starts_with(PREFACE));
            }
            if stream.read_buf(&mut initial).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let is_http2 = tokio::select! {
        is_http2 = timeout(downstream.inbound.timeouts.head, first_octets) => is_http2??,
        () = drain.begun() => return Ok(()),
    };
    if is_http2 { http2(stream, initial, downstream, drain).await } else { http1(stream, initial, downstream, drain).await }
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    initial: Vec<u8>,
    downstream: Rc<Downstream>,
    drain: Drain,
) -> io::Result<()> {
    let timeouts = &downstream.inbound.timeouts;
    let guarded = Guarded::http1(stream, initial, downstream.signals.clone(), timeouts.head);
    let service = service_fn(|request| {
        let downstream = downstream.clone();
        async move { Ok::<_, Infallible>(handle(request, &downstream).await) }
    });
    // The guard watches over the time that a head takes.
    let mut connection =
        http1::Builder::new().header_read_timeout(None).max_buf_size(BUFFER).serve_connection(TokioIo::new(guarded), service);
    let outcome = drive(&mut connection, http1::Connection::graceful_shutdown, &downstream, drain).await;
    let (mut stream, rest) = connection.into_parts().io.into_inner().into_parts();
    match downstream.tunnel.take() {
        Some(upstream) => {
            let _exchange = downstream.exchange.take();
            super::upgrade::splice(stream, &rest, upstream).await
        }
        None => linger(&mut stream, timeouts.linger).await.and(outcome),
    }
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    initial: Vec<u8>,
    downstream: Rc<Downstream>,
    drain: Drain,
) -> io::Result<()> {
    let guarded = Guarded::http2(stream, initial, downstream.signals.clone());
    let service = service_fn(|request| {
        let downstream = downstream.clone();
        async move { Ok::<_, Infallible>(handle(request, &downstream).await) }
    });
    let mut connection = http2::Builder::new(LocalExecutor)
        .max_concurrent_streams(H2_MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_pending_accept_reset_streams(H2_MAX_PENDING_RESETS)
        .max_local_error_reset_streams(H2_MAX_LOCAL_RESETS)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .max_send_buf_size(BUFFER)
        .serve_connection(TokioIo::new(guarded), service);
    drive(&mut connection, http2::Connection::graceful_shutdown, &downstream, drain).await
}

/// Polls hyper's connection to its end; asks it to stop when the listener drains or nothing was asked for too long.
async fn drive<C>(connection: &mut C, stop: fn(Pin<&mut C>), downstream: &Rc<Downstream>, mut drain: Drain) -> io::Result<()>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    let Timeouts { idle, linger, stall, response_head, .. } = downstream.inbound.timeouts;
    // No request's timer comes before this one: tokio's driver is woken, by a system call, for each that comes before all others.
    let step = idle.min(stall).min(response_head);
    let timer = sleep(step);
    tokio::pin!(timer);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut *connection => return ended.map_err(io::Error::other),
            () = drain.begun(), if !stopping => {}
            () = &mut timer => match downstream.idle_for() {
                // A peer that never confirms an HTTP/2 shutdown is not waited for.
                Some(_) if stopping => return Ok(()),
                None if stopping && downstream.stands_still() => return Ok(()),
                Some(rested) if rested >= idle => {}
                None if downstream.stands_still() => {}
                rested => {
                    timer.as_mut().reset(Instant::now() + step.min(idle - rested.unwrap_or_default()));
                    continue;
                }
            }
        }
        stopping = true;
        stop(Pin::new(connection));
        timer.as_mut().reset(Instant::now() + linger);
    }
}

/// Ends the sending half and reads on for a while: closing a socket with unread octets resets it, and a reset would
/// overtake the reply that says why.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, limit: Duration) -> io::Result<()> {
    let _ = stream.shutdown().await;
    let mut scratch = [0; 4 * 1024];
    let read_on = async {
        let mut octets = 0;
        while octets < LINGER_OCTETS {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(read) => octets += read,
            }
        }
    };
    let _ = timeout(limit, read_on).await;
    Ok(())
}
