use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue as ProtoKeyValue, any_value::Value},
    trace::v1::{Span as ProtoSpan, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const DEADLINE: Duration = Duration::from_secs(30);

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn without_an_endpoint_a_valid_context_passes_untouched() {
    let future = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
    let (most, more) = ("a=".to_owned() + &"x".repeat(510), "a=".to_owned() + &"x".repeat(511));
    for (sent, passed, trace_id) in [
        (vec![], vec![], None),
        (vec![("traceparent", SAMPLED), ("accept", "*/*")], vec![("traceparent", SAMPLED), ("accept", "*/*")], Some(TRACE)),
        (vec![("traceparent", UNSAMPLED)], vec![("traceparent", UNSAMPLED)], Some(TRACE)),
        (vec![("traceparent", future)], vec![("traceparent", future)], Some(TRACE)),
        (vec![("traceparent", "00-0-0-01"), ("tracestate", "a=b")], vec![], None),
        (vec![("traceparent", SAMPLED), ("traceparent", UNSAMPLED), ("tracestate", "a=b")], vec![], None),
        (vec![("tracestate", "a=b")], vec![], None),
        (
            vec![("traceparent", SAMPLED), ("tracestate", "a=b"), ("tracestate", "c=d")],
            vec![("traceparent", SAMPLED), ("tracestate", "a=b"), ("tracestate", "c=d")],
            Some(TRACE),
        ),
        (vec![("traceparent", SAMPLED), ("tracestate", &most)], vec![("traceparent", SAMPLED), ("tracestate", &most)], Some(TRACE)),
        (vec![("traceparent", SAMPLED), ("tracestate", &more)], vec![("traceparent", SAMPLED)], Some(TRACE)),
        (vec![("traceparent", SAMPLED), ("tracestate", "a=é")], vec![("traceparent", SAMPLED)], Some(TRACE)),
        (vec![("traceparent", SAMPLED), ("baggage", "tenant=acme"), ("baggage", "b=c")], vec![("traceparent", SAMPLED)], Some(TRACE)),
    ] {
        let mut upstream = headers(&sent);
        let trace = Tracing::off().start(&upstream, &Method::GET);
        trace.inject(&mut upstream);
        assert_eq!(upstream, headers(&passed), "{sent:?}");
        assert_eq!(trace.trace_id().map(|id| id.to_string()).as_deref(), trace_id, "{sent:?}");
        assert!(trace.span.is_none());
        trace.finish(Some(StatusCode::OK), None);
    }
}

#[tokio::test]
async fn a_config_that_cannot_work_is_refused() {
    for (endpoint, root_ratio, expected) in [
        ("http://127.0.0.1:4317", 1.5, "the traces' root ratio must be between 0 and 1, is 1.5"),
        ("http://127.0.0.1:4317", f64::NAN, "the traces' root ratio must be between 0 and 1, is NaN"),
        ("https://127.0.0.1:4317", 1.0, "the traces' endpoint must be http://host:port, is \"https://127.0.0.1:4317\""),
        ("http://127.0.0.1", 1.0, "the traces' endpoint must be http://host:port, is \"http://127.0.0.1\""),
        ("http://", 1.0, "the traces' endpoint must be http://host:port, is \"http://\""),
        ("127.0.0.1:4317", 1.0, "the traces' endpoint must be http://host:port, is \"127.0.0.1:4317\""),
        ("/v1/traces", 1.0, "the traces' endpoint must be http://host:port, is \"/v1/traces\""),
        ("", 1.0, "the traces' endpoint must be http://host:port, is \"\""),
    ] {
        let error = Tracing::new(&TracingConfig { endpoint: endpoint.into(), root_ratio }, &Metrics::new()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector on a port of its own, and what it receives.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (received, receiver) = mpsc::unbounded_channel();
    let service = TraceServiceServer::new(Collector(received));
    tokio::spawn(Server::builder().serve_with_incoming(service, TcpListenerStream::new(listener)));
    (address, receiver)
}

fn to(address: SocketAddr, root_ratio: f64, metrics: &Metrics) -> Tracing {
    Tracing::new(&TracingConfig { endpoint: format!("http://{address}"), root_ratio }, metrics).unwrap()
}

/// Ends `tracing` off the runtime's thread, as its contract asks.
async fn end(tracing: Tracing) -> OTelSdkResult {
    tokio::task::spawn_blocking(move || tracing.shutdown(DEADLINE)).await.unwrap()
}

fn attributes(attributes: &[ProtoKeyValue]) -> Vec<(&str, Value)> {
    let mut pairs: Vec<_> = attributes.iter().map(|pair| (pair.key.as_str(), pair.value.clone().unwrap().value.unwrap())).collect();
    pairs.sort_by_key(|(key, _)| *key);
    pairs
}

fn text(text: &str) -> Value {
    Value::StringValue(text.into())
}

#[tokio::test]
async fn spans_keep_their_parents_and_tell_nothing_of_a_tenant() {
    let (address, mut received) = collector().await;
    let tracing = to(address, 1.0, &Metrics::new());

    let mut child_headers = headers(&[
        ("traceparent", SAMPLED),
        ("tracestate", "vendor=acme"),
        ("baggage", "tenant=acme"),
        ("x-ringfence-tenant", "acme"),
        ("host", "acme.example"),
    ]);
    let child = tracing.start(&child_headers, &Method::GET);
    child.inject(&mut child_headers);
    assert_eq!(child.trace_id().unwrap().to_string(), TRACE);
    child.finish(Some(StatusCode::TOO_MANY_REQUESTS), Some(Reason::RateLimited));

    let mut root_headers = headers(&[("traceparent", "00-acme"), ("tracestate", "vendor=acme")]);
    let root = tracing.start(&root_headers, &Method::from_bytes(b"ACME").unwrap());
    root.inject(&mut root_headers);
    let root_trace = root.trace_id().unwrap();
    root.finish(Some(StatusCode::BAD_GATEWAY), Some(Reason::UpstreamConnect));

    let unsampled = tracing.start(&headers(&[("traceparent", UNSAMPLED)]), &Method::GET);
    assert!(unsampled.span.is_none());
    unsampled.finish(Some(StatusCode::OK), None);
    drop(tracing.start(&HeaderMap::new(), &Method::POST));
    end(tracing).await.unwrap();

    let export = received.recv().await.unwrap();
    let bytes = export.encode_to_vec();
    for secret in [&b"acme"[..], b"ACME"] {
        assert!(memchr::memmem::find(&bytes, secret).is_none(), "{export:?}");
    }
    let [resource] = &export.resource_spans[..] else { panic!("{export:?}") };
    let of_resource = &resource.resource.as_ref().unwrap().attributes;
    let version = text(env!("CARGO_PKG_VERSION"));
    assert_eq!(attributes(of_resource), [("service.name", text("ringfence-proxy")), ("service.version", version)]);
    let spans: Vec<&ProtoSpan> = resource.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    let [child, root, dropped] = &spans[..] else { panic!("{spans:?}") };

    // What went upstream names the span that was exported, and that one names the caller's.
    let upstream = Traceparent::parse(child_headers[TRACEPARENT].as_bytes()).unwrap();
    assert_eq!((upstream.trace_id.to_string().as_str(), upstream.sampled), (TRACE, true));
    assert_eq!(child.trace_id, upstream.trace_id.to_bytes());
    assert_eq!(child.span_id, upstream.parent_id.to_bytes());
    assert_eq!(child.parent_span_id, 0x00f067aa0ba902b7_u64.to_be_bytes());
    assert_eq!(child_headers["tracestate"], "vendor=acme");
    assert!(!child_headers.contains_key("baggage"));
    assert_eq!((child.name.as_str(), child.kind()), ("GET", SpanKind::Server));
    assert_eq!(
        attributes(&child.attributes),
        [
            ("http.request.method", text("GET")),
            ("http.response.status_code", Value::IntValue(429)),
            ("ringfence.reason", text("rate_limited"))
        ]
    );

    let upstream = Traceparent::parse(root_headers[TRACEPARENT].as_bytes()).unwrap();
    assert_eq!((root.trace_id.as_slice(), root.span_id.as_slice()), (&root_trace.to_bytes()[..], &upstream.parent_id.to_bytes()[..]));
    assert_eq!(upstream.trace_id, root_trace);
    assert!(root.parent_span_id.is_empty() && !root_headers.contains_key("tracestate"));
    assert_eq!((root.name.as_str(), root.status.as_ref().unwrap().code()), ("HTTP", SpanStatus::Error));
    assert_eq!(
        attributes(&root.attributes),
        [
            ("http.request.method", text("_OTHER")),
            ("http.response.status_code", Value::IntValue(502)),
            ("ringfence.reason", text("upstream_connect"))
        ]
    );
    assert_eq!(attributes(&dropped.attributes), [("http.request.method", text("POST"))]);
}

#[tokio::test]
async fn the_root_ratio_decides_only_where_a_trace_begins() {
    let (address, mut received) = collector().await;
    let tracing = to(address, 0.0, &Metrics::new());
    let mut upstream = HeaderMap::new();
    let root = tracing.start(&upstream, &Method::GET);
    root.inject(&mut upstream);
    let told = Traceparent::parse(upstream[TRACEPARENT].as_bytes()).unwrap();
    assert_eq!((Some(told.trace_id), told.sampled), (root.trace_id(), false));
    drop(root);
    tracing.start(&headers(&[("traceparent", SAMPLED)]), &Method::GET).finish(None, None);
    end(tracing).await.unwrap();
    let export = received.recv().await.unwrap();
    let spans: Vec<_> = export.resource_spans.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].parent_span_id, 0x00f067aa0ba902b7_u64.to_be_bytes());
}

#[tokio::test]
async fn a_collector_that_is_away_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let metrics = Metrics::new();
    let tracing = to(address, 1.0, &metrics);
    tracing.start(&HeaderMap::new(), &Method::GET).finish(Some(StatusCode::OK), None);
    end(tracing).await.unwrap();
    assert_eq!(metrics.trace_export_errors.get(), 1);
}

#[test]
fn the_libraries_own_events_stay_disabled() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    let tracing = to(([127, 0, 0, 1], 1).into(), 1.0, &Metrics::new());
    let exporting = tracing.0.as_ref().unwrap();
    dispatcher::with_default(&exporting.dispatch, || {
        assert!(tracing::enabled!(target: TARGET, Level::INFO));
        assert!(!tracing::enabled!(target: "h2::codec", Level::ERROR));
    });
    assert!(!tracing::enabled!(target: TARGET, Level::INFO), "a subscriber is installed for the thread");
}
