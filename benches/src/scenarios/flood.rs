//! One tenant floods: what the others feel.

use std::{thread, time::Duration};

use super::{
    CALLERS, LIMIT, Plan, closed,
    field::{Check, Field},
};
use crate::{
    Error,
    load::{Load, Outcome, Running},
    peers::ringfence::Installation,
    policy::Algorithm,
    report::Report,
};

/// Requests a second of the tenant that keeps to its limit, and of the one that may ask 100 times a second.
const QUIET_RATE: usize = 200;
const FLOOD_RATE: usize = 10_000;
/// Connections of the quiet tenant, and of the flooding one.
const QUIET_CONNECTIONS: usize = 8;
const HEAD_START: Duration = Duration::from_secs(1);

/// What a tenant feels of another that asks a hundred times as often as it may, at the same sidecar.
pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let field = Field::new()?;
    let installation = Installation::policy(field.dir.path(), field.origin.address, &field.policy.issuer)?;
    let targets = field.start([("ringfence", Some(installation.sidecar()?))], Check::Policy, report);
    let Some(sidecar) = targets.first() else { return Ok(()) };
    let table = report.table(
        "A tenant at 200 requests/s beside one that asks 10,000 times a second and may 100 times, us",
        &["p50", "p99", "max", "not answered 200", "flood answered/s", "of these let through/s", "ringfence CPU, %"],
    );
    let request = |tenant| field.policy.request(Algorithm::Es256, tenant, tenant);
    let load = |rate: usize, callers, duration: Duration, head| Load {
        callers,
        requests: (duration.as_secs_f64() * rate as f64) as usize,
        rate: Some(rate as f64),
        ..closed(sidecar, LIMIT, &[head])
    };
    let quiet = load(QUIET_RATE, QUIET_CONNECTIONS, plan.steady, request("quiet")?);
    // It begins before the quiet one and ends after it.
    let noisy = load(FLOOD_RATE, CALLERS, plan.steady + 2 * HEAD_START, request("noisy")?);
    // What is felt of this one is the machine's doing: it shares its processors, and no policy.
    let elsewhere = Load { address: field.relay.address, ..noisy.clone() };
    for _ in 0..plan.rounds {
        for (name, flood) in
            [("alone", None), ("the flood is at the bare relay", Some(&elsewhere)), ("the flood is at the same sidecar", Some(&noisy))]
        {
            let flood = flood.map(Running::start).transpose()?;
            if flood.is_some() {
                thread::sleep(HEAD_START);
            }
            let before = sidecar.cpu()?;
            let felt = Running::start(&quiet)?.wait()?;
            let spent = sidecar.cpu()? - before;
            let (answered, let_through) = match flood.map(Running::wait).transpose()? {
                Some(flood) => (flood.answered() as f64 / flood.seconds, (flood.answered() - flood.other_than(200)) as f64 / flood.seconds),
                None => (0.0, 0.0),
            };
            let Outcome { latency, seconds, .. } = felt;
            let busy = 100.0 * spent.as_secs_f64() / seconds;
            table.add(name, &[latency.p50, latency.p99, latency.max, felt.other_than(200) as f64, answered, let_through, busy]);
        }
        sidecar.forget_log()?;
    }
    Ok(())
}
