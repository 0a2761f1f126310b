//! One query from its packet to its answer: what is measured of it, and what log and metrics are told.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Instant, SystemTime},
};

use hickory_proto::op::ResponseCode;
use ringfence_policy::{Reason, tenant::ServedTenants};

use super::{
    answer::Transport,
    limits::LOG_ONE_IN,
    query::Query,
    resolve::{AskError, LookupError},
};
use crate::{
    data::Shared,
    telemetry::{
        Decision,
        access_log::{QueryName, QueryRecord},
    },
};

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The sidecar itself: refusals and names of special use.
    Own,
    Cache,
    /// Remembered beyond its TTL.
    Stale,
    Upstream,
}

impl Source {
    pub const ALL: [Source; 4] = [Source::Own, Source::Cache, Source::Stale, Source::Upstream];

    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Own => "own",
            Source::Cache => "cache",
            Source::Stale => "stale",
            Source::Upstream => "upstream",
        }
    }
}

/// One query under way.
#[derive(Clone, Copy)]
pub struct Exchange {
    pub listener: SocketAddr,
    pub transport: Transport,
    pub begun: Instant,
}

/// How it ended.
pub struct Verdict {
    pub rcode: ResponseCode,
    pub source: Source,
    pub decision: Decision,
}

impl Verdict {
    pub fn allow(rcode: ResponseCode, source: Source) -> Self {
        Self { rcode, source, decision: Decision::Allow }
    }

    pub fn deny(rcode: ResponseCode, reason: Reason) -> Self {
        Self { rcode, source: Source::Own, decision: Decision::Deny(reason) }
    }

    pub fn failed(error: &LookupError) -> Self {
        let reason = match error {
            LookupError::Ask(AskError::Timeout) | LookupError::GivenUp => Reason::UpstreamTimeout,
            LookupError::Ask(AskError::Network(_) | AskError::None(_)) => Reason::UpstreamConnect,
            LookupError::Ask(AskError::Refused { .. }) | LookupError::Lie(_) | LookupError::Encode(_) => Reason::UpstreamProtocol,
            LookupError::TooMany => Reason::RateLimited,
        };
        Self { rcode: ResponseCode::ServFail, source: Source::Upstream, decision: Decision::Deny(reason) }
    }
}

/// Tells of the queries of one thread.
pub struct Recorder {
    shared: Shared,
    answered: Cell<u64>,
}

impl Recorder {
    pub fn new(shared: Shared) -> Self {
        Self { shared, answered: Cell::new(0) }
    }

    /// `query`: `None` where there was none in the packet.
    pub fn ended(&self, exchange: &Exchange, query: Option<&Query>, verdict: &Verdict) {
        let total = exchange.begun.elapsed();
        self.shared.metrics.dns.query(verdict.decision, verdict.rcode, verdict.source, total);
        let Some(log) = &self.shared.access_log else { return };
        if verdict.decision == Decision::Allow {
            self.answered.update(|answered| answered.wrapping_add(1));
            if self.answered.get() % LOG_ONE_IN != 1 {
                return;
            }
        }
        let snapshot = self.shared.current.pin();
        let tenant = snapshot.and_then(|snapshot| match &snapshot.workload.tenants {
            ServedTenants::One(tenant) => Some(tenant.clone()),
            ServedTenants::Some(_) | ServedTenants::Any => None,
        });
        log.record(QueryRecord {
            time: SystemTime::now() - total,
            id: self.shared.ids.next(),
            listener: exchange.listener,
            transport: exchange.transport,
            tenant,
            name: query.map(|query| QueryName::new(query.name())),
            qtype: query.map(|query| query.qtype),
            rcode: verdict.rcode,
            source: verdict.source,
            decision: verdict.decision,
            total,
        });
    }
}
