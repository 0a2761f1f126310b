//! The workload behind a sidecar: records what reaches it, and answers as the path says.
//!
//! | request | answer |
//! |---|---|
//! | `/hold…` | 200 once [`Upstream::release`] was called |
//! | `/big/N` | 200 and N octets |
//! | `/redirect?URL` | 302 to URL |
//! | a gRPC content type | the request's body, then `grpc-status: 0` as trailer |
//! | a WebSocket handshake | 101, then every octet comes back |
//! | a file below the directory of [`Upstream::files`] | 200 and the file; 404, where it is none |
//! | anything else | 200 `ok` once the request's body has ended |

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    eventually,
    http::{Body, RUNTIME, block_on, frames, zeros},
    tls,
};

/// What of a request's body is kept.
const KEPT: usize = 64 * 1024;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub length: usize,
    pub trailers: Option<HeaderMap>,
    pub end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was answered.
    Answered,
    /// It was called off before.
    Dropped,
}

type Log = Arc<Mutex<Vec<Seen>>>;

pub struct Upstream {
    pub address: SocketAddr,
    log: Log,
    accepted: Arc<AtomicUsize>,
    release: watch::Sender<bool>,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self::start()
    }
}

impl Upstream {
    pub fn start() -> Self {
        Self::on(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), None)
    }

    /// Over TLS, as `name`.
    pub fn tls(name: &str) -> Self {
        Self::on(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), Some(tls::server(&[name])))
    }

    /// Answers every GET with a file below `root`.
    pub fn files(root: &Path) -> Self {
        Self::serve(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), None, Some(root.to_owned()))
    }

    /// On a socket that listens already, wherever that is.
    pub fn on(listener: std::net::TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::serve(listener, tls, None)
    }

    fn serve(listener: std::net::TcpListener, tls: Option<Arc<ServerConfig>>, root: Option<PathBuf>) -> Self {
        listener.set_nonblocking(true).unwrap();
        let listener = block_on(async { TcpListener::from_std(listener) }).unwrap();
        let (release, released) = watch::channel(false);
        let (log, accepted) = (Log::default(), Arc::default());
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let service = Service { log: log.clone(), released, tls: tls.map(TlsAcceptor::from), root: root.map(Arc::from) };
        tasks.spawn_on(serve(listener, service, Arc::clone(&accepted)), RUNTIME.handle());
        Self { address, log, accepted, release, _tasks: tasks }
    }

    /// Connections so far, whatever came of them.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Lets everything on hold, now and later, go on.
    pub fn release(&self) {
        self.release.send_replace(true);
    }

    /// Requests to `target` so far.
    pub fn count(&self, target: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|seen| seen.target == target).count()
    }

    /// The first request to `target`, once its head is there.
    #[track_caller]
    pub fn begun(&self, target: &str) -> Seen {
        self.find(target, |_| true)
    }

    /// The same, once it has ended.
    #[track_caller]
    pub fn seen(&self, target: &str) -> Seen {
        self.find(target, |seen| seen.end.is_some())
    }

    #[track_caller]
    fn find(&self, target: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        eventually(&format!("the workload sees {target}"), || {
            self.log.lock().unwrap().iter().find(|seen| seen.target == target && fits(seen)).cloned()
        })
    }
}

#[derive(Clone)]
struct Service {
    log: Log,
    released: watch::Receiver<bool>,
    tls: Option<TlsAcceptor>,
    root: Option<Arc<Path>>,
}

async fn serve(listener: TcpListener, service: Service, accepted: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        let service = service.clone();
        connections.spawn(async move {
            let Some(tls) = &service.tls else { return serve_http(stream, service).await };
            // A handshake that fails is its client's to notice.
            if let Ok(stream) = tls.accept(stream).await {
                serve_http(stream, service).await;
            }
        });
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, service: Service) {
    let service = service_fn(move |request| answer(request, service.clone()));
    // A connection's failure is its client's to notice.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// Notes the request's end when it is dropped.
struct Entry {
    log: Log,
    index: usize,
    end: End,
}

impl Entry {
    fn new(request: &Request<Incoming>, log: Log) -> Self {
        let mut entries = log.lock().unwrap();
        let index = entries.len();
        entries.push(Seen {
            method: request.method().to_string(),
            target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            version: request.version(),
            headers: request.headers().clone(),
            body: Vec::new(),
            length: 0,
            trailers: None,
            end: None,
        });
        drop(entries);
        Self { log, index, end: End::Dropped }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.log.lock().unwrap()[self.index]);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.note(|seen| seen.end = Some(self.end));
    }
}

async fn answer(request: Request<Incoming>, service: Service) -> Result<Response<Body>, hyper::Error> {
    let Service { log, mut released, root, .. } = service;
    let mut entry = Entry::new(&request, log);
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let is_grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if request.headers().get(header::UPGRADE).is_some_and(|protocol| protocol == "websocket") {
        entry.end = End::Answered;
        return Ok(upgrade(request));
    }
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => entry.note(|seen| {
                seen.length += data.len();
                seen.body.extend_from_slice(&data[..data.len().min(KEPT - seen.body.len())]);
            }),
            Err(frame) => entry.note(|seen| seen.trailers = frame.into_trailers().ok()),
        }
    }
    if path.starts_with("/hold") {
        // The sender lives as long as the upstream.
        let _ = released.wait_for(|released| *released).await;
    }
    entry.end = End::Answered;
    if let Some(root) = root {
        return Ok(file(&root, &path));
    }
    let body = match path.strip_prefix("/big/").and_then(|length| length.parse().ok()) {
        Some(length) => zeros(length),
        None if is_grpc => {
            let mut echo = Vec::new();
            entry.note(|seen| echo.clone_from(&seen.body));
            frames([Bytes::from(echo)], Some(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])))
        }
        None => text("ok"),
    };
    let mut response = Response::new(body);
    if path == "/redirect" {
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(header::LOCATION, query.parse().unwrap());
    }
    if is_grpc {
        response.headers_mut().insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());
    }
    Ok(response)
}

fn file(root: &Path, path: &str) -> Response<Body> {
    let (status, body) = match std::fs::read(root.join(path.trim_start_matches('/'))) {
        Ok(octets) => (StatusCode::OK, octets),
        Err(_) => (StatusCode::NOT_FOUND, Vec::new()),
    };
    let mut response = Response::new(frames([Bytes::from(body)], None));
    *response.status_mut() = status;
    response
}

fn text(text: &'static str) -> Body {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed()
}

/// Whether it is a WebSocket's frames that come back is all the same.
fn upgrade(request: Request<Incoming>) -> Response<Body> {
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let mut response = Response::new(text(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::UPGRADE, "websocket".parse().unwrap());
    response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    // Of RFC 6455 §1.3, as is the key that the scenarios send.
    response.headers_mut().insert("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".parse().unwrap());
    response
}
