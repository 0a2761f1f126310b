//! Programs that do the same work, beside each other.

use super::{Plan, answered, closed, field::Field, open};
use crate::{
    Error,
    load::{Latency, Load, Outcome, Protocol},
    report::Table,
    target::Target,
};

/// What one program is given.
pub(super) struct Work<'a> {
    pub(super) name: String,
    pub(super) target: &'a Target,
    pub(super) protocol: Protocol,
    pub(super) heads: &'a [String],
    /// Each head is sent once at most.
    pub(super) once: bool,
}

impl<'a> Work<'a> {
    /// Requests that need no token.
    pub(super) fn plain(target: &'a Target, field: &'a Field) -> Self {
        Self { name: target.name.clone(), target, protocol: Protocol::Http1, heads: &field.public, once: false }
    }
}

const SATURATED: [&str; 7] = ["us/request", "of the relay's", "requests/s", "p50 added", "p90 added", "p99 added", "p99.9 added"];
const STEADY: [&str; 7] = ["us/request", "p50", "p99", "p50 added", "p90 added", "p99 added", "p99.9 added"];

/// CPU of the program in a closed loop, and what it adds there to the latency of the origin alone, in us.
pub(super) struct Saturated {
    pub(super) table: Table,
}

impl Saturated {
    pub(super) fn new(title: &str) -> Self {
        Self { table: Table::new(title, &SATURATED).drawn(&["us/request"]) }
    }

    /// One round: the origin alone and the relay first, against which the others are told.
    pub(super) fn round<'a>(&mut self, plan: Plan, field: &'a Field, works: impl Iterator<Item = Work<'a>>) -> Result<(), Error> {
        let direct = Work::plain(&field.origin, field);
        let (_, direct) = timed(&direct, &closed(&field.origin, plan.saturated, &field.public))?;
        let relay = Work::plain(&field.relay, field);
        let mut floor = None;
        for work in [relay].into_iter().chain(works) {
            let (each, outcome) = timed(&work, &closed(work.target, plan.saturated, work.heads))?;
            let floor = *floor.get_or_insert(each);
            let [p50, p90, p99, p999] = added(outcome.latency, direct.latency);
            work.target.forget_log()?;
            let rate = outcome.answered() as f64 / outcome.seconds;
            self.table.add(&work.name, &[each, each / floor, rate, p50, p90, p99, p999]);
        }
        Ok(())
    }
}

/// Latency at a rate that none of the programs is busy with, and CPU there.
pub(super) struct Steady {
    pub(super) table: Table,
    rate: usize,
}

impl Steady {
    pub(super) fn new(title: &str, rate: usize) -> Self {
        Self { table: Table::new(title, &STEADY).drawn(&["p50 added", "p99 added"]), rate }
    }

    pub(super) fn round<'a>(&mut self, plan: Plan, field: &'a Field, works: impl Iterator<Item = Work<'a>>) -> Result<(), Error> {
        let mut direct = None;
        for work in [&field.origin, &field.relay].map(|target| Work::plain(target, field)).into_iter().chain(works) {
            let load = open(work.target, plan.steady, self.rate, work.heads);
            let (each, outcome) = timed(&work, &load)?;
            let direct = *direct.get_or_insert(outcome.latency);
            let [p50, p90, p99, p999] = added(outcome.latency, direct);
            self.table.add(&work.name, &[each, outcome.latency.p50, outcome.latency.p99, p50, p90, p99, p999]);
            work.target.forget_log()?;
        }
        Ok(())
    }
}

/// CPU microseconds for each request, and what the load saw.
pub(super) fn timed(work: &Work<'_>, load: &Load) -> Result<(f64, Outcome), Error> {
    let address = if work.protocol == Protocol::Http1 { work.target.address } else { work.target.http2 };
    let requests = if work.once { work.heads.len() } else { load.requests };
    let load = Load { address, protocol: work.protocol, requests, ..load.clone() };
    let before = work.target.cpu()?;
    let outcome = answered(&work.name, &load, 200)?;
    let spent = work.target.cpu()? - before;
    Ok((spent.as_secs_f64() * 1e6 / outcome.answered() as f64, outcome))
}

fn added(latency: Latency, direct: Latency) -> [f64; 4] {
    [latency.p50 - direct.p50, latency.p90 - direct.p90, latency.p99 - direct.p99, latency.p999 - direct.p999]
}
