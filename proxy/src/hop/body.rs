//! Bodies on their way through: streamed, never gathered, watched for standstill.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{connection::Activity, headers::prepare_trailers, pool::Lease};

/// Why a body broke off. The message that it belongs to must not look complete to anybody.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("nothing came for {0:?}")]
    Stalled(Duration),
    #[error("the response has ended before it")]
    Answered,
    #[error("its upstream is another by now")]
    Left,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// A client's body, as the upstream connection reads it.
pub(crate) struct RequestBody {
    /// `None`: there is no body.
    flow: Option<Flow>,
    progress: Progress,
}

/// How far a request's body came; without one, nothing. The wait for the response's head counts from its last move.
#[derive(Clone)]
pub(crate) struct Progress(Option<Rc<Moved>>);

struct Moved {
    activity: Rc<Activity>,
    last: Cell<Instant>,
    octets: Rc<Cell<u64>>,
    /// Nobody reads the body any more: it was written to its end, or the connection broke.
    done: Cell<bool>,
    /// The response has ended, and with it the exchange that the body is counted and judged in.
    answered: Cell<bool>,
    /// Whoever waits for the next piece.
    reader: RefCell<Option<Waker>>,
}

impl Progress {
    pub(crate) fn last(&self) -> Option<Instant> {
        self.0.as_ref().map(|moved| moved.last.get())
    }

    /// Whether all of the request has been written.
    pub(crate) fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(|moved| moved.done.get())
    }

    /// Breaks the body off where it is: its response has ended.
    fn end(&self) {
        if let Some(moved) = self.0.as_ref().filter(|moved| !moved.done.get()) {
            moved.answered.set(true);
            if let Some(reader) = moved.reader.take() {
                reader.wake();
            }
        }
    }

    /// Octets that passed, now and later.
    pub(crate) fn octets(&self) -> Option<Rc<Cell<u64>>> {
        self.0.as_ref().map(|moved| moved.octets.clone())
    }
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, activity: &Rc<Activity>, stall: Duration) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let moved = Moved {
            activity: activity.clone(),
            last: Cell::new(Instant::now()),
            octets: Rc::default(),
            done: Cell::new(false),
            answered: Cell::new(false),
            reader: RefCell::default(),
        };
        Self { flow: Some(Flow::new(incoming, stall)), progress: Progress(Some(Rc::new(moved))) }
    }

    pub(crate) fn empty() -> Self {
        Self { flow: None, progress: Progress(None) }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(moved) = &self.progress.0 {
            moved.done.set(true);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(flow) = &mut this.flow else { return Poll::Ready(None) };
        if let Some(moved) = &this.progress.0 {
            if moved.answered.get() {
                return Poll::Ready(Some(Err(BodyError::Answered)));
            }
            let mut reader = moved.reader.borrow_mut();
            if !reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                *reader = Some(cx.waker().clone());
            }
        }
        let polled = flow.poll_frame(None, cx);
        if let (Poll::Ready(frame), Some(moved)) = (&polled, &this.progress.0) {
            let now = Instant::now();
            moved.last.set(now);
            moved.activity.moved(now);
            if let Some(Ok(frame)) = frame
                && let Some(data) = frame.data_ref()
            {
                moved.octets.update(|octets| octets + data.len() as u64);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.flow.as_ref().is_none_or(|flow| flow.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.flow.as_ref().map_or_else(|| SizeHint::with_exact(0), |flow| flow.incoming.size_hint())
    }
}

/// One exchange's account: it is told what goes to the downstream, and dropping it ends the exchange.
pub trait Account {
    fn sent(&mut self, octets: usize);
}

/// What a downstream gets: the upstream's body, or a refusal's text.
pub struct ResponseBody<A> {
    content: Content,
    /// Held until the last octet is gone, so that an idle connection is one that owes nothing. `None` where a tunnel goes on with it.
    exchange: Option<A>,
}

pub(crate) enum Content {
    Upstream(UpstreamBody),
    Text(Bytes),
}

pub(crate) struct UpstreamBody {
    flow: Flow,
    /// The upstream connection, to be used again once the body has ended.
    lease: Option<Lease>,
    /// Of the request that this answers.
    asked: Progress,
}

impl UpstreamBody {
    pub(crate) fn new(incoming: Incoming, asked: Progress, stall: Duration, lease: Option<Lease>) -> Self {
        Self { flow: Flow::new(incoming, stall), lease, asked }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Looked at when the body moves: one that does not is ended for that.
        if self.lease.as_ref().is_some_and(Lease::is_cut) {
            return Poll::Ready(Some(Err(BodyError::Left)));
        }
        self.flow.poll_frame(self.lease.as_mut(), cx)
    }
}

impl<A> ResponseBody<A> {
    pub(crate) fn new(content: Content, exchange: Option<A>) -> Self {
        Self { content, exchange }
    }
}

impl<A: Account + Unpin> Body for ResponseBody<A> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.content {
            Content::Upstream(body) => body.poll_frame(cx),
            Content::Text(text) if text.is_empty() => Poll::Ready(None),
            Content::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(exchange)) = (&polled, &mut self.exchange)
            && let Some(data) = frame.data_ref()
        {
            exchange.sent(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Upstream(body) => body.flow.has_ended(),
            Content::Text(text) => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Upstream(body) => body.flow.incoming.size_hint(),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        self.asked.end();
        if self.flow.has_ended()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

/// A body that is being received, with a bound on how long it may stand still.
struct Flow {
    incoming: Incoming,
    ended: bool,
    stall: Duration,
    /// Made at the first wait and then moved on lazily: most bodies are there when they are asked for.
    standstill: Option<Standstill>,
}

struct Standstill {
    timer: Pin<Box<Sleep>>,
    /// When the body last moved.
    since: Instant,
}

impl Flow {
    fn new(incoming: Incoming, stall: Duration) -> Self {
        Self { incoming, ended: false, stall, standstill: None }
    }

    fn has_ended(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    fn poll_frame(&mut self, lease: Option<&mut Lease>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.poll_incoming(lease, cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(standstill) = &mut self.standstill {
                    standstill.since = Instant::now();
                }
                if let Some(trailers) = frame.trailers_mut() {
                    prepare_trailers(trailers);
                    self.ended = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_standstill(cx).map(|()| Some(Err(BodyError::Stalled(self.stall)))),
        }
    }

    /// What has come, or comes when the connection is driven that it comes on.
    fn poll_incoming(&mut self, lease: Option<&mut Lease>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut incoming = Pin::new(&mut self.incoming);
        let Some(lease) = lease else { return incoming.poll_frame(cx) };
        lease.forget_waker();
        match incoming.as_mut().poll_frame(cx) {
            Poll::Pending => {
                lease.poll(cx);
                incoming.poll_frame(cx)
            }
            ready => ready,
        }
    }

    fn poll_standstill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stall = self.stall;
        let standstill =
            self.standstill.get_or_insert_with(|| Standstill { timer: Box::pin(tokio::time::sleep(stall)), since: Instant::now() });
        while standstill.timer.as_mut().poll(cx).is_ready() {
            let due = standstill.since + stall;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            standstill.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
