//! Small servers over TLS: one request for each connection, some connections at a time, each within its time.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ConfigBuilder, ServerConfig,
    server::{NoServerSessionStorage, WantsServerCert},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// From the first octet of the handshake to the last of the answer.
const WITHIN: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the process may have descriptors again.
const PAUSE: Duration = Duration::from_millis(100);

/// What one server grants its clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Served at a time; more wait in the kernel's queue.
    pub(crate) connections: usize,
    /// Of a request's head.
    pub(crate) head_bytes: usize,
}

/// HTTP/1.1 over TLS 1.2 and 1.3, to clients without certificates, with the certificate that `with_certificate` gives. Sessions are not
/// resumed: each connection is of one request.
pub(crate) fn tls(
    with_certificate: impl FnOnce(ConfigBuilder<ServerConfig, WantsServerCert>) -> Result<ServerConfig, rustls::Error>,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut tls = with_certificate(builder)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Binds, and answers with `answer` until the future is dropped.
pub(crate) async fn serve<F>(
    listen: SocketAddr,
    acceptor: TlsAcceptor,
    limits: Limits,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> io::Result<(SocketAddr, impl Future<Output = ()> + Send)>
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await?;
    let bound = listener.local_addr()?;
    let serving = async move {
        let room = Arc::new(Semaphore::new(limits.connections));
        while let Ok(permit) = room.clone().acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                // A connection's failure concerns its client alone.
                let _ = timeout(WITHIN, converse(stream, &acceptor, limits, answer)).await;
                drop(permit);
            });
        }
    };
    Ok((bound, serving))
}

async fn converse<F>(stream: TcpStream, acceptor: &TlsAcceptor, limits: Limits, answer: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Response<Full<Bytes>>>,
{
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(limits.head_bytes).keep_alive(false);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}
