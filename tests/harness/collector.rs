//! An OTLP collector: keeps the spans that it is sent.

use std::{net::SocketAddr, sync::mpsc};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    http::{RUNTIME, block_on},
    wait::DEADLINE,
};

pub struct Collector {
    pub address: SocketAddr,
    spans: mpsc::Receiver<Span>,
}

struct Service(mpsc::Sender<Span>);

impl Default for Collector {
    fn default() -> Self {
        Self::start()
    }
}

impl Collector {
    pub fn start() -> Self {
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, spans) = mpsc::channel();
        let server = Server::builder().add_service(TraceServiceServer::new(Service(sender)));
        RUNTIME.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, spans }
    }

    /// The next span to arrive.
    #[track_caller]
    pub fn span(&self) -> Span {
        self.spans.recv_timeout(DEADLINE).expect("a span in time")
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        // Nobody looks any more, if this fails.
        spans.for_each(|span| drop(self.0.send(span)));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
