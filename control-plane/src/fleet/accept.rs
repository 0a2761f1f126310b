//! A listener's connections, so many at a time: more wait in the kernel's queue, and cost nothing here.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::{self, Stream};
use parking_lot::Mutex;
use ringfence_xds::policy::{SpiffeId, TenantId};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tonic::transport::server::Connected;

/// Until the process may have descriptors again.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) trait Accept {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Accept for UnixListener {
    type Io = UnixStream;
    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

impl Accept for TcpListener {
    type Io = TcpStream;
    async fn accept(&self) -> io::Result<TcpStream> {
        let stream = TcpListener::accept(self).await?.0;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A connection that counts until it is dropped. `caller`: what is known of who is at its other end.
pub(super) struct Connection<I, C> {
    pub(super) io: I,
    pub(super) caller: C,
    /// When it is ended, whatever happens on it.
    pub(super) until: Option<Pin<Box<Sleep>>>,
    pub(super) _place: OwnedSemaphorePermit,
    pub(super) _shares: Vec<Share>,
}

pub(super) fn connections<L: Accept>(listener: L, max: usize) -> impl Stream<Item = io::Result<Connection<L::Io, ()>>> {
    let places = Arc::new(Semaphore::new(max));
    stream::unfold((listener, places), |(listener, places)| async {
        let place = places.clone().acquire_owned().await.ok()?;
        let io = accept(&listener).await;
        Some((Ok(Connection { io, caller: (), until: None, _place: place, _shares: Vec::new() }), (listener, places)))
    })
}

pub(super) async fn accept<L: Accept>(listener: &L) -> L::Io {
    loop {
        match listener.accept().await {
            Ok(io) => return io,
            // Out of descriptors, most likely: to ask again at once would be for ever.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Who holds how many of what is shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares(Arc<Mutex<HashMap<Holder, usize>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// Who has shown nothing, by address or by the network of one.
    Stranger(IpAddr),
    /// An SVID's name at an address, or the network of one: one sidecar, or those of a Workload that hide behind it.
    Sidecar(SpiffeId, IpAddr),
    /// All sidecars of all of its Workloads.
    Tenant(TenantId),
    /// All of one name that is no tenant's alone.
    Name(SpiffeId),
}

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Shares,
    holder: Holder,
}

impl Shares {
    /// `None`: it holds as many as it may already.
    pub(super) fn take(&self, holder: Holder, max: usize) -> Option<Share> {
        let mut held = self.0.lock();
        let count = held.entry(holder.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Share { shares: self.clone(), holder })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.0.lock();
        if let Some(count) = held.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

impl<I, C: Clone + Send + Sync + 'static> Connected for Connection<I, C> {
    type ConnectInfo = C;
    fn connect_info(&self) -> C {
        self.caller.clone()
    }
}

impl<I: Unpin, C: Unpin> Connection<I, C> {
    /// The other end, while there is time. Whoever only reads or only writes is told in time too: a peer that takes nothing of what it is
    /// sent keeps its connection from being read.
    fn in_time(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut I>> {
        if self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Pin::new(&mut self.io))
    }
}

impl<I: AsyncRead + Unpin, C: Unpin> AsyncRead for Connection<I, C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?.poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin, C: Unpin> AsyncWrite for Connection<I, C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?.poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.in_time(cx)?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(cx)?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, sleep, timeout},
    };

    use super::*;

    const UNTIL: Duration = Duration::from_secs(30);

    fn connection(until: Option<Duration>) -> (Connection<DuplexStream, ()>, DuplexStream) {
        let (io, peer) = duplex(64);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Connection { io, caller: (), until: until.map(|until| Box::pin(sleep(until))), _place: place, _shares: Vec::new() }, peer)
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_in_time_whatever_the_peer_does_not_do() {
        let began = Instant::now();
        let (mut silent, _peer) = connection(Some(UNTIL));
        assert_eq!(silent.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), UNTIL.as_secs());
        // Nobody reads from it meanwhile, as HTTP/2 does not while it has to write.
        let (mut deaf, _peer) = connection(Some(UNTIL));
        assert_eq!(deaf.write_all(&[0; 65]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 2 * UNTIL.as_secs());
        assert_eq!(deaf.shutdown().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (mut proven, _peer) = connection(None);
        assert!(timeout(10 * UNTIL, proven.write_all(&[0; 65])).await.is_err());
    }

    #[test]
    fn a_holder_has_its_share_and_leaves_nothing() {
        let shares = Shares::default();
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|address| Holder::Stranger(address.parse().unwrap()));
        let held: Vec<Share> = (0..3).map(|_| shares.take(a.clone(), 3).unwrap()).collect();
        assert!(shares.take(a.clone(), 3).is_none());
        let other = shares.take(b, 1).unwrap();
        drop(held.into_iter().next());
        drop(other);
        assert!(shares.take(a, 3).is_some());
        assert!(shares.0.lock().is_empty());
    }
}
