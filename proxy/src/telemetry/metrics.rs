//! Counts and durations, exposed in the OpenMetrics text format.
//!
//! Every label value comes from a set that this file closes at start: the number of series is a constant, and no metric names a
//! tenant, rule, host, path or workload. Series exist from the first scrape, at zero.
//!
//! What the sums may still tell: metrics travel to a store that several tenants' people may read, so nothing here may change
//! because of what concerns one tenant without its traffic. A count of snapshot swaps would show on a shared sidecar when
//! another tenant's policy is edited: there is none, only whether any policy is in force. Rejections are counted all the same:
//! the control plane decodes with the same code, so that the count stays zero unless the two differ in version, which is the
//! operator's alarm and no tenant's edit.

mod dns;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::Counter, gauge::Gauge},
    registry::Registry,
};
use ringfence_policy::Reason;

pub use self::dns::DnsMetrics;
use super::Decision;

/// `Content-Type` of what [`Metrics::render`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the duration histograms, in microseconds.
const BOUNDS: [u64; 14] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// All metrics of one sidecar. Counting is one relaxed atomic addition: nothing is looked up, locked or allocated.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Counters<2>,
    request_duration: Durations,
    upstream_duration: Durations,
    connections: Gauge,
    in_flight: Gauge,
    identify_cache: Counters<1>,
    pub dns: DnsMetrics,
    outbound_requests: Counters<2>,
    outbound_connections: Counters<2>,
    outbound_open: Gauge,
    outbound_bytes: Counters<1>,
    resident_memory: Gauge,
    /// Access-log lines that were never written: the queue was full or the sink failed.
    pub access_log_dropped: Counter,
    pub access_log_write_errors: Counter,
    /// Batches of spans that did not reach the collector.
    pub trace_export_errors: Counter,
    /// Resources that could not be decoded.
    pub config_rejections: Counter,
    /// 1 while a policy is in force.
    pub config_in_force: Gauge,
    /// 1 while the stream to the control plane stands.
    pub control_plane_connected: Gauge,
    /// Unix time; 0: there is no SVID.
    pub identity_svid_expiry: Gauge,
    /// Attempts to obtain or renew an SVID.
    pub identity_renewal_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: by_decision(),
            request_duration: Durations::default(),
            upstream_duration: Durations::default(),
            connections: Gauge::default(),
            in_flight: Gauge::default(),
            identify_cache: Counters::new([[("result", "hit")], [("result", "miss")]].into_iter()),
            dns: DnsMetrics::default(),
            outbound_requests: by_decision(),
            outbound_connections: by_decision(),
            outbound_open: Gauge::default(),
            outbound_bytes: Counters::new([[("direction", "sent")], [("direction", "received")]].into_iter()),
            resident_memory: Gauge::default(),
            access_log_dropped: Counter::default(),
            access_log_write_errors: Counter::default(),
            trace_export_errors: Counter::default(),
            config_rejections: Counter::default(),
            config_in_force: Gauge::default(),
            control_plane_connected: Gauge::default(),
            identity_svid_expiry: Gauge::default(),
            identity_renewal_failures: Counter::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        // The encoder adds `_total` to counters and a full stop to each help text.
        let r = &mut self.registry;
        r.register("ringfence_inbound_requests", "Requests by decision and reason", self.requests.clone());
        r.register("ringfence_inbound_request_duration_seconds", "From request head to end of reply", self.request_duration.clone());
        r.register(
            "ringfence_inbound_upstream_duration_seconds",
            "From connecting to the workload to the head of its reply",
            self.upstream_duration.clone(),
        );
        r.register("ringfence_inbound_connections", "Downstream connections open", self.connections.clone());
        r.register("ringfence_inbound_in_flight", "Requests in flight", self.in_flight.clone());
        r.register("ringfence_inbound_identify_cache", "Tokens looked up among the verified ones", self.identify_cache.clone());
        self.dns.register(r);
        r.register(
            "ringfence_outbound_requests",
            "Plain HTTP requests from the workload by decision and reason",
            self.outbound_requests.clone(),
        );
        r.register(
            "ringfence_outbound_connections",
            "Connections from the workload by decision and reason",
            self.outbound_connections.clone(),
        );
        r.register("ringfence_outbound_open", "Connections from the workload open", self.outbound_open.clone());
        r.register("ringfence_outbound_bytes", "Octets of connections from the workload", self.outbound_bytes.clone());
        r.register("ringfence_access_log_dropped", "Access-log lines that were not written", self.access_log_dropped.clone());
        r.register("ringfence_access_log_write_errors", "Failed writes of the access log", self.access_log_write_errors.clone());
        r.register("ringfence_trace_export_errors", "Batches of spans that did not reach the collector", self.trace_export_errors.clone());
        r.register("ringfence_config_rejections", "Resources that could not be decoded", self.config_rejections.clone());
        r.register("ringfence_config_in_force", "1 while a policy is in force", self.config_in_force.clone());
        r.register(
            "ringfence_control_plane_connected",
            "1 while the stream to the control plane stands",
            self.control_plane_connected.clone(),
        );
        r.register(
            "ringfence_identity_svid_expiry_timestamp_seconds",
            "Unix time at which the SVID expires, 0 without one",
            self.identity_svid_expiry.clone(),
        );
        r.register("ringfence_identity_renewal_failures", "Attempts at an SVID that brought none", self.identity_renewal_failures.clone());
        r.register("process_resident_memory_bytes", "Resident memory", self.resident_memory.clone());
        self
    }

    /// Counts one finished request. `upstream`: `None` where the workload was not asked.
    pub fn request(&self, decision: Decision, total: Duration, upstream: Option<Duration>) {
        self.requests.add(position(decision));
        self.request_duration.observe(total);
        if let Some(upstream) = upstream {
            self.upstream_duration.observe(upstream);
        }
    }

    /// Counts a downstream connection until the guard is dropped.
    pub fn connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// Counts a request in flight until the guard is dropped.
    pub fn in_flight(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// Resolves when no connection is open in either direction. Looks every `period`.
    pub async fn quiet(&self, period: Duration) {
        while self.connections.get() > 0 || self.outbound_open.get() > 0 {
            tokio::time::sleep(period).await;
        }
    }

    pub fn identify_cache(&self, hit: bool) {
        self.identify_cache.add(usize::from(!hit));
    }

    /// Counts one finished request from the workload.
    pub fn outbound_request(&self, decision: Decision) {
        self.outbound_requests.add(position(decision));
    }

    /// Counts one finished connection from the workload, with the octets that it carried.
    pub fn outbound(&self, decision: Decision, sent: u64, received: u64) {
        self.outbound_connections.add(position(decision));
        self.outbound_bytes.add_many(0, sent);
        self.outbound_bytes.add_many(1, received);
    }

    /// Counts a connection from the workload until the guard is dropped.
    pub fn outbound_open(&self) -> Counted {
        Counted::new(&self.outbound_open)
    }

    /// All metrics as text; see [`CONTENT_TYPE`].
    pub fn render(&self) -> Result<String, fmt::Error> {
        self.resident_memory.set(resident_bytes().unwrap_or(0));
        let mut out = String::with_capacity(8 * 1024);
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Counts as one in a gauge for as long as it lives.
#[derive(Debug)]
#[must_use = "dropped at once, it counts nothing"]
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn by_decision() -> Counters<2> {
    Counters::new(decisions().map(|decision| {
        let reason = decision.reason().map_or("none", Reason::as_str);
        [("decision", decision.as_str()), ("reason", reason)]
    }))
}

/// Every decision there is, in the order of [`position`].
fn decisions() -> impl Iterator<Item = Decision> + Clone {
    let of = |decision: fn(Reason) -> Decision| Reason::ALL.iter().map(move |reason| decision(*reason));
    std::iter::once(Decision::Allow).chain(of(Decision::Shadow)).chain(of(Decision::Deny))
}

fn position(decision: Decision) -> usize {
    match decision {
        Decision::Allow => 0,
        Decision::Shadow(reason) => 1 + reason as usize,
        Decision::Deny(reason) => 1 + Reason::ALL.len() + reason as usize,
    }
}

/// A counter for each of a closed list of label sets, by position.
///
/// The library's `Family` finds its counters by hash under a lock and shows them in an order of chance.
#[derive(Clone, Debug)]
struct Counters<const LABELS: usize>(Arc<[(LabelSet<LABELS>, AtomicU64)]>);

type LabelSet<const N: usize> = [(&'static str, &'static str); N];

impl<const LABELS: usize> Counters<LABELS> {
    fn new(sets: impl Iterator<Item = LabelSet<LABELS>>) -> Self {
        Self(sets.map(|labels| (labels, AtomicU64::new(0))).collect())
    }

    fn add(&self, position: usize) {
        self.add_many(position, 1);
    }

    fn add_many(&self, position: usize, count: u64) {
        self.0[position].1.fetch_add(count, Ordering::Relaxed);
    }
}

impl<const LABELS: usize> EncodeMetric for Counters<LABELS> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (labels, count) in self.0.iter() {
            encoder.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(&count.load(Ordering::Relaxed), None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// A histogram over [`BOUNDS`]. The library's takes a lock for each observation; this one costs two atomic additions.
#[derive(Clone, Debug, Default)]
struct Durations(Arc<Observed>);

#[derive(Debug, Default)]
struct Observed {
    /// One for each bound, and the last for all above.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Durations {
    fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.0.buckets.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(self.0.sum_micros.load(Ordering::Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// `VmRSS` of proc(5), which is in KiB.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests;
