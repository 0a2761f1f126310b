//! Raw peers for tests, which the test plays itself octet by octet.

use std::{net::SocketAddr, pin::pin, rc::Rc, time::Duration};

use http::Request;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
    time::timeout,
};

use super::{
    Upstream,
    body::RequestBody,
    pool::{Http1, Lease},
};

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async { timeout(HANG, test).await.expect("the test hangs") }));
}

/// An upstream whose every connection the test answers by hand.
pub(crate) struct Origin(TcpListener);

impl Origin {
    pub(crate) async fn bind() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self(listener), address)
    }

    pub(crate) async fn accept(&self) -> Peer<TcpStream> {
        Peer::new(self.0.accept().await.unwrap().0)
    }

    pub(crate) fn into_listener(self) -> TcpListener {
        self.0
    }
}

/// One end of a connection.
pub(crate) struct Peer<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Up to and with `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                return String::from_utf8(self.read.drain(..at + end.len()).collect()).unwrap();
            }
            let read = self.stream.read_buf(&mut self.read).await.unwrap();
            assert_ne!(read, 0, "the connection ended behind {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// A head, in lower case, with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_lowercase()
    }

    /// Whatever comes until the end of the connection, be it orderly or not.
    pub(crate) async fn rest(&mut self) -> String {
        let _ = self.stream.read_to_end(&mut self.read).await;
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}

/// Asks on `connection` what has no content, and gives it back.
pub(crate) async fn ask(mut connection: Http1, workload: &mut Peer<TcpStream>, upstream: &Rc<Upstream>) {
    let answer = pin!(connection.ask(Request::new(RequestBody::empty())));
    let (answer, ()) = tokio::join!(connection.drive(answer), async {
        workload.head().await;
        workload.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    });
    assert!(answer.is_ok());
    Lease::new(upstream.clone(), connection).give_back();
}
