//! A delta stream that a test drives message by message, with every octet that comes in on its connection kept.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use ringfence_xds::{
    generated::discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    resource::Kind,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    http::{RUNTIME, block_on},
    wait::DEADLINE,
};

type Octets = Arc<Mutex<Vec<u8>>>;

pub struct Stream {
    node: String,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: mpsc::Receiver<Result<DeltaDiscoveryResponse, Status>>,
    octets: Octets,
    introduced: bool,
}

/// A request that subscribes to these names.
pub fn subscribe(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

impl Stream {
    /// On a workload's own socket, as `node`.
    pub fn unix(socket: &Path, node: &str) -> Self {
        let octets = Octets::default();
        Self::open(block_on(connect(Place::Unix(socket.into()), octets.clone())), octets, node)
    }

    /// On the plaintext port.
    pub fn plaintext(address: SocketAddr, node: &str) -> Self {
        let octets = Octets::default();
        Self::open(block_on(connect(Place::Tcp(address), octets.clone())), octets, node)
    }

    fn open(channel: Channel, octets: Octets, node: &str) -> Self {
        let (requests, outbound) = mpsc::channel(16);
        let (inbound, responses) = mpsc::channel(16);
        RUNTIME.spawn(async move {
            let mut client = AggregatedDiscoveryServiceClient::new(channel);
            let mut stream = match client.delta_aggregated_resources(ReceiverStream::new(outbound)).await {
                Ok(response) => response.into_inner(),
                Err(status) => return drop(inbound.send(Err(status)).await),
            };
            while let Some(response) = stream.message().await.transpose() {
                if inbound.send(response).await.is_err() {
                    return;
                }
            }
        });
        Self { node: node.into(), requests, responses, octets, introduced: false }
    }

    /// The first request carries the node.
    #[track_caller]
    pub fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        if !std::mem::replace(&mut self.introduced, true) {
            request.node = Some(Node { id: self.node.clone(), ..Node::default() });
        }
        block_on(self.requests.send(request)).expect("the stream is open");
    }

    /// The next response, or why the stream ended.
    #[track_caller]
    pub fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        block_on(self.responses.recv()).expect("the stream has not ended")
    }

    /// The next response, acknowledged.
    #[track_caller]
    pub fn accept(&mut self) -> DeltaDiscoveryResponse {
        let response = self.next().expect("a response");
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        });
        response
    }

    /// Subscribes, and acknowledges what comes for it.
    #[track_caller]
    pub fn ask(&mut self, kind: Kind, names: &[&str]) -> DeltaDiscoveryResponse {
        self.send(subscribe(kind, names));
        self.accept()
    }

    /// Everything that the connection has brought.
    pub fn octets(&self) -> Vec<u8> {
        self.octets.lock().unwrap().clone()
    }
}

#[derive(Clone)]
pub(super) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

pub(super) async fn connect(place: Place, octets: Octets) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let (place, octets) = (place.clone(), octets.clone());
        async move {
            let inner: Box<dyn Duplex> = match place {
                Place::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Place::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            };
            Ok::<_, io::Error>(TokioIo::new(Kept { inner, octets }))
        }
    });
    let endpoint = Endpoint::from_static("http://control-plane");
    timeout(DEADLINE, endpoint.connect_with_connector(connector)).await.expect("connects in time").expect("the control plane accepts")
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that keeps what it reads.
struct Kept {
    inner: Box<dyn Duplex>,
    octets: Octets,
}

impl AsyncRead for Kept {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *self.inner).poll_read(context, buffer);
        self.octets.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Kept {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(context, octets)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(context)
    }
}
