//! The gRPC service: moves messages between a connection and the stream's state machine.
//!
//! Which workload a connection speaks for is known before its first byte: each sidecar has a Unix socket of its own, which only the
//! control plane's user can open. What a node says of itself is compared with that and decides nothing.

use std::{io, os::unix::fs::FileTypeExt, path::Path, sync::Arc, time::Duration};

use ringfence_xds::generated::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use rustix::{fs::Mode, net};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Fleet, OpenError, Session,
    accept::{self, Accept},
};

/// A request subscribes to at most 65,536 names of at most 512 bytes; ordinary ones have hundreds of bytes.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// A call's method, path and metadata.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Responses on their way into one connection; more wait in the state machine, where they coalesce.
const RESPONSES_IN_FLIGHT: usize = 4;
/// Streams per connection: a sidecar needs one.
const MAX_STREAMS: u32 = 4;
/// Connections to one workload's socket at a time: its sidecars, and those that they take over from.
const MAX_CONNECTIONS: usize = 16;
/// Of all sidecars, where they share a port.
const MAX_PLAINTEXT_CONNECTIONS: usize = 16_384;
/// How long a new stream may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// The service as one listener offers it.
#[derive(Clone)]
struct Ads {
    fleet: Arc<Fleet>,
    /// The workload whose socket this is; `None` on a plaintext TCP listener, where a node is believed.
    bound_to: Option<Arc<str>>,
}

/// Serves the sidecar of `workload` on the Unix socket `path`, until the task is dropped.
pub fn serve_unix(fleet: Arc<Fleet>, workload: &str, path: &Path) -> io::Result<impl Future<Output = ()> + use<>> {
    let ads = Ads { fleet, bound_to: Some(workload.into()) };
    Ok(ads.serve(bind(path)?, MAX_CONNECTIONS))
}

/// Serves every sidecar without authentication: any process that can connect can read any workload's policy. Loopback only.
pub fn serve_dangerous_plaintext(fleet: Arc<Fleet>, listener: TcpListener) -> io::Result<impl Future<Output = ()> + use<>> {
    if !listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "plaintext ADS is for loopback addresses only"));
    }
    Ok(Ads { fleet, bound_to: None }.serve(listener, MAX_PLAINTEXT_CONNECTIONS))
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

impl Ads {
    async fn serve(self, listener: impl Accept, max_connections: usize) {
        let service = AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES);
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http2_max_pending_accept_reset_streams(Some(16))
            .add_service(service);
        // The connections never end, and each keeps its errors to itself.
        let _ = server.serve_with_incoming(accept::connections(listener, max_connections)).await;
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
        let (fleet, bound_to) = (self.fleet.clone(), self.bound_to.clone());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = run(&fleet, bound_to, request.into_inner(), &sender) => outcome,
                () = fleet.closed() => Err(Status::unavailable("the control plane ends")),
                // Also while nothing is sent: a request that is never finished must not keep the session.
                () = sender.closed() => Ok(()),
            };
            if let Err(status) = outcome {
                // Not awaited: a client that reads nothing learns nothing.
                let _ = sender.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

type Sender = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

async fn run(
    fleet: &Arc<Fleet>,
    bound_to: Option<Arc<str>>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    sender: &Sender,
) -> Result<(), Status> {
    let first =
        tokio::time::timeout(INTRODUCTION, requests.message()).await.map_err(|_| Status::deadline_exceeded("no request came"))??;
    let Some(first) = first else { return Ok(()) };
    let session = fleet.open(bound_to.as_deref(), &first).map_err(|error| match error {
        OpenError::Stream(_) | OpenError::Node => Status::invalid_argument(error.to_string()),
        OpenError::Foreign => Status::permission_denied(error.to_string()),
    })?;
    answer(&session, first, sender).await?;
    loop {
        tokio::select! {
            request = requests.message() => match request? {
                Some(request) => answer(&session, request, sender).await?,
                None => return Ok(()),
            },
            () = session.wake.notified() => send(session.due(), sender).await?,
        }
    }
}

async fn answer(session: &Session, request: DeltaDiscoveryRequest, sender: &Sender) -> Result<(), Status> {
    let responses = session.receive(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
    send(responses, sender).await
}

async fn send(responses: Vec<DeltaDiscoveryResponse>, sender: &Sender) -> Result<(), Status> {
    for response in responses {
        sender.send(Ok(response)).await.map_err(|_| Status::cancelled("the sidecar went away"))?;
    }
    Ok(())
}
