//! One fetch of a JWK set: resolve, check, dial, TLS, one request, one bounded answer. No proxy, no redirect, no second try.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, CACHE_CONTROL, HOST, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use ringfence_policy::identify::keys::{Algorithm, KeyFault};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    JwksUri,
    dial::{self, DialError},
    keys::usable,
};
use crate::spec::quoted;

/// Longest answer looked at: half of the largest resource, so that the issuer's other fields always find room beside its keys.
pub(super) const MAX_BODY_BYTES: usize = ringfence_xds::decode::MAX_RESOURCE_BYTES / 2;
/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("no answer within {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("answers {status} and leads to {to}: not followed, write the URI that the keys are at")]
    Redirect { status: StatusCode, to: String },
    #[error("answers {0}: must be 200")]
    Status(StatusCode),
    #[error("answers with more than {MAX_BODY_BYTES} bytes")]
    Long,
    #[error("broken answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("cannot be asked for: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("{0}")]
    Keys(String),
}

/// How long a fetch may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// Until TLS stands.
    pub(super) connect: Duration,
    pub(super) total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(10) }
    }
}

/// A set that the issuer's tokens can be verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) text: Bytes,
    /// Keys of the answer that are not in `text`.
    pub(super) set_aside: Vec<KeyFault>,
    pub(super) max_age: Option<Duration>,
}

pub(super) struct Fetcher {
    from: JwksUri,
    algorithms: Vec<Algorithm>,
    deadlines: Deadlines,
}

impl Fetcher {
    pub(super) fn new(from: JwksUri, algorithms: Vec<Algorithm>, deadlines: Deadlines) -> Self {
        Self { from, algorithms, deadlines }
    }

    pub(super) async fn fetch(&self) -> Result<Fetched, FetchError> {
        let Deadlines { connect, total } = self.deadlines;
        let exchange = async {
            let stream = timeout(connect, self.connect(connect)).await.map_err(|_| FetchError::Slow(connect))??;
            let (headers, body) = self.request(stream).await?;
            let (text, set_aside) = usable(&body, &self.algorithms).map_err(FetchError::Keys)?;
            Ok(Fetched { text, set_aside, max_age: max_age(&headers) })
        };
        timeout(total, exchange).await.map_err(|_| FetchError::Slow(total))?
    }

    async fn connect(&self, patience: Duration) -> Result<TlsStream<TcpStream>, FetchError> {
        let name = self.from.name();
        let addresses = dial::resolve(name, self.from.port(), self.from.allows_private()).await?;
        let socket = dial::dial(&addresses, patience).await?;
        let connector = TlsConnector::from(Arc::new(self.tls().map_err(|error| FetchError::Tls(error.to_string()))?));
        connector.connect(name.clone(), socket).await.map_err(|error| FetchError::Tls(tls_message(&error)))
    }

    /// TLS 1.2 and 1.3. Made for each fetch: they are minutes apart, the public authorities are many.
    fn tls(&self) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(RootCertStore { roots: self.from.authorities() })
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    async fn request(&self, stream: TlsStream<TcpStream>) -> Result<(HeaderMap, Vec<u8>), FetchError> {
        let (mut sender, connection) = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await?;
        // Ended with the fetch, however that ends.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get(self.from.target())
            .header(HOST, self.from.authority())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            // Firewalls before identity providers refuse clients that name none.
            .header(USER_AGENT, "ringfence")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(FetchError::Redirect { status, to: redirected_to(response.headers()) }),
            status => return Err(FetchError::Status(status)),
        }
        read(response).await
    }
}

/// The host that an answer leads to, for the operator to judge.
fn redirected_to(headers: &HeaderMap) -> String {
    let location: Option<Uri> = headers.get(LOCATION).and_then(|value| value.to_str().ok()?.parse().ok());
    match &location {
        Some(uri) => uri.host().map_or_else(|| format!("another path, {}", quoted(uri.path())), quoted),
        None => "nowhere".into(),
    }
}

async fn read(response: Response<Incoming>) -> Result<(HeaderMap, Vec<u8>), FetchError> {
    let (head, mut body) = response.into_parts();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        // Trailers say nothing of keys.
        let Ok(data) = frame?.into_data() else { continue };
        if text.len() + data.len() > MAX_BODY_BYTES {
            return Err(FetchError::Long);
        }
        text.extend_from_slice(&data);
    }
    Ok((head.headers, text))
}

/// `Cache-Control: max-age` (RFC 9111 §5.2.2.1), where there is one.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let seconds =
        directives.filter_map(|directive| directive.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"));
    Some(Duration::from_secs(seconds?.1.trim().trim_matches('"').parse().ok()?))
}

/// Without the moment of the attempt, which rustls puts in: the same fault is to be told in the same words.
fn tls_message(error: &io::Error) -> String {
    let fault = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match fault {
        Some(rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "the certificate has expired".into()
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            "the certificate is not valid yet".into()
        }
        _ => error.to_string(),
    }
}
