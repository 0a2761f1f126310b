//! Takes a query that is about to be looked at, to be asked of upstreams, or to be told its answer; yields leave, or the limit that is used
//! up. Never knows what a name leads to.
//!
//! What a sidecar asks for itself is not counted: egress rules have let those names through, and what they let through may be talked to.

use std::{cell::OnceCell, sync::Arc};

use ringfence_policy::{
    Reason, RuleRef, Snapshot,
    budget::{Count, Limit, Question},
};

use super::{
    ede::Ede,
    exchange::{Exchange, Source},
    query::Query,
    told::Told,
};
use crate::limiter::{Limiter, Outcome};

/// A limit that refuses a query, or would have.
#[derive(Clone, Debug)]
pub struct Spent {
    pub reason: Reason,
    pub rule: RuleRef,
}

impl Spent {
    /// Names no limit: where many share a workload, a limit may be of one that others are not to know.
    pub(super) fn ede(&self) -> Ede {
        Ede::new(
            Ede::PROHIBITED,
            match self.reason {
                Reason::RateLimited => "too many queries",
                _ => "the budget is spent",
            },
        )
    }
}

impl From<&Limit> for Spent {
    fn from(limit: &Limit) -> Self {
        Self { reason: limit.reason(), rule: limit.rule.clone() }
    }
}

/// What one query is charged, by the policy that it pinned.
pub(super) struct Account {
    pub(super) snapshot: Arc<Snapshot>,
    /// The first limit in shadow mode that would have refused.
    shadow: OnceCell<Spent>,
}

impl Account {
    /// Charges a well-formed query.
    pub(super) fn open(query: &Query, exchange: &Exchange, snapshot: Arc<Snapshot>, limiter: &Limiter) -> Result<Self, Spent> {
        let account = Self { snapshot, shadow: OnceCell::new() };
        let Snapshot { budget, workload, .. } = &*account.snapshot;
        account.note(limiter.query(&question(query), budget, &workload.tenants, exchange.begun))?;
        Ok(account)
    }

    /// Before an upstream hears of the name.
    pub(super) fn ask(&self, query: &Query, exchange: &Exchange, limiter: &Limiter) -> Result<(), Spent> {
        let Snapshot { budget, workload, .. } = &*self.snapshot;
        self.note(limiter.ask(&question(query), budget, &workload.tenants, exchange.begun))
    }

    /// Before the answer is told. What was counted once is known, and told for nothing; what is made here tells nothing of anybody's.
    pub(super) fn tell(&self, query: &Query, exchange: &Exchange, told: &Told, limiter: &Limiter) -> Result<(), Spent> {
        let Snapshot { budget, workload, .. } = &*self.snapshot;
        let is_counted = budget.limits().iter().any(|limit| limit.count == Count::Txt);
        if !is_counted || told.source == Source::Own || told.reply.counted.get() {
            return Ok(());
        }
        let octets = told.reply.free_form();
        if octets > 0 {
            self.note(limiter.tell(octets, &question(query), budget, &workload.tenants, exchange.begun))?;
        }
        told.reply.counted.set(true);
        Ok(())
    }

    pub(super) fn shadow(&self) -> Option<Spent> {
        self.shadow.get().cloned()
    }

    fn note(&self, outcome: Outcome<'_>) -> Result<(), Spent> {
        if let Some(limit) = outcome? {
            self.shadow.get_or_init(|| limit.into());
        }
        Ok(())
    }
}

fn question(query: &Query) -> Question<'_> {
    Question::new(query.name(), query.qtype.into(), query.dnssec_ok())
}
