//! One request from its head to the end of its reply: what is measured of it, and the guards that it holds. Dropping it tells the access
//! log, the metrics and the trace, so that no way out of the route goes unseen.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, Request, StatusCode, Version};
use ringfence_policy::{Deny, Reason, RuleRef, TenantId};

use super::{Downstream, Enforce, identify::Identified};
use crate::{
    hop::{Account, connection::InFlight},
    identity::peer::Peer,
    in_flight::InFlightGuard,
    listeners::ListenerKey,
    telemetry::{
        Decision, RequestId,
        access_log::{AccessRecord, Clipped, ConnectError, Route, Timings},
        metrics::Counted,
        trace::RequestTrace,
    },
};

pub(super) struct Exchange {
    enforce: Rc<Enforce>,
    listener: ListenerKey,
    pub(super) id: RequestId,
    time: SystemTime,
    started: Instant,
    /// `None` where no access log is kept.
    line: Option<Line>,
    peer: Option<Rc<Peer>>,
    tenant: Option<TenantId>,
    subject_hash: Option<[u8; 16]>,
    status: Option<StatusCode>,
    deny: Option<(Reason, Option<RuleRef>)>,
    shadow: Option<RuleRef>,
    identify: Option<Duration>,
    upstream: Option<Duration>,
    upstream_error: Option<ConnectError>,
    bytes_in: Option<Rc<Cell<u64>>>,
    bytes_out: u64,
    trace: Option<RequestTrace>,
    in_flight: (InFlight, Counted),
    _admitted: Option<InFlightGuard>,
}

/// What only the access log wants.
struct Line {
    method: Clipped,
    path: Clipped,
    version: Version,
}

impl Exchange {
    pub(super) fn begin<B>(request: &Request<B>, downstream: &Downstream) -> Self {
        let enforce = downstream.inbound.enforce.clone();
        let line = enforce.shared.access_log.as_ref().map(|_| Line {
            method: Clipped::method(request.method().as_str().as_bytes()),
            path: Clipped::path(request.uri().path().as_bytes()),
            version: request.version(),
        });
        let started = Instant::now();
        Self {
            listener: downstream.inbound.key,
            id: enforce.shared.ids.next(),
            time: SystemTime::now(),
            started,
            line,
            peer: downstream.peer.clone(),
            tenant: None,
            subject_hash: None,
            status: None,
            deny: None,
            shadow: None,
            identify: None,
            upstream: None,
            upstream_error: None,
            bytes_in: None,
            bytes_out: 0,
            trace: Some(enforce.shared.tracing.start(request.headers(), request.method())),
            in_flight: (downstream.activity.in_flight(started.into()), enforce.shared.metrics.in_flight()),
            _admitted: None,
            enforce,
        }
    }

    /// When the head had arrived: the time of every decision about this request.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// The same in Unix seconds, for the times in tokens.
    pub(super) fn unix_seconds(&self) -> u64 {
        self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    pub(super) fn identified(&mut self, identified: &Identified) {
        self.identify = Some(self.started.elapsed());
        self.tenant = Some(identified.tenant.id.clone());
        self.subject_hash = identified.token.subject_hash;
    }

    pub(super) fn admitted(&mut self, guard: InFlightGuard, shadow: Option<RuleRef>) {
        self._admitted = Some(guard);
        self.shadow = shadow;
    }

    pub(super) fn refused(&mut self, deny: &Deny) {
        self.deny = Some((deny.reason, deny.rule.clone()));
    }

    pub(super) fn replied(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Octets of the request's body, counted where they pass.
    pub(super) fn count_in(&mut self, octets: Rc<Cell<u64>>) {
        self.bytes_in = Some(octets);
    }

    /// The workload was asked at `asked`, and has begun to answer or failed to.
    pub(super) fn upstream_answered(&mut self, asked: Instant) {
        self.upstream = Some(asked.elapsed());
    }

    pub(super) fn not_connected(&mut self, error: ConnectError) {
        self.upstream_error = Some(error);
    }

    /// Makes the upstream request a part of this trace.
    pub(super) fn inject_trace(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.inject(headers);
        }
    }

    fn decision(&self) -> Decision {
        match (&self.deny, &self.shadow) {
            (Some((reason, _)), _) => Decision::Deny(*reason),
            (None, Some(_)) => Decision::Shadow(Reason::RateLimited),
            (None, None) => Decision::Allow,
        }
    }
}

impl Account for Box<Exchange> {
    fn sent(&mut self, octets: usize) {
        self.bytes_out += octets as u64;
        self.in_flight.0.moved(Instant::now().into());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let peer = self.peer.take();
        if let (None, Some(deny)) = (&self.deny, peer.as_ref().and_then(|peer| peer.withdrawn())) {
            self.refused(deny);
        }
        let decision = self.decision();
        let now = Instant::now();
        self.in_flight.0.moved(now.into());
        let total = now.saturating_duration_since(self.started);
        let trace = self.trace.take();
        self.enforce.shared.metrics.request(decision, total, self.upstream);
        if let (Some(log), Some(line)) = (&self.enforce.shared.access_log, self.line.take()) {
            log.record(AccessRecord {
                time: self.time,
                id: self.id,
                route: Route::Inbound,
                listener: self.listener.listen,
                destination: None,
                peer: peer.map(|peer| peer.identity.id().clone()),
                tenant: self.tenant.take(),
                subject_hash: self.subject_hash,
                method: line.method,
                path: line.path,
                version: line.version,
                status: self.status,
                decision,
                rule: self.deny.take().and_then(|(_, rule)| rule),
                shadow: self.shadow.take().into_iter().collect(),
                bytes_in: self.bytes_in.as_ref().map_or(0, |octets| octets.get()),
                bytes_out: self.bytes_out,
                timings: Timings { total, identify: self.identify, upstream: self.upstream },
                upstream_error: self.upstream_error,
                trace_id: trace.as_ref().and_then(RequestTrace::trace_id),
            });
        }
        if let Some(trace) = trace {
            trace.finish(self.status, decision.reason());
        }
    }
}
