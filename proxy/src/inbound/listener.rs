//! A bound socket and its accept loop.

use std::{
    io,
    net::{SocketAddr, TcpListener as BoundListener},
    rc::Rc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{Inbound, connection, limits::MAX_CONNECTIONS};

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

/// When to stop: `None` while all is well, then the moment at which what is still open is cut.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Option<Instant>>);

impl Drain {
    pub fn new(deadline: watch::Receiver<Option<Instant>>) -> Self {
        Self(deadline)
    }

    /// Resolves once draining has begun. A sender that is gone cannot ask for it any more.
    pub(crate) async fn begun(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending().await
        }
    }

    async fn deadline(&mut self) {
        self.begun().await;
        let deadline = *self.0.borrow();
        if let Some(deadline) = deadline {
            sleep_until(deadline).await;
        }
    }
}

/// Serves what arrives at `listener` until `drain` begins; then stops accepting, lets the requests in flight end
/// (`Connection: close`, GOAWAY) and returns when all connections have ended or the deadline has come.
///
/// Must run in a `LocalRuntime` or a `LocalSet`: all work of a connection stays on this thread.
pub async fn serve(listener: BoundListener, inbound: Rc<Inbound>, mut drain: Drain) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = drain.begun() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(&listener), if connections.len() < MAX_CONNECTIONS => {
                let (stream, peer) = accepted;
                prepare(&stream, inbound.timeouts.stall);
                let (inbound, drain) = (inbound.clone(), drain.clone());
                let counted = inbound.enforce.shared.metrics.connection();
                connections.spawn_local(async move {
                    let _counted = counted;
                    if let Err(error) = connection::serve(stream, peer, inbound, drain).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                });
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = drain.deadline() => {}
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

/// Socket options that matter and must not cost the connection if the kernel refuses them.
fn prepare(stream: &TcpStream, stall: Duration) {
    let _ = stream.set_nodelay(true);
    // A client that has gone silent or reads nothing is cut by the kernel: no timer of ours has to watch the writes.
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(stall));
}
