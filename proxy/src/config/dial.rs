//! Connections to the control plane: how each kind is made, and how it is noticed that one has died.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use ringfence_policy::{SpiffeId, TrustBundle};
use ringfence_xds::trust::{self, Expected, Svid};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that says nothing for this long is asked (HTTP/2 PING), and has the second to answer: one that hangs or is cut off is noticed
/// within their sum, 20 s.
const ASK_AFTER: Duration = Duration::from_secs(15);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What is sent and not acknowledged for this long ends a TCP connection (tcp(7)).
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
const ALPN: &[u8] = b"h2";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("connecting took longer than {} s", CONNECT_TIMEOUT.as_secs())]
    Slow,
    /// Of the socket, or of TLS: then it says what was wrong with the peer.
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
    Http(String),
}

impl DialError {
    /// The trust bundle does not vouch for what the peer showed.
    pub fn is_distrust(&self) -> bool {
        let Self::Io(error) = self else { return false };
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
    }
}

pub async fn unix(path: &Path) -> Result<Channel, DialError> {
    in_time(async { channel(UnixStream::connect(path).await?).await }).await
}

pub async fn plaintext(address: SocketAddr) -> Result<Channel, DialError> {
    in_time(async { channel(prepared(TcpStream::connect(address).await?)?).await }).await
}

/// Over TLS 1.3 to whoever `bundle` vouches for as the control plane, and the certificates that it showed. `svid`: who we are there;
/// without one we have no identity.
pub async fn tls(address: &str, bundle: &TrustBundle, svid: Option<&Svid>) -> Result<(Channel, Vec<CertificateDer<'static>>), DialError> {
    let expected = Expected::Id(SpiffeId::control_plane(&bundle.trust_domain));
    let connector = TlsConnector::from(std::sync::Arc::new(trust::client_config(bundle, svid, expected, &[ALPN])?));
    in_time(async {
        let stream = prepared(TcpStream::connect(address).await?)?;
        // It is not told, and the peer is not known by it.
        let stream = connector.connect(ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4]))), stream).await?;
        let peer = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = peer.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok((channel(stream).await?, peer))
    })
    .await
}

async fn in_time<T>(connecting: impl Future<Output = Result<T, DialError>>) -> Result<T, DialError> {
    timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| DialError::Slow)?
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    // Small messages both ways: each would wait for the acknowledgement of the one before, some 40 ms (RFC 896).
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ANSWER_WITHIN))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

/// HTTP/2 on this stream, and on no other: a channel that has lost it is of no more use.
async fn channel(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Channel, DialError> {
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    // The URI only fills :scheme and :authority.
    let endpoint = Endpoint::from_static("http://control-plane")
        .http2_keep_alive_interval(ASK_AFTER)
        .keep_alive_timeout(ANSWER_WITHIN)
        .keep_alive_while_idle(true);
    endpoint.connect_with_connector(once).await.map_err(|error| DialError::Http(innermost(&error)))
}

/// With its cause, where it came of the connection: tonic says "transport error".
pub fn describe(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.code(), innermost(source)),
        None => format!("{}: {}", status.code(), status.message()),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
