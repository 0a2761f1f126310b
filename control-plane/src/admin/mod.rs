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
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client,
    header::{CONTENT_TYPE, HeaderValue},
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
};

/// In the state directory: where the running control plane's socket is.
const POINTER: &str = "control-plane.json";
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
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
}

#[derive(Serialize, Deserialize)]
struct Pointer {
    socket: PathBuf,
}

/// Serves `GET /status` on `socket`, and leaves word of it in `state`.
pub(crate) fn serve(
    socket: &Path,
    state: &Path,
    fleet: Arc<Fleet>,
    faults: Arc<Mutex<BTreeSet<String>>>,
) -> io::Result<impl Future<Output = ()> + use<>> {
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
            let (fleet, faults) = (fleet.clone(), faults.clone());
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let reply = answer(&request, &fleet, &faults);
                    async move { Ok::<_, Infallible>(reply) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(false);
                // A connection's failure concerns its client alone.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

fn answer(request: &Request<Incoming>, fleet: &Fleet, faults: &Mutex<BTreeSet<String>>) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") => {
            let status = Status { sidecars: fleet.status(), faults: faults.lock().clone() };
            match serde_json::to_vec(&status) {
                Ok(body) => *response.body_mut() = Full::from(body),
                Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            }
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        (_, "/status") => *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

/// Asks the control plane that serves `dir`.
pub async fn status(dir: &Path) -> io::Result<Status> {
    let pointer = dir.join(STATE_DIR).join(POINTER);
    let absent = |_| io::Error::new(io::ErrorKind::NotFound, format!("no control plane serves {}", dir.display()));
    let Pointer { socket } = serde_json::from_slice(&fs::read(&pointer).map_err(absent)?)?;
    let stream = UnixStream::connect(&socket).await.map_err(absent)?;
    Ok(serde_json::from_slice(&get(stream, "/status").await?)?)
}

/// One GET over a Unix socket.
pub(crate) async fn get(stream: UnixStream, path: &str) -> io::Result<Bytes> {
    timeout(REPLY_TIMEOUT, ask(stream, path)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn ask(stream: UnixStream, path: &str) -> io::Result<Bytes> {
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("answered {}", response.status())));
    }
    let body = Limited::new(response.into_body(), MAX_REPLY_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
    connection.abort();
    Ok(body)
}
