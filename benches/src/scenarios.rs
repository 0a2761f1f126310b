//! What is measured, in rounds that go through all programs in turn, so that the machine's moods meet all of them.

use std::{net::SocketAddr, thread, time::Duration};

use serde::Serialize;

use crate::{
    Error, bulk,
    load::{Load, Outcome},
    measure::{self, Memory},
    policy::{Policy, request},
    report::{Report, Table},
    target::{Installation, Running, Target},
};

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Requests of one run in a closed loop; of those with fresh tokens, which cost several times as much, a quarter.
    requests: usize,
    /// Seconds of one run in an open loop.
    seconds: usize,
    /// Octets of one download in bulk, and connections of one octet each.
    pub(crate) bulk: u64,
    pub(crate) short: usize,
    /// Seconds that an idle sidecar is watched.
    idle: u64,
}

impl Plan {
    pub(crate) const FULL: Self = Self { rounds: 5, requests: 60_000, seconds: 5, bulk: 8 << 30, short: 8_000, idle: 20 };
    pub(crate) const QUICK: Self = Self { rounds: 3, requests: 20_000, seconds: 3, bulk: 2 << 30, short: 2_000, idle: 5 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Rest,
    Cost,
    Latency,
    Flood,
    Bulk,
}

/// Requests under way at a time.
const CONNECTIONS: usize = 64;
/// Tokens that are used in turn where they are cached.
const TOKENS: usize = 1_000;
/// Requests a second of the open loop.
const RATE: usize = 3_000;
/// Requests a second of the tenant that keeps to its limit, and of the one that may ask 100 times a second.
const QUIET_RATE: usize = 200;
const FLOOD_RATE: usize = 10_000;
/// Connections of the quiet tenant, and of the flooding one.
const QUIET_CONNECTIONS: usize = 8;
/// In which the last access-log lines are written.
const LOGGED: Duration = Duration::from_millis(200);
/// After which a program that was busy is at rest.
const SETTLED: Duration = Duration::from_secs(2);
/// Connections whose memory is told, and requests a second on all of them.
const HELD: usize = 100;
const HELD_RATE: usize = 1_000;
/// Seconds after which a run has failed.
const LIMIT: u64 = 60;

/// The programs of this run and the requests that they are given.
struct Field {
    origin: Target,
    relay: Target,
    sidecar: Target,
    installation: Installation,
    /// The heads of requests that need a token, of `TOKENS` callers.
    cached: Vec<String>,
}

/// `only`: all parts where it is `None`.
pub(crate) fn run(plan: Plan, only: Option<Part>, report: &mut Report) -> Result<(), Error> {
    let wanted = |part| only.is_none_or(|only| only == part);
    if wanted(Part::Bulk) {
        bulk::run(plan, report)?;
    }
    if only == Some(Part::Bulk) {
        return Ok(());
    }
    let origin = Target::origin()?;
    let relay = Target::relay(origin.address)?;
    let mut installation = Installation::new(origin.address)?;
    installation.start_control_plane()?;
    if wanted(Part::Rest) {
        rest(plan, &mut installation, report)?;
    }
    let (sidecar, _) = installation.start_sidecar()?;
    installation.policy.check(sidecar.name, sidecar.address)?;
    let cached = installation.policy.requests("cached", TOKENS)?;
    let field = Field { origin, relay, sidecar, installation, cached };
    let parts: [(Part, Measure); 3] = [(Part::Cost, cost), (Part::Latency, latency), (Part::Flood, flood)];
    parts.into_iter().filter(|(part, _)| wanted(*part)).try_for_each(|(_, measure)| measure(plan, &field, report))
}

type Measure = fn(Plan, &Field, &mut Report) -> Result<(), Error>;

impl Field {
    fn policy(&self) -> &Policy {
        &self.installation.policy
    }
}

fn closed(address: SocketAddr, requests: usize, heads: &[String]) -> Load {
    Load { address, connections: CONNECTIONS, requests, rate: None, heads: heads.to_vec(), limit: LIMIT }
}

fn open(address: SocketAddr, seconds: usize, heads: &[String]) -> Load {
    Load { requests: seconds * RATE, rate: Some(RATE as f64), ..closed(address, 0, heads) }
}

/// Runs a load that must be answered with `status` alone.
fn answered(load: &Load, status: u16) -> Result<Outcome, Error> {
    let outcome = Running::start(load)?.wait()?;
    match outcome.other_than(status) {
        0 => Ok(outcome),
        _ => Err(Error::Unexpected(format!("answers must be {status}: {:?}, {} errors", outcome.statuses, outcome.errors))),
    }
}

/// CPU of the program under test, at saturation.
fn cost(plan: Plan, field: &Field, report: &mut Report) -> Result<(), Error> {
    let table = report.table(
        "CPU of the program under test, 64 connections, each asking as soon as it is answered",
        &["us/request", "over the relay", "requests/s", "log lines/request"],
    );
    let plain = [request("/public/hello", None)];
    let spent = [field.policy().request("spent", "cost")?];
    let warm = closed(field.sidecar.address, plan.requests / 4, &field.cached);
    answered(&warm, 200)?;
    thread::sleep(LOGGED);
    field.installation.forget_log()?;
    for round in 0..plan.rounds {
        let fresh = field.policy().requests(&format!("fresh-{round}"), plan.requests / 4)?;
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

/// What a tenant feels of another that asks a hundred times as often as it may, at the same sidecar.
fn flood(plan: Plan, field: &Field, report: &mut Report) -> Result<(), Error> {
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
        heads: vec![field.policy().request("quiet", "quiet")?],
        limit: LIMIT,
    };
    // It begins before the quiet one and ends after it.
    let seconds = plan.seconds + 2;
    let noisy = Load {
        connections: CONNECTIONS,
        requests: seconds * FLOOD_RATE,
        rate: Some(FLOOD_RATE as f64),
        heads: vec![field.policy().request("noisy", "noisy")?],
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

/// A sidecar that has nothing to do, what a hundred connections add to it, and how soon it can begin.
fn rest(plan: Plan, installation: &mut Installation, report: &mut Report) -> Result<(), Error> {
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
    installation.start_control_plane()
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
