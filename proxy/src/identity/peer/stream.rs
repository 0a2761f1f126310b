//! A connection to a peer, over TLS that shows this sidecar's SVID.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ringfence_policy::SpiffeId;
use ringfence_xds::trust::{Expected, PeerError, client_config};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Credentials, GRACE, Peer};
use crate::config::Current;

/// Octets both ways until the peer is distrusted, or its SVID has expired for too long: then it breaks, whoever holds it and whatever is
/// under way.
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    expires: Instant,
    /// `None`: it has resolved.
    distrusted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Why a peer that was to be somewhere is not spoken with.
#[derive(Debug, thiserror::Error)]
pub enum NotAPeer {
    /// Of TLS: no SVID, another's, one that nobody vouches for, or no TLS at all.
    #[error("handshake: {0}")]
    Handshake(#[from] io::Error),
    #[error("the bundle or the SVID cannot be used: {0}")]
    Credentials(#[from] rustls::Error),
    #[error("its certificate: {0}")]
    Certificate(#[from] PeerError),
    #[error("it does not agree to {0}")]
    Protocol(&'static str),
}

impl PeerStream {
    /// Begins TLS on `stream` with `expected` and nobody else. `alpn`: what is to be spoken (RFC 7301).
    pub async fn connect(
        stream: TcpStream,
        expected: &SpiffeId,
        alpn: &'static str,
        credentials: &Credentials,
        current: &Arc<Current>,
    ) -> Result<Self, NotAPeer> {
        let Credentials { svid, bundle } = credentials;
        let config = client_config(bundle, Some(svid), Expected::Id(expected.clone()), &[alpn.as_bytes()])?;
        // Neither sent nor looked at: a peer is who its SVID says.
        let name = ServerName::from(stream.peer_addr()?.ip());
        let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let session = tls.get_ref().1;
        if session.alpn_protocol() != Some(alpn.as_bytes()) {
            return Err(NotAPeer::Protocol(alpn));
        }
        let peer = Peer::of(session)?;
        let (expires, current) = (peer.expires(), current.clone());
        let distrusted = async move {
            tokio::select! {
                () = peer.distrusted(&current) => {}
                () = sleep_until(expires + GRACE) => {}
            }
        };
        Ok(Self { tls, expires, distrusted: Some(Box::pin(distrusted)) })
    }

    /// When the SVID expires that the peer has shown.
    pub fn expires(&self) -> Instant {
        self.expires
    }

    fn poll_distrusted(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let is_distrusted = match &mut self.distrusted {
            Some(distrusted) => distrusted.as_mut().poll(cx).is_ready(),
            None => true,
        };
        if !is_distrusted {
            return Ok(());
        }
        self.distrusted = None;
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer is believed no longer"))
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_distrusted(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_distrusted(cx)?;
        Pin::new(&mut self.tls).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_distrusted(cx)?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
