//! The webhook: AdmissionReviews over HTTPS, `POST /inject`; and `GET /healthz`. Nothing is remembered from one to the next, so a dry run is as
//! any other.

use std::{convert::Infallible, fs, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use rustls::{ServerConfig, server::NoServerSessionStorage};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Capture, SettingError, Settings,
    certificates::{self, Shown},
    namespaces::Namespaces,
    review::{self, Asked},
    settings::RESOLVER_PORT,
};
use crate::kubernetes::lease::Leader;

pub(super) const PATH: &str = "/inject";
/// For the kubelet: whether reviews are answered without asking the API server first.
const HEALTH_PATH: &str = "/healthz";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Served at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// Pods that are parsed at a time: of many empty objects some hundred octets each are held for three of text, more than once.
const MAX_PARSED: usize = 2;
/// Etcd stores objects of up to 1.5 MiB, and a review holds one.
pub(super) const MAX_REVIEW_BYTES: usize = 2 * 1024 * 1024;
/// From the first octet of the handshake to the last of the answer. The API server gives up after 10 s, or what the chart says.
const WITHIN: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Until the process may have descriptors again.
const PAUSE: Duration = Duration::from_millis(100);

/// What is served, and where.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub listen: SocketAddr,
    pub settings: Settings,
    /// The control plane's own, where its Secrets and its Service are.
    pub namespace: String,
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("injection: {0}")]
    Setting(#[from] SettingError),
    #[error("injection: control plane {address}: cannot be looked up: {error}")]
    ControlPlane { address: String, error: io::Error },
    #[error("injection: {RESOLV_CONF}: {0}: name the cluster's DNS server")]
    Resolvers(String),
    #[error("webhook: cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("webhook: {0}")]
    Tls(#[from] rustls::Error),
}

/// Binds, and serves until the future is dropped. `leader`: which replica writes the webhook's certificates.
pub async fn serve(
    client: Client,
    webhook: Webhook,
    leader: Leader,
) -> Result<(SocketAddr, impl Future<Output = ()> + use<>), WebhookError> {
    let Webhook { listen, mut settings, namespace } = webhook;
    if settings.capture == Capture::Explicit {
        settings.control_plane = address(settings.control_plane).await?;
    }
    if settings.resolvers.is_empty() {
        settings.resolvers = own_resolvers()?;
    }
    settings.check()?;
    let shown = Arc::new(Shown::default());
    let acceptor = TlsAcceptor::from(Arc::new(tls(shown.clone())?));
    let fault = |error| WebhookError::Listen { address: listen, error };
    let listener = TcpListener::bind(listen).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    let (namespaces, watching) = Namespaces::watch(client.clone());
    let state = Arc::new(State { settings, namespaces, parsing: Semaphore::new(MAX_PARSED) });
    let keeping = certificates::keep(client, namespace, leader, shown);
    let serving = async move {
        tokio::join!(accept(listener, acceptor, state), watching, keeping);
    };
    Ok((bound, serving))
}

/// What the kubelet has told this pod, as it tells any other: the cluster's DNS.
fn own_resolvers() -> Result<Vec<SocketAddr>, WebhookError> {
    let text = fs::read(RESOLV_CONF).map_err(|error| WebhookError::Resolvers(error.to_string()))?;
    let config = resolv_conf::Config::parse(text).map_err(|error| WebhookError::Resolvers(error.to_string()))?;
    let found = config.nameservers.iter().map(|server| SocketAddr::new(server.into(), RESOLVER_PORT));
    // What is this machine's alone is no pod's: outside of a cluster there may be none.
    Ok(found.filter(|server| !server.ip().is_loopback()).collect())
}

/// A Service keeps its address for as long as it lives.
async fn address(control_plane: String) -> Result<String, WebhookError> {
    let found = match lookup_host(&control_plane).await {
        Ok(mut found) => found.next().ok_or_else(|| io::ErrorKind::NotFound.into()),
        Err(error) => Err(error),
    };
    found.map(|address| address.to_string()).map_err(|error| WebhookError::ControlPlane { address: control_plane, error })
}

/// TLS 1.2 and 1.3.
fn tls(shown: Arc<Shown>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(tls)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (acceptor, state) = (acceptor.clone(), state.clone());
        tokio::spawn(async move {
            // A connection's failure concerns its client alone.
            let _ = timeout(WITHIN, converse(stream, &acceptor, &state)).await;
            drop(permit);
        });
    }
}

async fn converse(stream: TcpStream, acceptor: &TlsAcceptor, state: &State) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request: Request<Incoming>| async { Ok::<_, Infallible>(state.answer(request).await) });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_BYTES).keep_alive(false);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

struct State {
    settings: Settings,
    namespaces: Namespaces,
    parsing: Semaphore,
}

impl State {
    /// Any answer but 200 is a refusal too: the API server's `failurePolicy` is Fail.
    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match request.uri().path() {
            PATH => {}
            // Nobody gets here before there is a certificate.
            HEALTH_PATH if self.namespaces.are_known() => return text(StatusCode::OK, "ok"),
            HEALTH_PATH => return text(StatusCode::SERVICE_UNAVAILABLE, "the API server has not told yet which namespaces are whose"),
            _ => return text(StatusCode::NOT_FOUND, "there are /inject and /healthz"),
        }
        if *request.method() != Method::POST {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "POST an AdmissionReview");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return refused;
        }
        let body = match Limited::new(request.into_body(), MAX_REVIEW_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return text(StatusCode::PAYLOAD_TOO_LARGE, "larger than any review of a pod"),
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        match review::read(&body) {
            Asked::Create(create) => {
                let tenant = match self.namespaces.tenant(&create.namespace).await {
                    Ok(tenant) => tenant,
                    Err(why) => return json(&create.refused(&why)),
                };
                // Not while the API server is asked.
                let Ok(_parsing) = self.parsing.acquire().await else { return text(StatusCode::SERVICE_UNAVAILABLE, "ending") };
                json(&create.answer(&tenant, &self.settings))
            }
            Asked::Answered(answer) => json(&answer),
            Asked::Junk(why) => text(StatusCode::BAD_REQUEST, why),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(review: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(review.to_string().into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
