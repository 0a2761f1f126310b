//! The guard between a connection's stream and hyper.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{Guard, Scan, Targets, Violation};

/// What hyper gets to read instead of a bad head, so that the refusal takes its turn behind the answers to earlier
/// requests and leaves through the same door as every other.
const REFUSED_HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: refused.invalid\r\n\r\n";

/// Octets read at a time while a head is incomplete.
const READ: usize = 4 * 1024;

/// What the guard of a connection and its requests tell each other. Both live on one thread.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The number of the request, counted from 1, for which `REFUSED_HEAD` stands, and why.
    refused: Cell<Option<(u64, Violation)>>,
    /// What was found in a body whose head had gone.
    broken: Cell<Option<Violation>>,
    /// The number of the request that asked for an upgrade.
    asked: Cell<Option<u64>>,
    declined: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signals {
    /// Why the `number`th request (from 1) of this connection is to be refused.
    pub(crate) fn refusal_of(&self, number: u64) -> Option<Violation> {
        self.refused.get().filter(|&(refused, _)| refused == number).map(|(_, violation)| violation)
    }

    /// Why a body broke off, where that was the guard's doing.
    pub(crate) fn broken_body(&self) -> Option<Violation> {
        self.broken.get()
    }

    /// Whether the `number`th request is a complete WebSocket handshake or CONNECT.
    pub(crate) fn asks_for_upgrade(&self, number: u64) -> bool {
        self.asked.get() == Some(number)
    }

    /// A request that asked for an upgrade was answered without one: what follows it is HTTP.
    pub(crate) fn upgrade_declined(&self) {
        self.declined.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// A stream whose reader sees sound HTTP/1 only.
pub(crate) struct Guarded<S> {
    stream: S,
    guard: Guard,
    signals: Rc<Signals>,
    /// Octets that were read and not given on: `sound` of them may go.
    held: Vec<u8>,
    sound: usize,
    head_timeout: Duration,
    /// Runs while a head is incomplete.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The last that there was to give has been given: nothing is read any more.
    refused: bool,
}

impl<S> Guarded<S> {
    /// HTTP/1. `initial`: octets that were read from the stream already.
    pub(crate) fn http1(stream: S, initial: Vec<u8>, targets: Targets, signals: Rc<Signals>, head_timeout: Duration) -> Self {
        Self::new(stream, initial, Guard::http1(targets), signals, head_timeout)
    }

    /// HTTP/2 from the preface on.
    pub(crate) fn http2(stream: S, initial: Vec<u8>, signals: Rc<Signals>) -> Self {
        Self::new(stream, initial, Guard::http2(), signals, Duration::ZERO)
    }

    fn new(stream: S, initial: Vec<u8>, guard: Guard, signals: Rc<Signals>, head_timeout: Duration) -> Self {
        let mut this = Self { stream, guard, signals, held: initial, sound: 0, head_timeout, deadline: None, refused: false };
        // Nothing was given to the reader yet, so whatever is wrong stands in octets that can still be replaced.
        let _ = this.look();
        this
    }

    /// The stream, and the octets behind the request that upgraded it.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.held)
    }

    /// Judges the held octets.
    fn look(&mut self) -> io::Result<()> {
        match self.guard.scan(&self.held) {
            Scan::Sound(sound) => {
                self.sound = sound;
                self.note_upgrade();
                Ok(())
            }
            Scan::Bad { violation, head } => self.refuse(violation, head),
        }
    }

    fn note_upgrade(&self) {
        if self.guard.is_undecided() {
            self.signals.asked.set(Some(self.guard.current()));
        }
    }

    /// Puts a refusal in the place of a bad head; where it is too late for that, the body that hyper is reading fails.
    fn refuse(&mut self, violation: Violation, head: Option<usize>) -> io::Result<()> {
        self.deadline = None;
        self.refused = true;
        match head {
            Some(start) => {
                self.signals.refused.set(Some((self.guard.current(), violation)));
                self.held.truncate(start);
                self.held.extend_from_slice(REFUSED_HEAD);
                self.sound = self.held.len();
                Ok(())
            }
            // The message before is whole and the connection ends with it: what follows is not read.
            None if self.guard.is_closing() => {
                self.held.clear();
                self.sound = 0;
                Ok(())
            }
            None => {
                self.signals.broken.set(Some(violation));
                self.held.clear();
                self.sound = 0;
                Err(io::Error::new(io::ErrorKind::InvalidData, violation))
            }
        }
    }

    /// Gives sound octets that are held, or `false`.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let given = self.sound.min(buf.remaining());
        if given == 0 {
            return false;
        }
        buf.put_slice(&self.held[..given]);
        self.held.drain(..given);
        self.sound -= given;
        if self.held.is_empty() {
            // Most connections never need it again.
            self.held = Vec::new();
        }
        true
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads straight into the reader's buffer: the ordinary case, where whole heads arrive and nothing is copied.
    fn poll_read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let fresh = &buf.filled()[before..];
        if fresh.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let sound = match self.guard.scan(fresh) {
            Scan::Sound(sound) => {
                self.held.extend_from_slice(&fresh[sound..]);
                self.note_upgrade();
                sound
            }
            Scan::Bad { violation, head } => {
                // `held` is empty: what is sound before the bad head stays where it is.
                self.refuse(violation, head.map(|_| 0))?;
                head.unwrap_or(0)
            }
        };
        buf.set_filled(before + sound);
        if sound > 0 { Poll::Ready(Ok(())) } else { self.poll_held(cx, buf) }
    }

    /// Reads behind what is held until a unit is whole.
    fn poll_held(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.give(buf) {
                self.deadline = None;
                return Poll::Ready(Ok(()));
            }
            if self.refused {
                return Poll::Pending;
            }
            if self.guard.is_undecided() {
                if !self.signals.declined.take() {
                    *self.signals.waiting.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                self.guard.upgrade_declined();
                self.look()?;
                continue;
            }
            let mut scratch = [std::mem::MaybeUninit::uninit(); READ];
            let mut more = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut more)? {
                Poll::Ready(()) if more.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(()) => {
                    self.held.extend_from_slice(more.filled());
                    self.look()?;
                }
                Poll::Pending if self.held.is_empty() || !self.guard.is_in_head() => return Poll::Pending,
                Poll::Pending => {
                    let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.head_timeout)));
                    ready!(deadline.as_mut().poll(cx));
                    self.refuse(Violation::HeadTimeout, Some(0))?;
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() && !self.refused && !self.guard.is_undecided() {
            self.poll_read_through(cx, buf)
        } else {
            self.poll_held(cx, buf)
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
