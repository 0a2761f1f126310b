//! The policy's cost in CPU and in latency.

use std::{thread, time::Duration};

use super::{Field, Plan, answered, closed, open};
use crate::{Error, measure, policy::request, report::Report, target::Target};

/// In which the last access-log lines are written.
const LOGGED: Duration = Duration::from_millis(200);

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let field = Field::new()?;
    cost(plan, &field, report)?;
    latency(plan, &field, report)
}

/// CPU of the program under test, at saturation.
fn cost(plan: Plan, field: &Field, report: &mut Report) -> Result<(), Error> {
    let table = report.table(
        "CPU of the program under test, 64 connections, each asking as soon as it is answered",
        &["us/request", "over the relay", "requests/s", "log lines/request"],
    );
    let plain = [request("/public/hello", None)];
    let spent = [field.installation.policy.request("spent", "cost")?];
    let warm = closed(field.sidecar.address, plan.requests / 4, &field.cached);
    answered(&warm, 200)?;
    thread::sleep(LOGGED);
    field.installation.forget_log()?;
    for round in 0..plan.rounds {
        let fresh = field.installation.policy.requests(&format!("fresh-{round}"), plan.requests / 4)?;
        let works: [(&str, &Target, &[String], usize, u16); 5] = [
            ("bare relay, the policy's requests", &field.relay, &field.cached, plan.requests, 200),
            ("ringfence, public path", &field.sidecar, &plain, plan.requests, 200),
            ("ringfence, policy, 1,000 tokens in turn", &field.sidecar, &field.cached, plan.requests, 200),
            ("ringfence, policy, a new token each time", &field.sidecar, &fresh, fresh.len(), 200),
            ("ringfence, over the limit", &field.sidecar, &spent, plan.requests, 429),
        ];
        let mut floor = None;
        for (name, target, heads, requests, status) in works {
            let before = measure::cpu(target.pid())?;
            let outcome = answered(&closed(target.address, requests, heads), status)?;
            let spent = measure::cpu(target.pid())? - before;
            let each = spent.as_secs_f64() * 1e6 / outcome.answered() as f64;
            let floor = *floor.get_or_insert(each);
            thread::sleep(LOGGED);
            let logged = field.installation.logged()? as f64 / outcome.answered() as f64;
            field.installation.forget_log()?;
            table.add(name, &[each, each - floor, outcome.answered() as f64 / outcome.seconds, logged]);
        }
    }
    Ok(())
}

/// What the programs add to the time of an answer, at a rate that none of them is busy with.
fn latency(plan: Plan, field: &Field, report: &mut Report) -> Result<(), Error> {
    let table = report.table(
        "Latency at 3,000 requests/s, us; added: over the origin alone in the same round",
        &["p50", "p99", "p99.9", "p50 added", "p99 added"],
    );
    let plain = [request("/public/hello", None)];
    let works: [(&str, &Target, &[String]); 4] = [
        ("origin alone", &field.origin, &field.cached),
        ("bare relay", &field.relay, &field.cached),
        ("ringfence, public path", &field.sidecar, &plain),
        ("ringfence, policy, 1,000 tokens in turn", &field.sidecar, &field.cached),
    ];
    for _ in 0..plan.rounds {
        let mut alone = None;
        for (name, target, heads) in works {
            let latency = answered(&open(target.address, plan.seconds, heads), 200)?.latency;
            let alone = *alone.get_or_insert(latency);
            table.add(name, &[latency.p50, latency.p99, latency.p999, latency.p50 - alone.p50, latency.p99 - alone.p99]);
        }
        field.installation.forget_log()?;
    }
    Ok(())
}
