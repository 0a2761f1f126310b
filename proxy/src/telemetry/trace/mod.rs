//! One span per request, exported over OTLP (gRPC) to the operator's collector, and the W3C trace context between caller and workload.
//!
//! Without an endpoint there is no subscriber, no thread and no span: a valid `traceparent` passes through untouched and gives the access
//! log its trace id. With one, the caller's decision to record or not is kept, and a request that begins its trace here is recorded in the
//! configured ratio.
//!
//! A collector is shared by the whole installation, and often leaves it. So neither tenant nor subject, path, rule, workload or anything
//! else of a client's choosing goes into a span; the trace id leads to the access-log line, which stays with the sidecar. For the same reason
//! `baggage` is never passed on: it carries whatever earlier hops put there to whoever comes next.

mod context;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, StatusCode, Uri, uri::Scheme};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanContext, TraceContextExt, TraceId, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData},
};
use prometheus_client::metrics::counter::Counter;
use ringfence_policy::Reason;
use tracing::{Dispatch, Level, Span, dispatcher, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt};

pub use context::Traceparent;

use super::{known_method, metrics::Metrics};
use crate::hop::headers::remove_all;
use context::{TRACEPARENT, tracestate_is_passable};

const TARGET: &str = "ringfence::request";

/// Spans that wait at most; more are dropped.
const QUEUE: usize = 2048;

/// How often spans are exported; the only timer, and there is one only where an endpoint is configured.
const EXPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// Where the collector takes OTLP over gRPC: `http://host:port`.
    pub endpoint: String,
    /// Part of the traces beginning here that are recorded, 0 to 1. A trace that a caller began follows the caller.
    pub root_ratio: f64,
}

impl TracingConfig {
    /// Every trace: a sidecar is at the edge of an installation whose other parts decide what to keep.
    pub const DEFAULT_ROOT_RATIO: f64 = 1.0;
}

#[derive(Debug, thiserror::Error)]
pub enum TracingError {
    /// TLS to the collector is not built in: it is expected on the same host, or behind the mesh's own encryption.
    #[error("the traces' endpoint must be http://host:port, is {0:?}")]
    Endpoint(String),
    #[error("the traces' exporter cannot be built: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("the traces' root ratio must be between 0 and 1, is {0}")]
    RootRatio(f64),
}

/// What starts spans. Clones share one exporter.
#[derive(Clone, Debug, Default)]
pub struct Tracing(Option<Arc<Exporting>>);

#[derive(Debug)]
struct Exporting {
    /// Only spans of this module reach it. It is entered for the moment of a span's making and never installed for the process: the
    /// libraries' own spans and events stay disabled.
    dispatch: Dispatch,
    provider: SdkTracerProvider,
}

impl Tracing {
    /// No spans; see the module.
    pub fn off() -> Self {
        Self(None)
    }

    /// Connects when first there is something to export. To be called within the control runtime, which the connection lives on;
    /// the batches are made on a thread of the SDK.
    pub fn new(config: &TracingConfig, metrics: &Metrics) -> Result<Self, TracingError> {
        if !(0.0..=1.0).contains(&config.root_ratio) {
            return Err(TracingError::RootRatio(config.root_ratio));
        }
        let endpoint = config.endpoint.parse::<Uri>().ok().filter(|uri| uri.scheme() == Some(&Scheme::HTTP) && uri.port().is_some());
        if endpoint.is_none() {
            // The SDK would take an empty one for its default, and fail late on others.
            return Err(TracingError::Endpoint(config.endpoint.clone()));
        }
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(&config.endpoint).with_timeout(EXPORT_TIMEOUT).build()?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(EXPORT_INTERVAL).build();
        let exporter = CountErrors { exporter, errors: metrics.trace_export_errors.clone() };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.root_ratio))))
            // Not the default resource, which reads the environment: names of namespaces and workloads stand there.
            .with_resource(
                Resource::builder_empty()
                    .with_attribute(KeyValue::new("service.name", "ringfence-proxy"))
                    .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                    .build(),
            )
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("ringfence-proxy"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        let only_ours = Targets::new().with_target(TARGET, Level::INFO);
        let dispatch = Dispatch::new(tracing_subscriber::registry().with(only_ours).with(layer));
        Ok(Self(Some(Arc::new(Exporting { dispatch, provider }))))
    }

    /// Begins a request's trace, or its part of one. `headers`: the downstream's, as they came.
    pub fn start(&self, headers: &HeaderMap, method: &Method) -> RequestTrace {
        let parent = Traceparent::of(headers);
        let span = match (&self.0, parent) {
            (None, _) | (_, Some(Traceparent { sampled: false, .. })) => None,
            (Some(exporting), _) => exporting.span(parent, method),
        };
        RequestTrace { parent, span }
    }

    /// Exports what is queued and ends. Blocks for up to `deadline` while the control runtime does the sending, so it must not be called
    /// on that runtime's thread; nor may the last clone be dropped there before. A batch that does not arrive is counted, not told.
    pub fn shutdown(&self, deadline: Duration) -> OTelSdkResult {
        self.0.as_ref().map_or(Ok(()), |exporting| exporting.provider.shutdown_with_timeout(deadline))
    }
}

impl Exporting {
    /// `None` where something of the environment disabled the span.
    fn span(&self, parent: Option<Traceparent>, method: &Method) -> Option<(Span, SpanContext)> {
        // The names of the semantic conventions for HTTP server spans; a method that a client made up is not told.
        let method = known_method(method.as_str().as_bytes());
        let span = dispatcher::with_default(&self.dispatch, || {
            tracing::info_span!(
                target: TARGET,
                parent: None,
                "request",
                otel.name = method.unwrap_or("HTTP"),
                otel.kind = "server",
                otel.status_code = Empty,
                http.request.method = method.unwrap_or("_OTHER"),
                http.response.status_code = Empty,
                ringfence.reason = Empty,
            )
        });
        if let Some(parent) = parent {
            // Fails only for a span that is started or disabled already.
            let _ = span.set_parent(Context::new().with_remote_span_context(parent.span_context()));
        }
        let own = span.context().span().span_context().clone();
        own.is_valid().then_some((span, own))
    }
}

/// One request's place in its trace. Dropped before [`RequestTrace::finish`], its span ends without a status.
#[derive(Debug)]
pub struct RequestTrace {
    parent: Option<Traceparent>,
    span: Option<(Span, SpanContext)>,
}

impl RequestTrace {
    /// For the access log; `None` where there is no trace.
    pub fn trace_id(&self) -> Option<TraceId> {
        self.upstream_parent().map(|parent| parent.trace_id)
    }

    /// Makes the upstream request carry this trace: our span's `traceparent`, or the caller's where we make none. Removes what is not
    /// valid, and `baggage`.
    pub fn inject(&self, headers: &mut HeaderMap) {
        let ours = self.span.as_ref().and_then(|_| self.upstream_parent()?.header());
        let is_orphan = self.parent.is_none();
        let loses_state = is_orphan || !tracestate_is_passable(headers);
        // One pass over the names: most requests carry none of the three.
        remove_all(headers, |name| match name.as_str() {
            "baggage" => true,
            "traceparent" => is_orphan,
            "tracestate" => loses_state,
            _ => false,
        });
        if let Some(ours) = ours {
            headers.insert(TRACEPARENT, ours);
        }
    }

    /// `status`: `None` where the downstream was gone before a reply.
    pub fn finish(self, status: Option<StatusCode>, reason: Option<Reason>) {
        let Some((span, _)) = self.span else { return };
        if let Some(status) = status {
            span.record("http.response.status_code", i64::from(status.as_u16()));
            if status.is_server_error() {
                span.record("otel.status_code", "ERROR");
            }
        }
        if let Some(reason) = reason {
            span.record("ringfence.reason", reason.as_str());
        }
    }

    fn upstream_parent(&self) -> Option<Traceparent> {
        match &self.span {
            Some((_, own)) => Some(Traceparent { trace_id: own.trace_id(), parent_id: own.span_id(), sampled: own.is_sampled() }),
            None => self.parent,
        }
    }
}

/// The SDK tells of a failed export only in an event that nobody listens to.
#[derive(Debug)]
struct CountErrors {
    exporter: SpanExporter,
    errors: Counter,
}

impl opentelemetry_sdk::trace::SpanExporter for CountErrors {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        if result.is_err() {
            self.errors.inc();
        }
        result
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests;
