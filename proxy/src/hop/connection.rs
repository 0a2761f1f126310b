//! One downstream connection as HTTP: the choice of protocol, hyper over the guard, when to stop, the end.

use std::{cell::Cell, convert::Infallible, error::Error, future::poll_fn, io, pin::Pin, rc::Rc, task::Poll, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONNECTION};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::{
    guard::{Guarded, PREFACE},
    limits::{
        BUFFER, H2_CONNECTION_WINDOW, H2_MAX_LOCAL_RESETS, H2_MAX_PENDING_RESETS, H2_MAX_STREAMS, H2_STREAM_WINDOW, LINGER_OCTETS,
        MAX_HEAD, Timeouts,
    },
};
use crate::listeners::Drain;

/// hyper's tasks stay on the thread of their connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// What goes on on one downstream connection.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Requests begun.
    requests: Cell<u64>,
    in_flight: Cell<usize>,
    /// Streams that became tunnels, which may rest for as long as they like.
    tunnels: Cell<usize>,
    /// When a request last began or ended, or a body moved.
    moved: Cell<Instant>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { requests: Cell::new(0), in_flight: Cell::new(0), tunnels: Cell::new(0), moved: Cell::new(Instant::now()) }
    }

    /// The number of the request that begins now, counted from 1.
    pub(crate) fn begin(&self) -> u64 {
        self.requests.update(|requests| requests + 1);
        self.requests.get()
    }

    fn is_unused(&self) -> bool {
        self.requests.get() == 0 && self.in_flight.get() == 0
    }

    /// How long nothing has been asked for; `None` while a request is in flight or a tunnel open.
    fn idle_for(&self) -> Option<Duration> {
        (self.in_flight.get() == 0 && self.tunnels.get() == 0).then(|| self.moved.get().elapsed())
    }

    /// Whether requests are in flight and none of them moves: longer than an upstream is ever waited for, so it is the client who takes
    /// nothing. An HTTP/2 client can keep its windows shut for as long as it likes, and no body is asked for until they open.
    fn stands_still(&self, timeouts: &Timeouts) -> bool {
        self.tunnels.get() == 0 && self.in_flight.get() > 0 && self.moved.get().elapsed() > timeouts.stall + timeouts.response_head
    }

    pub(crate) fn moved(&self, now: Instant) {
        self.moved.set(now);
    }

    /// An exchange that begins `now`. It keeps the connection from counting as idle.
    pub(crate) fn in_flight(self: &Rc<Self>, now: Instant) -> InFlight {
        self.in_flight.update(|count| count + 1);
        self.moved(now);
        InFlight(self.clone())
    }

    /// Keeps the connection from counting as idle or standing still.
    pub(crate) fn tunnel(self: &Rc<Self>) -> OpenTunnel {
        self.tunnels.update(|count| count + 1);
        OpenTunnel(self.clone())
    }
}

/// A tunnel that is open. Dropping it ends it.
pub(crate) struct OpenTunnel(Rc<Activity>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.tunnels.update(|count| count - 1);
        self.0.moved(Instant::now());
    }
}

/// An exchange that has not ended. Dropping it ends it without a look at the clock: whoever drops it calls [`InFlight::moved`] first, or the
/// connection counts as idle from its last octet.
pub(crate) struct InFlight(Rc<Activity>);

impl InFlight {
    pub(crate) fn moved(&self, now: Instant) {
        self.0.moved(now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.update(|count| count - 1);
    }
}

/// Tells HTTP/2 with prior knowledge from HTTP/1 by the first octets, which are left in `initial`. `None`: it is turned away.
pub(crate) async fn is_http2<S: AsyncRead + Unpin>(
    stream: &mut S,
    initial: &mut Vec<u8>,
    limit: Duration,
    drain: &mut Drain,
) -> io::Result<Option<bool>> {
    let first_octets = async {
        loop {
            let length = initial.len().min(PREFACE.len());
            if initial[..length] != PREFACE[..length] || length == PREFACE.len() {
                return io::Result::Ok(initial.starts_with(PREFACE));
            }
            if stream.read_buf(initial).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    tokio::select! {
        is_http2 = timeout(limit, first_octets) => Ok(Some(is_http2??)),
        () = drain.turns_away() => Ok(None),
    }
}

/// What is left of an HTTP/1 connection when hyper has let go of it.
pub(crate) struct Ended<S> {
    pub(crate) stream: S,
    /// Octets behind the request that made something else of the connection.
    pub(crate) rest: Vec<u8>,
    pub(crate) outcome: io::Result<()>,
}

/// Serves HTTP/1 until either side has had enough, or a request makes something else of the connection.
pub(crate) async fn http1<S, H, F, B>(
    guarded: Guarded<S>,
    handle: H,
    activity: &Activity,
    timeouts: &Timeouts,
    mut drain: Drain,
) -> Ended<S>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let is_last = Cell::new(false);
    let is_last = &is_last;
    let service = service_fn(|request: Request<Incoming>| {
        let asks_for_tunnel = request.method() == Method::CONNECT;
        // In a box, made first: a future of several KiB is then written where it stays. hyper would move it several times, and keep room for
        // it as long as the connection lasts.
        let response = Box::into_pin(Box::write(Box::new_uninit(), handle(request)));
        async move {
            let mut response = response.await;
            let status = response.status();
            let is_tunnel = status == StatusCode::SWITCHING_PROTOCOLS || asks_for_tunnel && status.is_success();
            if is_last.get() && !is_tunnel {
                response.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
            }
            Ok::<_, Infallible>(response)
        }
    });
    // A connection that is closed while a request is on its way to it loses that: where that can be helped the close comes with a reply.
    let stop = async move {
        drain.begun().await;
        is_last.set(true);
        drain.turns_away().await;
    };
    // The guard watches over the time that a head takes.
    let mut connection =
        http1::Builder::new().header_read_timeout(None).max_buf_size(BUFFER).serve_connection(TokioIo::new(guarded), service);
    let outcome = drive(&mut connection, http1::Connection::graceful_shutdown, activity, timeouts, stop).await;
    let (stream, rest) = connection.into_parts().io.into_inner().into_parts();
    Ended { stream, rest, outcome }
}

/// Serves HTTP/2 until either side has had enough.
pub(crate) async fn http2<S, H, F, B>(
    guarded: Guarded<S>,
    handle: H,
    activity: &Activity,
    timeouts: &Timeouts,
    mut drain: Drain,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + 'static,
    B: Body<Data: 'static, Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let service = service_fn(|request| {
        let response = handle(request);
        async move { Ok::<_, Infallible>(response.await) }
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
    // GOAWAY says which requests are not answered any more (RFC 9113 §6.8). Where nobody has to be turned away it waits for the first one:
    // who has only just connected would have done so for nothing.
    let stop = async move {
        drain.begun().await;
        tokio::select! {
            () = drain.turns_away() => {}
            // Looked at whenever the connection was.
            () = poll_fn(|_| if activity.is_unused() { Poll::Pending } else { Poll::Ready(()) }) => {}
        }
    };
    drive(&mut connection, http2::Connection::graceful_shutdown, activity, timeouts, stop).await
}

/// Polls hyper's connection to its end; asks it to stop when `is_due` or nothing was asked for too long.
async fn drive<C>(
    connection: &mut C,
    stop: fn(Pin<&mut C>),
    activity: &Activity,
    timeouts: &Timeouts,
    is_due: impl Future<Output = ()>,
) -> io::Result<()>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    let Timeouts { idle, linger, stall, response_head, .. } = *timeouts;
    // No request's timer comes before this one: tokio's driver is woken, by a system call, for each that comes before all others.
    let step = idle.min(stall).min(response_head);
    let timer = sleep(step);
    tokio::pin!(timer, is_due);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut *connection => return ended.map_err(io::Error::other),
            () = &mut is_due, if !stopping => {}
            () = &mut timer => match activity.idle_for() {
                // A peer that never confirms an HTTP/2 shutdown is not waited for.
                Some(_) if stopping => return Ok(()),
                None if stopping && activity.stands_still(timeouts) => return Ok(()),
                Some(rested) if rested >= idle => {}
                None if activity.stands_still(timeouts) => {}
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
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, limit: Duration) -> io::Result<()> {
    let _ = stream.shutdown().await;
    // Not in the future, which each connection would hold from its beginning.
    let mut scratch = vec![0; 4 * 1024];
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
