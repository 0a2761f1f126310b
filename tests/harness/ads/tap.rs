//! Stands between a sidecar and the control plane: keeps what the sidecar says, and changes what it hears where a scenario wants that.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{StreamExt, stream::BoxStream};
use ringfence_xds::generated::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::stream::{Place, connect};
use crate::http::{RUNTIME, block_on};

type Alter = Arc<dyn Fn(&mut DeltaDiscoveryResponse) + Send + Sync>;

pub struct Tap {
    /// Where the sidecar is to connect, in plaintext.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<DeltaDiscoveryRequest>>>,
}

#[derive(Clone)]
struct Relay {
    control_plane: SocketAddr,
    requests: Arc<Mutex<Vec<DeltaDiscoveryRequest>>>,
    alter: Alter,
}

impl Tap {
    pub fn new(control_plane: SocketAddr) -> Self {
        Self::altering(control_plane, |_| {})
    }

    pub fn altering(control_plane: SocketAddr, alter: impl Fn(&mut DeltaDiscoveryResponse) + Send + Sync + 'static) -> Self {
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::default();
        let relay = Relay { control_plane, requests: Arc::clone(&requests), alter: Arc::new(alter) };
        let server = Server::builder().add_service(AggregatedDiscoveryServiceServer::new(relay));
        RUNTIME.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, requests }
    }

    /// What the sidecar has said so far.
    pub fn requests(&self) -> Vec<DeltaDiscoveryRequest> {
        self.requests.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relay {
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (requests, alter) = (self.requests.clone(), self.alter.clone());
        let outbound = request.into_inner().filter_map(|request| std::future::ready(request.ok()));
        let outbound = outbound.inspect(move |request| requests.lock().unwrap().push(request.clone()));
        let channel = connect(Place::Tcp(self.control_plane), Arc::default()).await;
        let inbound = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(outbound).await?.into_inner();
        let altered = inbound.map(move |response| {
            response.map(|mut response| {
                alter(&mut response);
                response
            })
        });
        Ok(Response::new(altered.boxed()))
    }
}
