//! Memory and wake-ups at rest, time to start.

use std::{thread, time::Duration};

use super::{Plan, closed};
use crate::{
    Error,
    load::Load,
    measure::{self, Memory},
    peers::ringfence::Installation,
    report::{Report, Table},
    target::{Running, Target},
};

/// After which a program that was busy is at rest.
const SETTLED: Duration = Duration::from_secs(2);
/// Connections whose memory is told, and requests a second on all of them.
const HELD: usize = 100;
const HELD_RATE: usize = 1_000;

/// A sidecar that has nothing to do, what a hundred connections add to it, and how soon it can begin.
pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let origin = Target::origin()?;
    let mut installation = Installation::new(origin.address)?;
    installation.start_control_plane()?;
    let table = report.table("At rest", &["resident KiB", "proportional KiB", "of these written to", "wake-ups/s"]);
    let (sidecar, first) = installation.start_sidecar()?;
    idle("after its start", sidecar.pid(), plan, table)?;
    let heads = installation.policy.requests("held", HELD)?;
    let rate = Some(HELD_RATE as f64);
    let load = Load { connections: HELD, requests: 4 * HELD_RATE, rate, ..closed(sidecar.address, 0, &heads) };
    let running = Running::start(&load)?;
    thread::sleep(Duration::from_secs(2));
    add_memory("100 connections, 1,000 requests/s", measure::memory(sidecar.pid())?, None, table);
    running.wait()?;
    idle("after that", sidecar.pid(), plan, table)?;
    sidecar.end()?;
    let table = report.table("From exec to the first request let through under its policy", &["ms"]);
    table.add("control plane up, nothing stored", &[first.as_secs_f64() * 1e3]);
    installation.stop_control_plane()?;
    for _ in 0..2 * plan.rounds {
        let (sidecar, first) = installation.start_sidecar()?;
        table.add("control plane away, last known good", &[first.as_secs_f64() * 1e3]);
        sidecar.end()?;
    }
    Ok(())
}

fn idle(name: &str, pid: u32, plan: Plan, table: &mut Table) -> Result<(), Error> {
    thread::sleep(SETTLED);
    let before = measure::switches(pid)?;
    thread::sleep(Duration::from_secs(plan.idle));
    let woken = (measure::switches(pid)? - before) as f64 / plan.idle as f64;
    add_memory(name, measure::memory(pid)?, Some(woken), table);
    Ok(())
}

fn add_memory(name: &str, memory: Memory, woken: Option<f64>, table: &mut Table) {
    let Memory { rss, pss, dirty } = memory;
    let figures: Vec<f64> = [rss, pss, dirty].map(|kib| kib as f64).into_iter().chain(woken).collect();
    table.add(name, &figures);
}
