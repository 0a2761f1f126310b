//! TLS to an upstream that has to prove who it is (RFC 8310 §5, the strict profile: there is no other here).

use std::{cell::OnceCell, io, net::IpAddr, sync::Arc};

use ringfence_policy::host::HostName;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// By ALPN (RFC 7301): what is spoken there.
pub(super) const DOT: &[u8] = b"dot";
pub(super) const H2: &[u8] = b"h2";

/// Tickets kept of one upstream: as many as rustls keeps for any server.
const TICKETS: usize = 8;

/// Whose word is taken for who an upstream is. Put together when the first upstream asks for it.
pub(super) struct Trust<'a> {
    /// DER; empty: the public authorities.
    ca: &'a [Arc<[u8]>],
    roots: OnceCell<Result<Arc<RootCertStore>, rustls::Error>>,
}

impl<'a> Trust<'a> {
    pub(super) fn new(ca: &'a [Arc<[u8]>]) -> Self {
        Self { ca, roots: OnceCell::new() }
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, rustls::Error> {
        let read = || {
            if self.ca.is_empty() {
                return Ok(Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }));
            }
            let mut store = RootCertStore::empty();
            self.ca.iter().try_for_each(|certificate| store.add(CertificateDer::from(&**certificate)))?;
            Ok(Arc::new(store))
        };
        self.roots.get_or_init(read).clone()
    }
}

/// How to come to TLS with one upstream. What it resumes sessions with is its own.
pub(super) struct Tls {
    /// The error cannot be: the decoder has seen every certificate.
    config: Result<Arc<ClientConfig>, rustls::Error>,
    name: ServerName<'static>,
}

impl Tls {
    /// `name`: in its certificate; `None`: its address is.
    pub(super) fn new(name: Option<HostName>, address: IpAddr, alpn: &[u8], trust: &Trust<'_>) -> Self {
        let name = name.and_then(|name| ServerName::try_from(name.as_str().to_owned()).ok()).unwrap_or_else(|| address.into());
        Self { config: config(alpn, trust).map(Arc::new), name }
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let config = self.config.as_ref().map_err(ToString::to_string)?;
        let connector = TlsConnector::from(config.clone());
        connector.connect(self.name.clone(), stream).await.map_err(|error| tls_message(&error))
    }
}

/// TLS 1.2 and 1.3; no early data, which others could send again.
fn config(alpn: &[u8], trust: &Trust<'_>) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trust.roots()?)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::in_memory_sessions(TICKETS);
    Ok(config)
}

fn tls_message(error: &io::Error) -> String {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => "does not speak TLS".to_owned(),
        _ => format!("TLS: {error}"),
    }
}
