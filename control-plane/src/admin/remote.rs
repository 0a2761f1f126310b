//! What operators ask from elsewhere: over TLS, with a bearer token that names their role. Read only.
//!
//! `GET /healthz`, `/status`, `/resources/<workload>`, `/metrics`. Whoever has no role is told 401 whatever it asks for, health apart;
//! what a role may not see is answered as what does not exist.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use ringfence_xds::policy::identify::IssuerPolicy;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use serde::Serialize;
use tokio_rustls::TlsAcceptor;

use super::{
    Running, Status, metrics,
    roles::{self, Endpoint, Extent, Operator},
};
use crate::https::{self, Limits};

/// A request's head: a token has at most 16 KiB.
const LIMITS: Limits = Limits { connections: 64, head_bytes: 32 * 1024 };

/// Where the admin listener is, and what it shows.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    pub listen: SocketAddr,
    /// PEM chain, the listener's own first.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("{}: must be a readable PEM file with {expected}: {source}", file.display())]
    File { file: PathBuf, expected: &'static str, source: pem::Error },
    #[error("{} and {}: must belong together: {source}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Who has a role, as it is written now.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    pub(crate) issuers: Vec<Arc<IssuerPolicy>>,
    pub(crate) operators: Vec<Operator>,
}

/// What is answered from.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) running: Running,
    pub(crate) operators: Arc<ArcSwap<Operators>>,
}

/// One resource that a workload's sidecar is told, as `/resources` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) bytes: usize,
}

/// Binds, and serves until the task is dropped.
pub(crate) async fn serve(config: &AdminConfig, state: State) -> Result<(SocketAddr, impl Future<Output = ()> + use<>), AdminError> {
    let answer = move |request: Request<Incoming>| std::future::ready(state.answer(&request));
    let serving = https::serve(config.listen, tls(config)?, LIMITS, answer).await;
    serving.map_err(|error| AdminError::Listen { address: config.listen, error })
}

fn tls(config: &AdminConfig) -> Result<TlsAcceptor, AdminError> {
    let AdminConfig { certificate, key, .. } = config;
    let file = |file: &PathBuf, expected| {
        let file = file.clone();
        move |source| AdminError::File { file, expected, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(file(certificate, "a certificate chain"))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(file(key, "a private key"))?;
    let pair = |source| AdminError::Pair { certificate: certificate.clone(), key: key.clone(), source };
    https::tls(|tls| tls.with_single_cert(chain, private)).map_err(pair)
}

impl State {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let workload = path.strip_prefix("/resources/");
        let endpoint = match (path, workload) {
            ("/healthz", _) => Some(Endpoint::Health),
            ("/status", _) => Some(Endpoint::Status),
            ("/metrics", _) => Some(Endpoint::Metrics),
            (_, Some(_)) => Some(Endpoint::Resources),
            _ => None,
        };
        let operators = self.operators.load();
        // A clock before 1970 makes every token one of the future.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let authorization = request.headers().get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let role = roles::identify_operator(authorization, &operators.issuers, &operators.operators, now);
        if role.is_none() && endpoint != Some(Endpoint::Health) {
            let mut refused = empty(StatusCode::UNAUTHORIZED);
            refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refused;
        }
        let Some((endpoint, extent)) = endpoint.and_then(|endpoint| Some((endpoint, roles::may(role, endpoint)?))) else {
            return empty(StatusCode::NOT_FOUND);
        };
        if *request.method() != Method::GET {
            let mut refused = empty(StatusCode::METHOD_NOT_ALLOWED);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        match endpoint {
            Endpoint::Health => text("text/plain; charset=utf-8", "ok\n"),
            Endpoint::Status => json(&self.status(extent)),
            Endpoint::Metrics => text(metrics::CONTENT_TYPE, metrics::render(&self.running.fleet, self.running.faults.lock().len())),
            Endpoint::Resources => match workload.and_then(|workload| self.running.fleet.listed(workload, extent)) {
                Some(listed) => json(&listed),
                None => empty(StatusCode::NOT_FOUND),
            },
        }
    }

    fn status(&self, extent: Extent<'_>) -> Status {
        let Running { fleet, faults, trust } = &self.running;
        let sidecars = fleet.status_within(extent);
        match extent {
            Extent::All => Status { sidecars, faults: faults.lock().clone(), trust: trust.as_ref().map(|trust| trust.status()) },
            // Faults name every tenant's objects: they are the platform's to see.
            Extent::Tenant(_) => Status { sidecars, faults: BTreeSet::new(), trust: None },
        }
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn text(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    serde_json::to_vec(value).map_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR), |body| text("application/json", body))
}

#[cfg(test)]
mod tests;
