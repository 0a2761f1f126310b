//! What an operator may look at: `/readyz`, `/healthz`, `/metrics` and `/config`, read only.
//!
//! The workload runs beside the sidecar and may reach a loopback address, and so may a browser on a developer's machine. So nothing
//! can be changed here, a TCP request must name a loopback host (a page that rebinds its DNS name names its own), and whoever connects
//! gets few connections, small buffers and little time.

mod address;
mod probe;

use std::{convert::Infallible, fmt, future::Future, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net,
    sync::Semaphore,
    time::{sleep, timeout},
};

pub use address::{AdminAddress, AdminAddressError, AdminBindError, AdminListener, AdminSocket};
pub use probe::NotReady;

use crate::{
    readiness::{Readiness, Status},
    telemetry::metrics::{self, Metrics},
};
use address::Bound;

/// Connections at a time; further ones wait in the kernel's queue. Whoever holds them all delays others by [`CONNECTION_TIMEOUT`] at most.
const CONNECTIONS: usize = 16;

/// Time for a request's head, and for all of a connection, which serves one request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request's head, and of each connection's buffer: the least that hyper takes.
const HEAD_BYTES: usize = 8 * 1024;
const HEAD_FIELDS: usize = 32;

/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the endpoint shows.
pub struct Admin {
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    /// What is in force, with versions and without secrets.
    pub config: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

impl AdminListener {
    /// Serves until it is dropped. To be run on the control runtime; a failure is that of registering the socket there.
    pub async fn serve(self, admin: Admin) -> io::Result<Infallible> {
        let admin = Arc::new(admin);
        match self.0 {
            Bound::Unix(listener, _file) => {
                let listener = net::UnixListener::from_std(listener)?;
                accept(|| async { Ok(listener.accept().await?.0) }, false, &admin).await
            }
            Bound::Tcp(listener) => {
                let listener = net::TcpListener::from_std(listener)?;
                accept(|| async { Ok(listener.accept().await?.0) }, true, &admin).await
            }
        }
    }
}

/// `names_host`: whether a request must name a loopback host.
async fn accept<S, F>(next: impl Fn() -> F, names_host: bool, admin: &Arc<Admin>) -> io::Result<Infallible>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>>,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
        match next().await {
            Ok(stream) => {
                let admin = Arc::clone(admin);
                tokio::spawn(async move {
                    converse(stream, names_host, &admin).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(ACCEPT_REST).await,
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, names_host: bool, admin: &Admin) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(admin.answer(&request, names_host)) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    // Neither a slow nor a broken peer is anybody's concern here.
    let _ = timeout(CONNECTION_TIMEOUT, connection).await;
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>, names_host: bool) -> Response<Full<Bytes>> {
        if names_host && !names_loopback(request) {
            return text(StatusCode::MISDIRECTED_REQUEST, "the Host must be localhost or a loopback address\n");
        }
        let show: fn(&Self) -> Response<Full<Bytes>> = match request.uri().path() {
            "/readyz" => Self::readyz,
            "/healthz" => |_| text(StatusCode::OK, "ok\n"),
            "/metrics" => Self::metrics,
            "/config" => Self::config,
            _ => return text(StatusCode::NOT_FOUND, "not found: there are /readyz, /healthz, /metrics and /config\n"),
        };
        if *request.method() != Method::GET && *request.method() != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "read only: GET or HEAD\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        show(self)
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        match self.readiness.status() {
            Status::Ready => text(StatusCode::OK, "ready\n"),
            Status::Starting(pending) => text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", pending.join(", "))),
            Status::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.render() {
            Ok(metrics) => reply(StatusCode::OK, metrics::CONTENT_TYPE, metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")),
        }
    }

    fn config(&self) -> Response<Full<Bytes>> {
        reply(StatusCode::OK, "application/json", format!("{:#}\n", (self.config)()))
    }
}

/// Whether the request names one host, and that is loopback, in `Host` and in an absolute-form target.
fn names_loopback<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    hosts.next().is_none() && host.is_some_and(|host| is_loopback(&host)) && request.uri().authority().is_none_or(is_loopback)
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    (address || host.eq_ignore_ascii_case("localhost")) && !authority.as_str().contains('@')
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
