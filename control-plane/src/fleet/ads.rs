//! The gRPC service: moves messages between a connection and the stream's state machine.
//!
//! Which workload a connection speaks for is known before its first request: by the SVID of its handshake, or by the Unix socket that each
//! sidecar has of its own, which only the control plane's user can open. What a node says of itself is compared with that and decides nothing.

use std::{collections::VecDeque, io, os::unix::fs::FileTypeExt, path::Path, sync::Arc, time::Duration};

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use ringfence_xds::generated::{
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    resource::certificate_authority_server::CertificateAuthorityServer,
};
use rustix::{fs::Mode, net};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    Bound, Fleet, OpenError, Session,
    accept::{self, Connection},
    tls,
};
use crate::trust::{Caller, Issuing, Trust};

/// A request subscribes to at most 65,536 names of at most 512 bytes; ordinary ones have hundreds of bytes.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// A request for a certificate.
const MAX_ISSUE_BYTES: usize = 16 * 1024;
/// A call's method, path and metadata.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams per connection: a sidecar needs one.
const MAX_STREAMS: u32 = 4;
/// Connections to one workload's socket at a time: its sidecars, and those that they take over from.
const MAX_CONNECTIONS: usize = 16;
/// Of all sidecars, where they share a port.
const MAX_PLAINTEXT_CONNECTIONS: usize = 16_384;
/// How long a new stream may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// A connection's window (RFC 9113 §6.9): what may come before it is read.
const WINDOW_BYTES: u32 = 65_535;

/// The service as one listener offers it.
#[derive(Clone)]
struct Ads {
    fleet: Arc<Fleet>,
    callers: Callers,
}

/// How a listener knows its callers.
#[derive(Clone)]
enum Callers {
    /// Only they can open it.
    Known(Bound),
    /// By their SVIDs.
    Proven(Arc<Trust>),
}

/// Serves the sidecar of `workload` on the Unix socket `path`, until the task is dropped.
pub fn serve_unix(fleet: Arc<Fleet>, workload: &str, path: &Path) -> io::Result<impl Future<Output = ()> + use<>> {
    let ads = Ads { fleet, callers: Callers::Known(Bound::Workload(workload.into())) };
    let connections = accept::connections(bind(path)?, MAX_CONNECTIONS);
    Ok(ads.serve(None, connections))
}

/// Serves whoever connects by TLS 1.3: the sidecars by their SVIDs, and whoever proves to be one with an SVID.
pub async fn serve_tls(fleet: Arc<Fleet>, trust: Arc<Trust>, listener: TcpListener) {
    let connections = tls::connections(listener, &trust);
    let authority = CertificateAuthorityServer::new(Issuing::new(trust.clone())).max_decoding_message_size(MAX_ISSUE_BYTES);
    Ads { fleet, callers: Callers::Proven(trust) }.serve(Some(authority), connections).await;
}

/// Serves every sidecar without authentication: any process that can connect can read any workload's policy. Loopback only.
pub fn serve_dangerous_plaintext(fleet: Arc<Fleet>, listener: TcpListener) -> io::Result<impl Future<Output = ()> + use<>> {
    if !listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "plaintext ADS is for loopback addresses only"));
    }
    let connections = accept::connections(listener, MAX_PLAINTEXT_CONNECTIONS);
    Ok(Ads { fleet, callers: Callers::Known(Bound::Nothing) }.serve(None, connections))
}

/// Binds a socket that this user alone can open, in place of one that nobody serves any more.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there, and no socket"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket =
        net::socket_with(net::AddressFamily::UNIX, net::SocketType::STREAM, net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK, None)?;
    // Before it is bound: the file is made with the socket's own mode (unix(7)), and is at no time open to others.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &net::SocketAddrUnix::new(path)?)?;
    net::listen(&socket, 128)?;
    UnixListener::from_std(socket.into())
}

fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(16))
}

impl Ads {
    async fn serve<I, C>(
        self,
        authority: Option<CertificateAuthorityServer<Issuing>>,
        connections: impl Stream<Item = io::Result<Connection<I, C>>>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Clone + Send + Sync + Unpin + 'static,
    {
        let service = AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES);
        // The connections never end, and each keeps its errors to itself.
        let _ = server().add_service(service).add_optional_service(authority).serve_with_incoming(connections).await;
    }

    /// What the caller's stream is bound to.
    fn bound(&self, request: &Request<Streaming<DeltaDiscoveryRequest>>) -> Result<Bound, Status> {
        match &self.callers {
            Callers::Known(bound) => Ok(bound.clone()),
            Callers::Proven(trust) => {
                let peer = request.extensions().get::<Caller>().and_then(|caller| trust.live(caller));
                peer.map(Bound::Peer).ok_or_else(|| Status::unauthenticated("a live X.509-SVID must be shown"))
            }
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (fleet, bound) = (self.fleet.clone(), self.bound(&request)?);
        let exchange = Exchange { fleet, bound, requests: request.into_inner(), session: None, due: VecDeque::new() };
        let responses = stream::try_unfold(exchange, async |mut exchange| {
            let response = exchange.next().await?;
            Ok(response.map(|response| (response, exchange)))
        });
        Ok(Response::new(responses.boxed()))
    }
}

/// One stream, driven by whoever sends its responses: it has no task and no queue of its own, and ends with its connection. While the
/// sidecar does not take what it is sent, nothing more is read from it.
struct Exchange {
    fleet: Arc<Fleet>,
    bound: Bound,
    requests: Streaming<DeltaDiscoveryRequest>,
    /// `None`: the first request has not come yet.
    session: Option<Session>,
    due: VecDeque<DeltaDiscoveryResponse>,
}

impl Exchange {
    /// The next response; `None`: the sidecar ended the stream.
    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        loop {
            if let Some(response) = self.due.pop_front() {
                return Ok(Some(response));
            }
            match &self.session {
                None => {
                    let Some(first) = introduction(&mut self.requests).await? else { return Ok(None) };
                    let session = self.fleet.open(&self.bound, &first)?;
                    self.due.extend(session.receive(first).map_err(OpenError::Stream)?);
                    self.session = Some(session);
                }
                Some(session) => tokio::select! {
                    request = self.requests.message() => match request? {
                        Some(request) => self.due.extend(session.receive(request).map_err(OpenError::Stream)?),
                        None => return Ok(None),
                    },
                    () = session.wake.notified() => self.due.extend(session.woken()?),
                },
            }
        }
    }
}

async fn introduction(requests: &mut Streaming<DeltaDiscoveryRequest>) -> Result<Option<DeltaDiscoveryRequest>, Status> {
    let first = tokio::time::timeout(INTRODUCTION, requests.message()).await;
    first.map_err(|_| Status::deadline_exceeded("no request came"))?
}

impl From<OpenError> for Status {
    fn from(error: OpenError) -> Self {
        let message = error.to_string();
        match error {
            OpenError::Stream(_) | OpenError::Node => Status::invalid_argument(message),
            OpenError::Foreign => Status::permission_denied(message),
            OpenError::Closing => Status::unavailable(message),
        }
    }
}
