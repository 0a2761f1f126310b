//! One tenant floods: what the others feel.

use std::{thread, time::Duration};

use super::{CONNECTIONS, Field, LIMIT, Plan};
use crate::{
    Error,
    load::{Load, Outcome},
    measure,
    report::Report,
    target::Running,
};

/// Requests a second of the tenant that keeps to its limit, and of the one that may ask 100 times a second.
const QUIET_RATE: usize = 200;
const FLOOD_RATE: usize = 10_000;
/// Connections of the quiet tenant, and of the flooding one.
const QUIET_CONNECTIONS: usize = 8;

/// What a tenant feels of another that asks a hundred times as often as it may, at the same sidecar.
pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let field = Field::new()?;
    let table = report.table(
        "A tenant at 200 requests/s beside one that asks 10,000 times a second and may 100 times, us",
        &["p50", "p99", "max", "not answered 200", "flood answered/s", "of these let through/s", "sidecar CPU, %"],
    );
    let address = field.sidecar.address;
    let quiet = Load {
        address,
        connections: QUIET_CONNECTIONS,
        requests: plan.seconds * QUIET_RATE,
        rate: Some(QUIET_RATE as f64),
        heads: vec![field.installation.policy.request("quiet", "quiet")?],
        limit: LIMIT,
    };
    // It begins before the quiet one and ends after it.
    let seconds = plan.seconds + 2;
    let noisy = Load {
        connections: CONNECTIONS,
        requests: seconds * FLOOD_RATE,
        rate: Some(FLOOD_RATE as f64),
        heads: vec![field.installation.policy.request("noisy", "noisy")?],
        ..quiet.clone()
    };
    // What is felt of this one is the machine's doing: it shares its processors, and no policy.
    let elsewhere = Load { address: field.relay.address, ..noisy.clone() };
    for _ in 0..plan.rounds {
        for (name, flood) in
            [("alone", None), ("the flood is at the bare relay", Some(&elsewhere)), ("the flood is at the same sidecar", Some(&noisy))]
        {
            let flood = flood.map(Running::start).transpose()?;
            if flood.is_some() {
                thread::sleep(Duration::from_secs(1));
            }
            let before = measure::cpu(field.sidecar.pid())?;
            let felt = Running::start(&quiet)?.wait()?;
            let spent = measure::cpu(field.sidecar.pid())? - before;
            let (answered, let_through) = match flood.map(Running::wait).transpose()? {
                Some(flood) => (flood.answered() as f64 / flood.seconds, (flood.answered() - flood.other_than(200)) as f64 / flood.seconds),
                None => (0.0, 0.0),
            };
            let Outcome { latency, seconds, .. } = felt;
            let busy = 100.0 * spent.as_secs_f64() / seconds;
            table.add(name, &[latency.p50, latency.p99, latency.max, felt.other_than(200) as f64, answered, let_through, busy]);
        }
        field.installation.forget_log()?;
    }
    Ok(())
}
