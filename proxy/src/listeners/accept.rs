//! A bound socket and its accept loop.

use std::{
    io,
    net::{SocketAddr, TcpListener as BoundListener},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::hop::limits::MAX_CONNECTIONS;

/// Connections that the kernel completes and keeps while the loop is busy.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory: the cause does not go away by asking again.
const SCARCE: Duration = Duration::from_millis(100);

/// Binds `address`. `share`: so that several threads may each listen on it (SO_REUSEPORT). Port 0: the kernel chooses.
pub fn bind(address: SocketAddr, share: bool) -> io::Result<BoundListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The end of a listener: nothing is accepted any more, and requests in flight may end (`Connection: close`, GOAWAY) until what is still
/// open is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    cut: Instant,
    has_successor: bool,
}

impl Stop {
    /// Connections on which nothing has been asked are closed at once.
    pub fn within(cut: Instant) -> Self {
        Self { cut, has_successor: false }
    }

    /// Another process, or another route of the same listener, accepts in our place, so that nobody has to be turned away: who holds a
    /// connection may ask once more, and is told then to come on another.
    pub fn succeeded(cut: Instant) -> Self {
        Self { cut, has_successor: true }
    }
}

/// A listener's view of when to stop: `None` while all is well.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Option<Stop>>);

impl Drain {
    pub fn new(stop: watch::Receiver<Option<Stop>>) -> Self {
        Self(stop)
    }

    /// Resolves once draining has begun. A sender that is gone cannot ask for it any more.
    pub(crate) async fn begun(&mut self) {
        self.stop().await;
    }

    /// Resolves once draining has begun without a successor: who has asked nothing yet is turned away.
    pub(crate) async fn turns_away(&mut self) {
        if self.stop().await.has_successor {
            std::future::pending().await
        }
    }

    /// Resolves when whatever is left is to be cut.
    pub(crate) async fn cut(&mut self) {
        sleep_until(self.stop().await.cut).await;
    }

    pub(crate) async fn stop(&mut self) -> Stop {
        let stop = self.0.wait_for(Option::is_some).await.ok().and_then(|stop| *stop);
        match stop {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }
}

/// Serves what arrives at `listener` with `connection` until `drain` begins; then stops accepting, lets what is in flight end and returns
/// when all connections have ended or the deadline has come.
///
/// Must run in a `LocalRuntime` or a `LocalSet`: all work of a connection stays on this thread.
pub async fn serve<F>(listener: BoundListener, mut drain: Drain, connection: impl Fn(TcpStream, SocketAddr, Drain) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    // Waited for once: each new wait has to be entered into a list, and that would be for every connection.
    let mut stop = drain.clone();
    let begun = stop.begun();
    tokio::pin!(begun);
    loop {
        tokio::select! {
            biased;
            () = &mut begun => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (stream, peer) = accept(&listener), if connections.len() < MAX_CONNECTIONS => {
                // In a box: it is several KiB, and would be moved several times on its way into the task.
                let served = Box::pin(connection(stream, peer, drain.clone()));
                connections.spawn_local(async move {
                    if let Err(error) = served.await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                });
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = drain.cut() => {}
        () = async { while connections.join_next().await.is_some() {} } => {}
    }
    Ok(())
}

/// The next connection. An error that belongs to one connection passes it over; any other is waited out.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for the moment");
                sleep(SCARCE).await;
            }
        }
    }
}

/// Network errors that were pending on a connection before it was accepted (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkDown | NetworkUnreachable
    )
}
