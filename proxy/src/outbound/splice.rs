//! The end of the route: octets both ways between two connected ends, until both have said all that they have to, either breaks, or nothing
//! moves for too long. Decides nothing.
//!
//! A TCP connection holds no buffer while nothing moves. What is small goes through one buffer that all connections of the thread share;
//! once a direction proves bulky its octets stay in the kernel, moved by splice(2) through a pipe that is borrowed for as long as they flow.

mod pipe;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{TcpStream, tcp::ReadHalf},
    task::coop::consume_budget,
    time::sleep,
};

use self::pipe::Pipe;
use super::{flow::Octets, stream::Stream};

/// A connection on which nothing moved for so long, either way, is cut.
const IDLE: Duration = Duration::from_secs(3600);
/// A peer that vanished is noticed by the kernel this long after its last sign of life, and three unanswered probes.
const KEEPALIVE: Duration = Duration::from_secs(120);
const PROBE: Duration = Duration::from_secs(20);
const PROBES: u32 = 3;
/// The kernel is asked to watch a connection that has lasted so long, by eight system calls; most end sooner. Before the first probe is due.
const SETTLED: Duration = Duration::from_secs(60);

/// Octets of the buffer that a thread's connections share: a read that fills it is bulk.
const SCRATCH: usize = 32 * 1024;
/// A splice of less than this ends a bulk transfer.
const SMALL: usize = 4 * 1024;
/// Octets of either buffer of an HTTP/2 tunnel.
const BUFFER: usize = 16 * 1024;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Joins the two ends; `initial` was read from the workload already. Both have ended when it is done, and are to be closed. An error is that
/// of the end which broke: tell the other by [`reset`].
pub(super) async fn splice(downstream: &mut Stream, upstream: &mut TcpStream, initial: Vec<u8>, octets: &Octets) -> io::Result<()> {
    match downstream {
        Stream::Tcp(downstream) => {
            let ((mut requests, to_workload), (mut answers, to_server)) = (downstream.split(), upstream.split());
            let is_half_closed = Cell::new(false);
            let both = async {
                let sent = pump(&mut requests, to_server.as_ref(), initial, &octets.sent, &is_half_closed);
                let received = pump(&mut answers, to_workload.as_ref(), Vec::new(), &octets.received, &is_half_closed);
                tokio::try_join!(sent, received)
            };
            let settled = || [&to_workload, &to_server].into_iter().for_each(|half| keep_alive(half.as_ref()));
            until_idle(both, octets, settled).await
        }
        Stream::Http2(downstream) => {
            keep_alive(upstream);
            let both = async {
                let (from, to) = tokio::io::split(downstream);
                let (answers, requests) = upstream.split();
                let sent = copy(from, requests, initial, &octets.sent);
                let received = copy(answers, to, Vec::new(), &octets.received);
                tokio::try_join!(sent, received)
            };
            until_idle(both, octets, || ()).await
        }
    }
}

/// Joins ends of which neither is a socket that the kernel could join, in the same way.
pub(super) async fn copied(
    downstream: &mut Stream,
    upstream: impl AsyncRead + AsyncWrite,
    initial: Vec<u8>,
    octets: &Octets,
) -> io::Result<()> {
    let (from, to) = tokio::io::split(downstream);
    let (answers, requests) = tokio::io::split(upstream);
    let both = async {
        let sent = copy(from, requests, initial, &octets.sent);
        let received = copy(answers, to, Vec::new(), &octets.received);
        tokio::try_join!(sent, received)
    };
    until_idle(both, octets, || ()).await
}

/// `settled` is called when `both` have lasted for a while.
async fn until_idle(both: impl Future<Output = io::Result<((), ())>>, octets: &Octets, settled: impl FnOnce()) -> io::Result<()> {
    let moved = || octets.sent.get() + octets.received.get();
    let idle = async {
        let (mut before, mut rest) = (moved(), IDLE - SETTLED);
        sleep(SETTLED).await;
        settled();
        loop {
            sleep(rest).await;
            if moved() == before {
                return;
            }
            (before, rest) = (moved(), IDLE);
        }
    };
    tokio::select! {
        biased;
        ended = both => ended.map(|_| ()),
        () = idle => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Makes the end of both, when they are dropped, a reset: what was under way is void, and neither end takes it for complete.
pub(super) fn reset(downstream: &Stream, upstream: &TcpStream) {
    if let Stream::Tcp(downstream) = downstream {
        let _ = SockRef::from(downstream).set_linger(Some(Duration::ZERO));
    }
    let _ = SockRef::from(upstream).set_linger(Some(Duration::ZERO));
}

fn keep_alive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(PROBE).with_retries(PROBES);
    // What a kernel refuses here must not cost the connection.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// What one look at the source gave.
enum Taken {
    /// So many octets, and those of them that the other side did not take.
    Some(usize, Vec<u8>),
    End,
}

/// One direction, to its end, which is passed on, unless the other has ended already: the close that follows says it as well.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &TcpStream,
    mut rest: Vec<u8>,
    count: &Cell<u64>,
    is_half_closed: &Cell<bool>,
) -> io::Result<()> {
    loop {
        write_all(to, &rest, count).await?;
        drop(rest);
        match poll_fn(|cx| take(from, to, count, cx)).await? {
            Taken::Some(octets, left) => {
                rest = left;
                if octets == SCRATCH && rest.is_empty() && bulk(from.as_ref(), to, count).await? {
                    break;
                }
            }
            Taken::End => break,
        }
    }
    if is_half_closed.replace(true) {
        return Ok(());
    }
    match SockRef::from(to).shutdown(Shutdown::Write) {
        // It is gone altogether.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}

/// Reads once and offers it on at once; no octet waits in the buffer for a second look. A read that leaves room in the buffer has emptied the
/// source: tokio knows then to wait, without another system call.
fn take(from: &mut ReadHalf<'_>, to: &TcpStream, count: &Cell<u64>, cx: &mut Context<'_>) -> Poll<io::Result<Taken>> {
    SHARED.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let octets = buffer.filled();
        if octets.is_empty() {
            return Poll::Ready(Ok(Taken::End));
        }
        let written = match to.try_write(octets) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Poll::Ready(Err(error)),
        };
        count.update(|count| count + written as u64);
        Poll::Ready(Ok(Taken::Some(octets.len(), octets[written..].to_vec())))
    })
}

async fn write_all(to: &TcpStream, mut octets: &[u8], count: &Cell<u64>) -> io::Result<()> {
    while !octets.is_empty() {
        to.writable().await?;
        match to.try_write(octets) {
            Ok(written) => {
                count.update(|count| count + written as u64);
                octets = &octets[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves octets within the kernel for as long as they come in bulk. Whether the source has ended.
async fn bulk(from: &TcpStream, to: &TcpStream, count: &Cell<u64>) -> io::Result<bool> {
    loop {
        from.readable().await?;
        consume_budget().await;
        // Out of descriptors: the buffer does it too.
        let Ok(mut pipe) = Pipe::borrow() else { return Ok(false) };
        let octets = match from.try_io(Interest::READABLE, || pipe.fill(from)) {
            Ok(0) => return Ok(true),
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        while !pipe.is_empty() {
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(moved) => count.update(|count| count + moved as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error),
            }
        }
        if octets < SMALL {
            return Ok(false);
        }
    }
}

/// One direction between ends that the kernel cannot join.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, initial: Vec<u8>, count: &Cell<u64>) -> io::Result<()> {
    let mut buffer = initial;
    let mut filled = buffer.len();
    buffer.resize(filled.max(BUFFER), 0);
    loop {
        to.write_all(&buffer[..filled]).await?;
        to.flush().await?;
        count.update(|count| count + filled as u64);
        filled = from.read(&mut buffer).await?;
        if filled == 0 {
            return to.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests;
