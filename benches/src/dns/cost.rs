//! CPU per query at saturation, and latency at a fixed rate.

use std::{thread, time::Duration};

use super::{
    Extent, Field,
    load::{Questions, Work, at_rate, saturate},
    server::Server,
};
use crate::{Error, measure, report::Table};

pub(super) const CPU: &str = "CPU us/query";
pub(super) const COLUMNS: [&str; 7] = [CPU, "of unbound's", "queries/s", "p50", "p99", "p99.9", "lost or wrong of 10,000"];
pub(super) const WORKS: [Work; 3] = [Work::Refused, Work::Cached, Work::Mix];
/// Queries a second of the open loop.
const RATE: usize = 10_000;
/// In which the last access-log lines are written.
const LOGGED: Duration = Duration::from_millis(200);

/// One run of one server.
struct Run {
    name: String,
    cpu: f64,
    rest: [f64; 5],
}

pub(super) fn measure(field: &Field, extent: &Extent, questions: &mut Questions, tables: &mut [Table; 3]) -> Result<(), Error> {
    for server in &field.servers {
        // Caches are full from here on, and what is allocated once is.
        saturate(server.address, Work::Cached, questions, extent.queries / 4)?;
    }
    for _ in 0..extent.rounds {
        for (work, rows) in WORKS.into_iter().zip(tables.iter_mut()) {
            let runs = field.servers.iter().map(|server| run(field, server, extent, work, questions));
            let runs = runs.collect::<Result<Vec<Run>, Error>>()?;
            let unbound = field.servers.iter().position(|server| server.name == "unbound");
            let unbound = unbound.map_or(f64::NAN, |at| runs[at].cpu);
            for Run { name, cpu, rest: [speed, p50, p99, p999, bad] } in runs {
                rows.add(&name, &[cpu, cpu / unbound, speed, p50, p99, p999, bad]);
            }
        }
    }
    Ok(())
}

fn run(field: &Field, server: &Server, extent: &Extent, work: Work, questions: &mut Questions) -> Result<Run, Error> {
    let before = measure::cpu(server.pid())?;
    let full = saturate(server.address, work, questions, extent.queries)?;
    thread::sleep(LOGGED);
    let spent = measure::cpu(server.pid())? - before;
    let calm = at_rate(server.address, work, questions, RATE, |elapsed| elapsed >= extent.calm)?;
    field.ringfence.forget_log()?;
    let bad = [full, calm].map(|outcome| outcome.lost + outcome.wrong).iter().sum::<usize>();
    let all = [full, calm].map(|outcome| outcome.lost + outcome.answered).iter().sum::<usize>();
    Ok(Run {
        name: field.row(server.name),
        cpu: spent.as_secs_f64() * 1e6 / full.answered as f64,
        rest: [full.answered as f64 / full.seconds, calm.latency.p50, calm.latency.p99, calm.latency.p999, bad as f64 * 1e4 / all as f64],
    })
}
