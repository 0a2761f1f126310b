//! The gRPC service: moves messages between a connection and the stream's state machine.
//!
//! Which workload a connection speaks for is known before its first byte: each sidecar has a Unix socket of its own, in a directory
//! that only the control plane's user can enter. What a node says of itself is compared with that and decides nothing.

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use ringfence_xds::generated::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Fleet, OpenError, Session};

/// A request subscribes to at most 65,536 names of at most 512 bytes; ordinary ones have hundreds of bytes.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Responses on their way into one connection; more wait in the state machine, where they coalesce.
const RESPONSES_IN_FLIGHT: usize = 4;
/// Streams per connection: a sidecar needs one.
const MAX_STREAMS: u32 = 4;

/// The service as one listener offers it.
#[derive(Clone)]
struct Ads {
    fleet: Arc<Fleet>,
    /// The workload whose socket this is; `None` on a plaintext TCP listener, where a node is believed.
    bound_to: Option<Arc<str>>,
}

/// Serves the sidecar of `workload` on the Unix socket `path`, until the task is dropped.
pub fn serve_unix(fleet: Arc<Fleet>, workload: &str, path: &Path) -> io::Result<impl Future<Output = ()> + use<>> {
    // Left by an earlier run that was killed: nobody else can have put it into our directory.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let ads = Ads { fleet, bound_to: Some(workload.into()) };
    Ok(async move {
        // The incoming stream never ends and its errors are those of single connections.
        let _ = ads.server().serve_with_incoming(UnixListenerStream::new(listener)).await;
    })
}

/// Serves every sidecar without authentication: any process that can connect can read any workload's policy. Loopback only.
pub fn serve_dangerous_plaintext(fleet: Arc<Fleet>, listener: TcpListener) -> io::Result<impl Future<Output = ()> + use<>> {
    if !listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "plaintext ADS is for loopback addresses only"));
    }
    let ads = Ads { fleet, bound_to: None };
    Ok(async move {
        let _ = ads.server().serve_with_incoming(TcpListenerStream::new(listener)).await;
    })
}

impl Ads {
    fn server(self) -> tonic::transport::server::Router {
        let service = AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES);
        tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_pending_accept_reset_streams(Some(16))
            .add_service(service)
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
            if let Err(status) = run(fleet, bound_to, request.into_inner(), &sender).await {
                // Nobody listens any more if this fails.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

type Sender = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// How long a new stream may take to introduce itself.
const INTRODUCTION: Duration = Duration::from_secs(10);

async fn run(
    fleet: Arc<Fleet>,
    bound_to: Option<Arc<str>>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    sender: &Sender,
) -> Result<(), Status> {
    let first =
        tokio::time::timeout(INTRODUCTION, requests.message()).await.map_err(|_| Status::deadline_exceeded("no request came"))??;
    let Some(first) = first else { return Ok(()) };
    let session = fleet.open(bound_to.as_deref(), &first).map_err(|error| match error {
        OpenError::Stream(error) => Status::invalid_argument(error.to_string()),
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
