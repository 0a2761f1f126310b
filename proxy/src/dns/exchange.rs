//! One query from its packet to its answer: what is measured of it, and what log and metrics are told.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use hickory_proto::op::ResponseCode;
use ringfence_policy::{
    Reason,
    ratelimit::Mode,
    rpz::{self, Action},
    tenant::ServedTenants,
};

use super::{
    answer::Transport,
    limits::{LOG_ONE_IN, LOG_REFUSED},
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
    pub client: IpAddr,
    pub transport: Transport,
    pub begun: Instant,
}

/// How it ended.
pub struct Verdict {
    /// `None`: nothing was sent.
    pub rcode: Option<ResponseCode>,
    pub source: Source,
    pub decision: Decision,
    /// The rule of a policy zone that decided.
    pub policy: Option<Box<rpz::Decision>>,
    /// The first that would have, were its zone not disabled or in shadow mode.
    pub shadow: Option<Box<rpz::Decision>>,
}

impl Verdict {
    pub fn allow(rcode: ResponseCode, source: Source) -> Self {
        Self { rcode: Some(rcode), source, decision: Decision::Allow, policy: None, shadow: None }
    }

    pub fn deny(rcode: ResponseCode, reason: Reason) -> Self {
        Self { decision: Decision::Deny(reason), ..Self::allow(rcode, Source::Own) }
    }

    /// As the policy zones would have it. `sent`: `None`: nothing.
    pub fn filtered(sent: Option<(ResponseCode, Source)>, policy: Option<Box<rpz::Decision>>, shadow: Option<Box<rpz::Decision>>) -> Self {
        let reason = |of: &Option<Box<rpz::Decision>>| of.as_ref().and_then(|decision| reason(decision.action));
        let decision = match (reason(&policy), reason(&shadow)) {
            (Some(reason), _) => Decision::Deny(reason),
            (None, Some(reason)) => Decision::Shadow(reason),
            (None, None) => Decision::Allow,
        };
        let (rcode, source) = sent.map_or((None, Source::Own), |(rcode, source)| (Some(rcode), source));
        Self { rcode, source, decision, policy, shadow }
    }

    pub fn failed(error: &LookupError) -> Self {
        let reason = match error {
            LookupError::Ask(AskError::Timeout) | LookupError::GivenUp => Reason::UpstreamTimeout,
            LookupError::Ask(AskError::Network(_) | AskError::None(_)) => Reason::UpstreamConnect,
            LookupError::Ask(AskError::Refused { .. }) | LookupError::Lie(_) | LookupError::Encode(_) => Reason::UpstreamProtocol,
            LookupError::TooMany => Reason::RateLimited,
        };
        Self { source: Source::Upstream, ..Self::deny(ResponseCode::ServFail, reason) }
    }
}

/// Why a query was refused; `None`: it was not, or only over UDP.
const fn reason(action: Action) -> Option<Reason> {
    match action {
        Action::NxDomain | Action::NoData | Action::Drop => Some(Reason::NameBlocked),
        Action::LocalData => Some(Reason::NameRewritten),
        Action::Passthru | Action::TcpOnly => None,
    }
}

/// Tells of the queries of one thread.
pub struct Recorder {
    shared: Shared,
    sample: Sample,
}

impl Recorder {
    pub fn new(shared: Shared) -> Self {
        Self { shared, sample: Sample::new(Instant::now()) }
    }

    /// `query`: `None` where there was none in the packet.
    pub fn ended(&self, exchange: &Exchange, query: Option<&Query>, verdict: Verdict) {
        let now = Instant::now();
        let total = now.saturating_duration_since(exchange.begun);
        let metrics = &self.shared.metrics.dns;
        metrics.query(verdict.decision, verdict.rcode, verdict.source, total);
        for (decision, mode) in [(&verdict.policy, Mode::Enforce), (&verdict.shadow, Mode::Shadow)] {
            if let Some(decision) = decision {
                metrics.policy(decision.action, decision.trigger, mode);
            }
        }
        let Some(log) = &self.shared.access_log else { return };
        if !self.sample.takes(verdict.decision, now) {
            return;
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
            policy: verdict.policy,
            shadow: verdict.shadow,
            total,
        });
    }
}

/// Which queries are logged: one in so many, and of those that were not simply let through the first of each second.
struct Sample {
    seen: Cell<u64>,
    /// When the running second began, and how many were refused in it.
    refused: Cell<(Instant, u32)>,
}

impl Sample {
    fn new(now: Instant) -> Self {
        Self { seen: Cell::new(0), refused: Cell::new((now, 0)) }
    }

    fn takes(&self, decision: Decision, now: Instant) -> bool {
        if decision != Decision::Allow {
            let (begun, count) = self.refused.get();
            let is_over = now.saturating_duration_since(begun) >= Duration::from_secs(1);
            let (begun, count) = if is_over { (now, 0) } else { (begun, count) };
            if count < LOG_REFUSED {
                self.refused.set((begun, count + 1));
                return true;
            }
        }
        self.seen.update(|seen| seen.wrapping_add(1));
        self.seen.get() % LOG_ONE_IN == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_of_refused_queries_costs_no_more_lines_than_a_second_has_room_for() {
        let begun = Instant::now();
        let sample = Sample::new(begun);
        let logged = |decision, millis, queries| {
            let now = begun + Duration::from_millis(millis);
            (0..queries).filter(|_| sample.takes(decision, now)).count() as u64
        };
        let refused = Decision::Deny(Reason::NameBlocked);
        let room = u64::from(LOG_REFUSED);
        for (decision, millis, queries, expected) in [
            (Decision::Allow, 0, LOG_ONE_IN, 1),
            (refused, 0, room / 2, room / 2),
            (Decision::Shadow(Reason::NameBlocked), 999, room / 2, room / 2),
            (refused, 999, 5 * LOG_ONE_IN, 5),
            (Decision::Allow, 999, LOG_ONE_IN, 1),
            (refused, 1000, 5 * LOG_ONE_IN + room, 5 + room),
            (refused, 1999, LOG_ONE_IN, 1),
            (refused, 2000, 1, 1),
        ] {
            assert_eq!(logged(decision, millis, queries), expected, "{decision:?} {millis} {queries}");
        }
    }
}
