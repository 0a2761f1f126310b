//! What is counted of the DNS route.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use prometheus_client::registry::Registry;
use ringfence_policy::{
    ratelimit::Mode,
    rpz::{Action, Trigger},
};

use super::{Counters, Durations, by_decision, position};
use crate::{
    dns::{
        answer::RCODES,
        exchange::Source,
        resolve::{AskError, LookupError},
    },
    telemetry::Decision,
};

#[derive(Debug)]
pub struct DnsMetrics {
    queries: Counters<2>,
    answers: Counters<2>,
    policy: Counters<3>,
    query_duration: Durations,
    upstream_failures: Counters<1>,
}

const ACTIONS: [Action; 6] = [Action::NxDomain, Action::NoData, Action::Passthru, Action::Drop, Action::TcpOnly, Action::LocalData];
const MODES: [(Mode, &str); 2] = [(Mode::Enforce, "enforce"), (Mode::Shadow, "shadow")];

const FAILURES: [&str; 6] = ["timeout", "network", "refused", "lie", "too_many", "given_up"];

impl Default for DnsMetrics {
    fn default() -> Self {
        let by_rcode = RCODES.iter().flat_map(|(_, rcode)| Source::ALL.map(|source| [("rcode", *rcode), ("source", source.as_str())]));
        let by_rule = MODES.iter().flat_map(|(_, mode)| {
            Trigger::ALL
                .into_iter()
                .flat_map(|trigger| ACTIONS.map(|action| [("action", action.as_str()), ("trigger", trigger.as_str()), ("mode", *mode)]))
        });
        Self {
            queries: by_decision(),
            answers: Counters::new(by_rcode),
            policy: Counters::new(by_rule),
            query_duration: Durations::default(),
            upstream_failures: Counters::new(FAILURES.into_iter().map(|failure| [("failure", failure)])),
        }
    }
}

impl DnsMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("ringfence_dns_queries", "Queries by decision and reason", self.queries.clone());
        r.register("ringfence_dns_answers", "Answers by rcode and where they came from", self.answers.clone());
        r.register(
            "ringfence_dns_policy",
            "Queries that met a rule of a policy zone, by what it did or would have done",
            self.policy.clone(),
        );
        r.register("ringfence_dns_query_duration_seconds", "From a query's packet to its answer", self.query_duration.clone());
        r.register("ringfence_dns_upstream_failures", "Questions that no upstream answered", self.upstream_failures.clone());
    }

    /// Counts one query. `rcode`: `None`: it was not answered.
    pub fn query(&self, decision: Decision, rcode: Option<ResponseCode>, source: Source, total: Duration) {
        self.queries.add(position(decision));
        if let Some(row) = RCODES.iter().position(|(known, _)| Some(*known) == rcode) {
            self.answers.add(row * Source::ALL.len() + source as usize);
        }
        self.query_duration.observe(total);
    }

    /// Counts a rule that acted, or would have.
    pub fn policy(&self, action: Action, trigger: Trigger, mode: Mode) {
        let mode = MODES.iter().position(|(known, _)| *known == mode);
        let action = ACTIONS.iter().position(|known| *known == action);
        if let (Some(mode), Some(action)) = (mode, action) {
            self.policy.add((mode * Trigger::ALL.len() + trigger as usize) * ACTIONS.len() + action);
        }
    }

    pub fn upstream_failed(&self, error: &LookupError) {
        self.upstream_failures.add(match error {
            LookupError::Ask(AskError::Timeout) => 0,
            LookupError::Ask(AskError::Network(_) | AskError::None(_)) => 1,
            LookupError::Ask(AskError::Refused { .. }) => 2,
            LookupError::Lie(_) | LookupError::Encode(_) => 3,
            LookupError::TooMany => 4,
            LookupError::GivenUp => 5,
        });
    }
}
