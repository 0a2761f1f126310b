//! An HTTP/1 connection to an upstream.
//!
//! No task drives it: whoever asks does, then whoever reads the response. So a request wakes no other task. Once it is answered hyper can let
//! go of the socket at once, and the next request gets its buffers while they are still in the processor's cache.

use std::{
    future::poll_fn,
    mem,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, Connection, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use ringfence_policy::TenantId;
use tokio::task::{JoinHandle, coop::unconstrained};

use super::Connected;
use crate::hop::{body::RequestBody, limits::BUFFER};

/// Dropping it closes it, whatever was under way: a request that is still being written would go on without anybody who counts it, and the
/// workload may have long stopped reading it as one.
pub(crate) struct Http1 {
    pub(super) tenant: Option<TenantId>,
    pub(crate) peer: SocketAddr,
    sender: SendRequest<RequestBody>,
    driven: Driven,
    driver: Arc<Driver>,
}

/// By whom.
enum Driven {
    Caller(Box<Connection<TokioIo<Connected>, RequestBody>>),
    Task(JoinHandle<()>),
    /// It has ended, or lives on as a tunnel.
    Nobody,
}

type Answer = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// Wakes whoever drives the connection. The socket and hyper keep a waker for as long as the connection rests: were it the task's own, it
/// would keep all of that task's memory. And hyper wakes who takes a response from it, who is awake.
#[derive(Default)]
struct Driver(AtomicWaker);

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

impl Http1 {
    /// `stream`: nothing was asked on it, or all that was is answered.
    pub(super) async fn begin(stream: Connected, tenant: Option<TenantId>) -> hyper::Result<Self> {
        let peer = stream.peer();
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
        Ok(Self { tenant, peer, sender, driven: Driven::Caller(Box::new(connection)), driver: Arc::default() })
    }

    /// Lets whatever is under way go on, and wakes when there is more.
    pub(super) fn poll(&mut self, cx: &Context<'_>) {
        if let Driven::Caller(connection) = &mut self.driven {
            self.driver.0.register(cx.waker());
            let waker = Waker::from(self.driver.clone());
            if connection.poll_without_shutdown(&mut Context::from_waker(&waker)).is_ready() {
                // What it failed with is told to whoever waits for the response or its body.
                self.driven = Driven::Nobody;
            }
        }
    }

    /// Wakes nobody until it is polled again.
    pub(super) fn forget_waker(&self) {
        drop(self.driver.0.take());
    }

    /// What the upstream answers, which comes while the connection is driven; or the request, where it was not written at all.
    pub(crate) fn ask(&mut self, request: Request<RequestBody>) -> impl Future<Output = Answer> + use<> {
        self.sender.try_send_request(request)
    }

    /// Drives the connection until `answer` is there, which `ask` gave.
    pub(crate) async fn drive(&mut self, mut answer: Pin<&mut impl Future<Output = Answer>>) -> Answer {
        poll_fn(|cx| {
            self.poll(cx);
            match self.driven {
                Driven::Task(_) => answer.as_mut().poll(cx),
                // It comes by that poll or not at all, and need not wake who is awake. Nor may it be put off, where the task has had its share
                // of time: nobody would be woken for it.
                Driven::Caller(_) | Driven::Nobody => pin!(unconstrained(answer.as_mut())).poll(&mut Context::from_waker(Waker::noop())),
            }
        })
        .await
    }

    /// Goes on by itself from here, and may be upgraded. It is not used again.
    pub(crate) fn spawn(&mut self) {
        if let Driven::Caller(connection) = mem::replace(&mut self.driven, Driven::Nobody) {
            let task = tokio::task::spawn_local(async { drop(connection.with_upgrades().await) });
            self.driven = Driven::Task(task);
        }
    }

    /// Leaves the connection to what `hyper::upgrade` makes of it.
    pub(crate) fn detach(mut self) {
        self.driven = Driven::Nobody;
    }

    /// Whether it waits for the next request.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.driven, Driven::Caller(_)) && self.sender.is_ready()
    }

    /// The tenant's socket alone, where nothing is under way on it, nothing left to be written, and nothing has come that nobody asked for.
    pub(super) fn let_go(mut self) -> Option<(Option<TenantId>, Connected)> {
        self.forget_waker();
        // Before anything is taken out of it: one that a task drives ends by being dropped.
        if !self.is_ready() {
            return None;
        }
        let Driven::Caller(connection) = mem::replace(&mut self.driven, Driven::Nobody) else { return None };
        let parts = connection.into_parts();
        let stream = parts.io.into_inner();
        (parts.read_buf.is_empty() && stream.is_flushed && stream.is_quiet()).then(|| (self.tenant.take(), stream))
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if let Driven::Task(task) = &self.driven {
            task.abort();
        }
    }
}
