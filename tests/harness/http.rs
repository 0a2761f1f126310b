//! Blocking requests over real connections: HTTP/1.1 and HTTP/2, TCP and Unix sockets.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, path::Path, sync::LazyLock};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::Runtime,
    time::timeout,
};

use crate::wait::DEADLINE;

/// What of a reply's body is kept; longer ones are counted.
const KEPT: usize = 1024 * 1024;

/// Where everything that the harness itself does over sockets runs.
pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// Runs to its end, or panics at the deadline.
#[track_caller]
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(async { timeout(DEADLINE, future).await }).expect("an answer in time")
}

pub type Body = BoxBody<Bytes, Infallible>;

/// Pieces of a body, then trailers.
pub fn frames(pieces: impl IntoIterator<Item = Bytes, IntoIter: Send + Sync + 'static>, trailers: Option<HeaderMap>) -> Body {
    let frames = pieces.into_iter().map(Frame::data).chain(trailers.map(Frame::trailers));
    StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))).boxed()
}

/// `length` octets in pieces of 64 KiB.
pub fn zeros(length: usize) -> Body {
    static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
    let pieces = (0..length.div_ceil(PIECE.len())).map(move |i| Bytes::from_static(&PIECE[..PIECE.len().min(length - i * PIECE.len())]));
    frames(pieces, None)
}

pub struct Request {
    address: SocketAddr,
    request: http::Request<Body>,
}

pub fn get(address: SocketAddr, target: &str) -> Request {
    let mut request = http::Request::new(Full::default().boxed());
    *request.uri_mut() = target.parse().unwrap();
    request.headers_mut().insert(http::header::HOST, HeaderValue::from_static("api.test"));
    Request { address, request }
}

pub fn post(address: SocketAddr, target: &str, body: Body) -> Request {
    let mut request = get(address, target).method("POST");
    *request.request.body_mut() = body;
    request
}

impl Request {
    pub fn method(mut self, method: &str) -> Self {
        *self.request.method_mut() = method.parse().unwrap();
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds a field line; names keep no case.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self
    }

    /// On a connection of its own.
    #[track_caller]
    pub fn send(self) -> Reply {
        self.try_send().expect("a reply")
    }

    pub fn try_send(self) -> io::Result<Reply> {
        block_on(async {
            let stream = TcpStream::connect(self.address).await?;
            self.exchange(stream).await
        })
    }

    /// On a connection that was opened elsewhere.
    pub fn try_send_on(self, stream: std::net::TcpStream) -> io::Result<Reply> {
        stream.set_nonblocking(true)?;
        block_on(async { self.exchange(TcpStream::from_std(stream)?).await })
    }

    async fn exchange(self, stream: TcpStream) -> io::Result<Reply> {
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let reply = sender.send_request(self.request).await.map_err(io::Error::other)?;
        let reply = Reply::collect(reply).await;
        driver.abort();
        reply
    }

    /// Over HTTP/2 with prior knowledge, on a connection of its own.
    #[track_caller]
    pub fn send_h2(mut self) -> Reply {
        let authority = self.request.headers_mut().remove(http::header::HOST).unwrap();
        let target = self.request.uri().path_and_query().unwrap().clone();
        *self.request.uri_mut() =
            http::Uri::builder().scheme("http").authority(authority.as_bytes()).path_and_query(target).build().unwrap();
        *self.request.version_mut() = Version::HTTP_2;
        block_on(async {
            let stream = TcpStream::connect(self.address).await?;
            let (mut sender, connection) =
                conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
            let driver = tokio::spawn(connection);
            let reply = sender.send_request(self.request).await.map_err(io::Error::other)?;
            let reply = Reply::collect(reply).await;
            driver.abort();
            reply
        })
        .expect("a reply")
    }
}

/// GET requests to these URIs, one after another on one HTTP/2 connection with prior knowledge.
#[track_caller]
pub fn http2(stream: std::net::TcpStream, uris: &[&str]) -> Vec<Reply> {
    block_on(async {
        stream.set_nonblocking(true)?;
        let stream = TokioIo::new(TcpStream::from_std(stream)?);
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let mut replies = Vec::new();
        for uri in uris {
            let request = http::Request::get(*uri).version(Version::HTTP_2).body(Full::<Bytes>::default()).unwrap();
            replies.push(Reply::collect(sender.send_request(request).await.map_err(io::Error::other)?).await?);
        }
        driver.abort();
        Ok::<_, io::Error>(replies)
    })
    .expect("replies")
}

/// A request to a server on a Unix socket.
pub(crate) fn unix(socket: &Path, method: &str, path: &str) -> io::Result<Reply> {
    block_on(async {
        let stream = UnixStream::connect(socket).await?;
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let request = http::Request::builder().method(method.parse::<Method>().unwrap()).uri(path).header("host", "localhost");
        let reply = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.map_err(io::Error::other)?;
        let reply = Reply::collect(reply).await;
        driver.abort();
        reply
    })
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// Its first MiB.
    pub body: Bytes,
    /// All of the body's octets.
    pub length: usize,
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    async fn collect(reply: http::Response<hyper::body::Incoming>) -> io::Result<Self> {
        let (head, mut body) = reply.into_parts();
        let (mut kept, mut length, mut trailers) = (Vec::new(), 0, None);
        while let Some(frame) = body.frame().await {
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => {
                    length += data.len();
                    kept.extend_from_slice(&data[..data.len().min(KEPT - kept.len())]);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body: kept.into(), length, trailers })
    }

    /// A header field that must be there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let (value, more) = (values.next(), values.next());
        assert!(more.is_none(), "{name} stands twice in {self:?}");
        value.unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Why it was refused, as its problem document says; empty where it was not.
    pub fn reason(&self) -> String {
        self.json().and_then(|body| Some(body["reason"].as_str()?.to_owned())).unwrap_or_default()
    }

    /// Status and reason.
    pub fn verdict(&self) -> (u16, String) {
        (self.status, self.reason())
    }
}
