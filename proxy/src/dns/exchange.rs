//! One query from its packet to its answer: what is measured of it, and what log and metrics are told.

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

use hickory_proto::op::ResponseCode;
use ringfence_policy::{
    Reason, RuleRef,
    ratelimit::Mode,
    rpz::{self, Action},
    tenant::ServedTenants,
};

use super::{
    answer::Transport,
    budget::Spent,
    limits::LOG_REFUSED,
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
    /// What would have decided: the first rule of a zone in shadow mode, else of a disabled one.
    pub shadow: Option<Box<rpz::Decision>>,
    /// The limit that decided.
    pub limit: Option<RuleRef>,
    /// The first that would have, were it not in shadow mode.
    pub shadow_limit: Option<RuleRef>,
}

impl Verdict {
    pub fn allow(rcode: ResponseCode, source: Source) -> Self {
        Self { rcode: Some(rcode), source, decision: Decision::Allow, policy: None, shadow: None, limit: None, shadow_limit: None }
    }

    pub fn deny(rcode: ResponseCode, reason: Reason) -> Self {
        Self { decision: Decision::Deny(reason), ..Self::allow(rcode, Source::Own) }
    }

    pub fn spent(rcode: ResponseCode, spent: Spent) -> Self {
        Self { limit: Some(spent.rule), ..Self::deny(rcode, spent.reason) }
    }

    /// With the limit in shadow mode that would have refused.
    pub fn beside(self, spent: Option<Spent>) -> Self {
        let Some(Spent { reason, rule }) = spent else { return self };
        let decision = if self.decision == Decision::Allow { Decision::Shadow(reason) } else { self.decision };
        Self { decision, shadow_limit: Some(rule), ..self }
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
        Self { rcode, source, decision, policy, shadow, limit: None, shadow_limit: None }
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
        let ratio = shared.access_log.as_ref().map_or(0.0, |log| log.query_ratio());
        Self { shared, sample: Sample::new(ratio, Instant::now()) }
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
            if verdict.decision != Decision::Allow {
                self.shared.metrics.access_log_dropped.inc();
            }
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
            limit: verdict.limit,
            shadow_limit: verdict.shadow_limit,
            total,
        });
    }
}

/// Which queries are logged: every one that was not simply let through, unless too many come in a second; of the others a part.
struct Sample {
    /// Of those let through.
    ratio: f64,
    /// How much of the next one is to be logged. What is logged is less by one.
    due: Cell<f64>,
    /// When the running second began, and how many were refused in it.
    refused: Cell<(Instant, u32)>,
}

impl Sample {
    fn new(ratio: f64, now: Instant) -> Self {
        Self { ratio, due: Cell::new(ratio.ceil()), refused: Cell::new((now, 0)) }
    }

    fn takes(&self, decision: Decision, now: Instant) -> bool {
        if decision != Decision::Allow {
            let (begun, count) = self.refused.get();
            let is_over = now.saturating_duration_since(begun) >= Duration::from_secs(1);
            let (begun, count) = if is_over { (now, 0) } else { (begun, count) };
            self.refused.set((begun, count.saturating_add(1)));
            return count < LOG_REFUSED;
        }
        let due = self.due.get();
        let is_due = due >= 1.0;
        self.due.set(due + self.ratio - if is_due { 1.0 } else { 0.0 });
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_what_is_let_through_is_logged_and_all_that_is_not_as_far_as_a_second_has_room() {
        let begun = Instant::now();
        let sample = Sample::new(0.25, begun);
        let logged = |decision, millis, queries| {
            let now = begun + Duration::from_millis(millis);
            (0..queries).filter(|_| sample.takes(decision, now)).count() as u32
        };
        let (refused, shadow) = (Decision::Deny(Reason::NameBlocked), Decision::Shadow(Reason::NameBlocked));
        for (decision, millis, queries, expected) in [
            (Decision::Allow, 0, 1, 1),
            (Decision::Allow, 0, 99, 24),
            (refused, 0, LOG_REFUSED / 2, LOG_REFUSED / 2),
            (shadow, 999, LOG_REFUSED / 2, LOG_REFUSED / 2),
            (refused, 999, 500, 0),
            (Decision::Allow, 999, 100, 25),
            (refused, 1000, LOG_REFUSED + 500, LOG_REFUSED),
            (refused, 1999, 1, 0),
            (refused, 2000, 1, 1),
        ] {
            assert_eq!(logged(decision, millis, queries), expected, "{decision:?} {millis} {queries}");
        }
        assert!((0..100).all(|_| !Sample::new(0.0, begun).takes(Decision::Allow, begun)));
    }
}
