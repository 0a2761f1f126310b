//! What an operator asks a running control plane: over a Unix socket that only its user can open, found through a file in the directory
//! that it serves.

mod metrics;
pub mod remote;
pub mod roles;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client,
    header::{CONTENT_TYPE, HOST, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{net::UnixStream, time::timeout};

use crate::{
    fleet::{Fleet, NodeStatus, ads},
    plane::STATE_DIR,
    trust::{self, Trust, TrustError, TrustStatus},
};

/// In the state directory: where the running control plane's socket is.
const POINTER: &str = "control-plane.json";
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REQUEST_BYTES: usize = 4096;
/// Thousands of sidecars with hundreds of bytes each.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// `ringfence status`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Connected sidecars, by node.
    pub sidecars: Vec<NodeStatus>,
    /// Of the files as they are now: what they say where these stand is not in force.
    pub faults: BTreeSet<String>,
    /// Who vouches for identities; `None`: nobody, sidecars have none.
    pub trust: Option<TrustStatus>,
}

/// What a running control plane is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) faults: Arc<Mutex<BTreeSet<String>>>,
    pub(crate) trust: Option<Arc<Trust>>,
}

/// `ringfence join`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    pub workload: String,
    pub ttl_seconds: u64,
}

/// A join token.
#[derive(Serialize, Deserialize)]
pub struct JoinReply {
    pub token: String,
}

#[derive(Serialize, Deserialize)]
struct Pointer {
    socket: PathBuf,
}

/// What is done about the authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotate {
    /// A new one takes over.
    Begin,
    /// The one before is withdrawn, if nobody is known to need it.
    Finish,
    /// It is withdrawn, whoever needs it.
    FinishByForce,
}

impl Rotate {
    const ALL: [Self; 3] = [Self::Begin, Self::Finish, Self::FinishByForce];

    fn path(self) -> &'static str {
        match self {
            Self::Begin => "/trust/rotate",
            Self::Finish => "/trust/finish",
            Self::FinishByForce => "/trust/finish-by-force",
        }
    }
}

/// Serves `GET /status`, `POST /join` and `POST` of what is to be done about the authorities (see [`Rotate`]) on `socket`, and leaves word of it in `state`.
pub(crate) fn serve(socket: &Path, state: &Path, running: Running) -> io::Result<impl Future<Output = ()> + use<>> {
    let listener = ads::bind(socket)?;
    let mut pointer = tempfile::NamedTempFile::new_in(state)?; // 0600
    serde_json::to_writer(&mut pointer, &Pointer { socket: socket.into() })?;
    pointer.persist(state.join(POINTER)).map_err(|error| error.error)?;
    Ok(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let running = running.clone();
            tokio::spawn(async move {
                let service = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(running.answer(request).await));
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false);
                // A connection's failure concerns its client alone.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// What cannot be done, and why.
struct Refusal(StatusCode, String);

impl From<TrustError> for Refusal {
    fn from(error: TrustError) -> Self {
        Self(StatusCode::CONFLICT, error.to_string())
    }
}

impl Running {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::default();
        match self.answered(request).await {
            Ok(body) => {
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                *response.body_mut() = body.into();
            }
            Err(Refusal(status, why)) => {
                *response.status_mut() = status;
                *response.body_mut() = why.into();
            }
        }
        response
    }

    async fn answered(&self, request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
        let (head, body) = request.into_parts();
        match (head.method, head.uri.path()) {
            (Method::GET, "/status") => {
                let trust = self.trust.as_ref().map(|trust| trust.status());
                json(&Status { sidecars: self.fleet.status(), faults: self.faults.lock().clone(), trust })
            }
            (Method::POST, "/join") => {
                let bad = |error: &dyn std::fmt::Display| Refusal(StatusCode::BAD_REQUEST, error.to_string());
                let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await.map_err(|error| bad(&error))?.to_bytes();
                let JoinRequest { workload, ttl_seconds } = serde_json::from_slice(&body).map_err(|error| bad(&error))?;
                json(&JoinReply { token: self.trust()?.join_token(&workload, Duration::from_secs(ttl_seconds))? })
            }
            (method, path) => match Rotate::ALL.into_iter().find(|rotate| rotate.path() == path) {
                Some(rotate) if method == Method::POST => {
                    let (trust, now) = (self.trust()?, trust::since_epoch());
                    json(&match rotate {
                        Rotate::Begin => trust.rotate(now).await?,
                        Rotate::Finish => trust.finish(now, false).await?,
                        Rotate::FinishByForce => trust.finish(now, true).await?,
                    })
                }
                None if !matches!(path, "/status" | "/join") => Err(Refusal(StatusCode::NOT_FOUND, String::new())),
                _ => Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, String::new())),
            },
        }
    }

    fn trust(&self) -> Result<&Trust, Refusal> {
        let absent = || Refusal(StatusCode::CONFLICT, "this control plane issues no identities: start it with --tls".into());
        self.trust.as_deref().ok_or_else(absent)
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Asks the control plane that serves `dir`.
pub async fn status(dir: &Path) -> io::Result<Status> {
    Ok(serde_json::from_slice(&get(connect(dir).await?, "/status").await?)?)
}

/// A join token for a sidecar of the control plane that serves `dir`.
pub async fn join(dir: &Path, request: &JoinRequest) -> io::Result<JoinReply> {
    let body = serde_json::to_vec(request)?;
    Ok(serde_json::from_slice(&ask(connect(dir).await?, Method::POST, "/join", body).await?)?)
}

/// Asks it of the control plane that serves `dir`.
pub async fn rotate(dir: &Path, rotate: Rotate) -> io::Result<TrustStatus> {
    Ok(serde_json::from_slice(&ask(connect(dir).await?, Method::POST, rotate.path(), Vec::new()).await?)?)
}

async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let pointer = dir.join(STATE_DIR).join(POINTER);
    let absent = |_| io::Error::new(io::ErrorKind::NotFound, format!("no control plane serves {}", dir.display()));
    let Pointer { socket } = serde_json::from_slice(&fs::read(&pointer).map_err(absent)?)?;
    UnixStream::connect(&socket).await.map_err(absent)
}

/// One GET over a Unix socket.
pub(crate) async fn get(stream: UnixStream, path: &str) -> io::Result<Bytes> {
    ask(stream, Method::GET, path, Vec::new()).await
}

async fn ask(stream: UnixStream, method: Method, path: &str, body: Vec<u8>) -> io::Result<Bytes> {
    timeout(REPLY_TIMEOUT, exchange(stream, method, path, body)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn exchange(stream: UnixStream, method: Method, path: &str, body: Vec<u8>) -> io::Result<Bytes> {
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    let request = request.body(Full::<Bytes>::from(body)).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
    connection.abort();
    match status {
        StatusCode::OK => Ok(body),
        _ if body.is_empty() => Err(io::Error::other(format!("answered {status}"))),
        _ => Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
    }
}
