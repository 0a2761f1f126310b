//! One request from its head to the end of its reply: what is measured of it. Dropping it tells the access log and the metrics, so that no
//! way out of the route goes unseen.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Request, StatusCode, Version};
use ringfence_policy::{Deny, Reason, RuleRef, TenantId};

use super::{Downstream, standing::Granted, target::Target};
use crate::{
    hop::{Account, connection::InFlight},
    outbound::{Outbound, decide::Decided, flow::Octets},
    telemetry::{
        Decision, RequestId,
        access_log::{AccessRecord, Clipped, Destination, Route, Timings},
    },
};

pub(super) struct Exchange {
    outbound: Rc<Outbound>,
    pub(super) id: RequestId,
    time: SystemTime,
    started: Instant,
    /// `None` where no access log is kept.
    line: Option<Line>,
    tenant: Option<TenantId>,
    destination: Option<Destination>,
    status: Option<StatusCode>,
    deny: Option<(Reason, Option<RuleRef>)>,
    rule: Option<RuleRef>,
    shadow: Option<(Reason, Option<RuleRef>)>,
    granted: Option<Rc<Granted>>,
    upstream: Option<Duration>,
    bytes_in: Option<Rc<Cell<u64>>>,
    bytes_out: u64,
    /// Another account goes on where this one ends: nothing is told.
    continued: bool,
    in_flight: InFlight,
}

/// What only the access log wants.
struct Line {
    method: Clipped,
    path: Clipped,
    version: Version,
}

impl Exchange {
    pub(super) fn begin<B>(request: &Request<B>, downstream: &Downstream) -> Self {
        let outbound = downstream.outbound.clone();
        let line = outbound.shared.access_log.as_ref().map(|_| Line {
            method: Clipped::method(request.method().as_str().as_bytes()),
            path: Clipped::path(request.uri().path().as_bytes()),
            version: request.version(),
        });
        let started = Instant::now();
        Self {
            id: outbound.shared.ids.next(),
            time: SystemTime::now(),
            started,
            line,
            tenant: None,
            destination: None,
            status: None,
            deny: None,
            rule: None,
            shadow: None,
            granted: None,
            upstream: None,
            bytes_in: None,
            bytes_out: 0,
            continued: false,
            in_flight: downstream.activity.in_flight(started.into()),
            outbound,
        }
    }

    /// When the head had arrived, in Unix seconds.
    pub(super) fn unix_seconds(&self) -> u64 {
        self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    pub(super) fn asked(&mut self, target: &Target) {
        self.destination = Some(Destination { host: target.host.clone(), port: target.port, address: None });
    }

    pub(super) fn identified(&mut self, tenant: &TenantId) {
        self.tenant = Some(tenant.clone());
    }

    pub(super) fn is_identified(&self) -> bool {
        self.tenant.is_some()
    }

    pub(super) fn allowed(&mut self, decided: &Decided, granted: &Rc<Granted>) {
        self.rule = decided.destinations.first().and_then(|destination| destination.rule().cloned());
        self.shadow = decided.shadow.as_ref().map(|deny| (deny.reason, deny.rule.clone()));
        self.granted = Some(granted.clone());
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

    /// The upstream was asked at `asked`, and has begun to answer or failed to.
    pub(super) fn upstream_answered(&mut self, asked: Instant) {
        self.upstream = Some(asked.elapsed());
    }

    /// A WebSocket carried so much.
    pub(super) fn tunnelled(&mut self, octets: &Octets) {
        self.bytes_in = Some(Rc::new(Cell::new(octets.sent.get())));
        self.bytes_out = octets.received.get();
    }

    /// The tunnel that was opened tells the rest.
    pub(super) fn continue_elsewhere(&mut self) {
        self.continued = true;
    }

    fn decision(&self) -> Decision {
        match (&self.deny, &self.shadow) {
            (Some((reason, _)), _) => Decision::Deny(*reason),
            (None, Some((reason, _))) => Decision::Shadow(*reason),
            (None, None) => Decision::Allow,
        }
    }
}

impl Account for Exchange {
    fn sent(&mut self, octets: usize) {
        self.bytes_out += octets as u64;
        self.in_flight.moved(Instant::now().into());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.in_flight.moved(now.into());
        if self.continued {
            return;
        }
        let mut peer = None;
        if let Some(granted) = self.granted.take() {
            peer = granted.peer_id.clone();
            if let (Some(destination), Some(peer)) = (&mut self.destination, granted.peer.get()) {
                destination.address = Some(peer);
            }
            if let Some(deny) = granted.revoked() {
                self.refused(&deny);
            }
        }
        let decision = self.decision();
        let shared = &self.outbound.shared;
        shared.metrics.outbound_request(decision);
        if let (Some(log), Some(line)) = (&shared.access_log, self.line.take()) {
            log.record(AccessRecord {
                time: self.time,
                id: self.id,
                route: Route::Outbound,
                listener: self.outbound.key.listen,
                destination: self.destination.take(),
                peer,
                tenant: self.tenant.take(),
                subject_hash: None,
                method: line.method,
                path: line.path,
                version: line.version,
                status: self.status,
                decision,
                // Of a refusal the rule that refused; one that allowed what was cut later is no answer to why.
                rule: self.deny.take().map_or(self.rule.take(), |(_, rule)| rule),
                shadow: self.shadow.take().and_then(|(_, rule)| rule).into_iter().collect(),
                bytes_in: self.bytes_in.as_ref().map_or(0, |octets| octets.get()),
                bytes_out: self.bytes_out,
                timings: Timings { total: now.saturating_duration_since(self.started), identify: None, upstream: self.upstream },
                upstream_error: None,
                trace_id: None,
            });
        }
    }
}
