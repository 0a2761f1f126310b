//! Programs that have nothing to do: memory, wake-ups, what a hundred busy connections and a thousand idle ones add, and how soon each
//! can begin.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use super::{
    Plan,
    field::{Check, Field},
    open,
};
use crate::{
    Error,
    load::{Load, Running, http1::reply},
    peers::{Program, envoy, haproxy, nginx, ringfence::Installation},
    policy::Algorithm,
    report::Report,
    target::Target,
};

/// After which a program that was busy is at rest.
const SETTLED: Duration = Duration::from_secs(2);
/// Connections whose memory is told, requests a second on all of them, and how long.
const HELD: usize = 100;
const HELD_RATE: usize = 1_000;
const HELD_FOR: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// Connections that have been used once.
const IDLE: usize = 1_000;
/// What a sidecar may take with `HELD` connections, and the time to its first right answer.
const MOST_KIB: f64 = 15.0 * 1024.0;
const LATEST_MS: f64 = 50.0;

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let field = Field::new()?;
    let (dir, upstream, issuer) = (field.dir.path(), field.origin.address, &field.policy.issuer);
    let mut installation = Installation::policy(dir, upstream, issuer)?;
    let sidecar = installation.sidecar()?;
    let with_policy = [
        ("ringfence", Some(sidecar.clone())),
        ("envoy", envoy::policy(dir, upstream, issuer, true)?),
        ("haproxy", haproxy::policy(dir, upstream, issuer)?),
    ];
    let plain = [("nginx", nginx::plain(dir, upstream)?)];
    let programs: Vec<Program> = with_policy.iter().chain(&plain).filter_map(|(_, program)| program.clone()).collect();
    let good = field.policy.request(Algorithm::Es256, "acme", "start")?;

    // Before any sidecar has stored what it knows.
    let (first, nothing_stored) = sidecar.start_until_right(&good)?;
    first.end()?;
    let mut targets = field.start(with_policy, Check::Policy, report);
    targets.extend(field.start(plain, Check::Plain, report));
    memory(plan, &field, &targets, report)?;
    targets.into_iter().try_for_each(Target::end)?;

    installation.stop_control_plane()?;
    let table = report.table("From exec to the first right answer", &["ms"]);
    table.add("ringfence, control plane up, nothing stored", &[nothing_stored.as_secs_f64() * 1e3]);
    for _ in 0..2 * plan.rounds {
        for program in &programs {
            let (target, first) = program.start_until_right(&good)?;
            table.add(&program.name, &[first.as_secs_f64() * 1e3]);
            target.end()?;
        }
    }
    let first = table.values(&sidecar.name, "ms").to_vec();
    report.goal("ms from exec to the first right answer, last known good", LATEST_MS, first);
    Ok(())
}

fn memory(plan: Plan, field: &Field, targets: &[Target], report: &mut Report) -> Result<(), Error> {
    const COLUMNS: [&str; 8] = [
        "resident KiB",
        "proportional KiB",
        "written KiB",
        "wake-ups/s",
        "100 connections: resident KiB",
        "proportional KiB ",
        "written KiB ",
        "octets/idle connection",
    ];
    let table = report.table("At rest, with 100 connections at 1,000 requests/s, and with 1,000 idle connections", &COLUMNS);
    thread::sleep(SETTLED);
    let woken = |targets: &[Target]| targets.iter().map(Target::switches).collect::<Result<Vec<_>, _>>();
    let before = woken(targets)?;
    thread::sleep(plan.idle);
    let after = woken(targets)?;
    let heads = field.policy.requests(Algorithm::Es256, "held", HELD)?;
    for (target, (before, after)) in targets.iter().zip(before.iter().zip(&after)) {
        let wakeups = (after - before) as f64 / plan.idle.as_secs_f64();
        let idle = target.memory()?;
        let running = Running::start(&Load { callers: HELD, ..open(target, HELD_FOR, HELD_RATE, &heads) })?;
        thread::sleep(HELD_FOR * 2 / 3);
        let busy = target.memory()?;
        running.wait()?;
        thread::sleep(SETTLED);
        let each = each_idle_connection(target, &heads)?;
        let kib = [idle.rss, idle.pss, idle.dirty, busy.rss, busy.pss, busy.dirty].map(|kib| kib as f64);
        table.add(&target.name, &[kib[0], kib[1], kib[2], wakeups, kib[3], kib[4], kib[5], each]);
    }
    let busy = table.values("ringfence", COLUMNS[4]).to_vec();
    report.goal("resident KiB with 100 connections", MOST_KIB, busy);
    Ok(())
}

/// Resident octets that a connection adds, which has been used once and is kept.
fn each_idle_connection(target: &Target, heads: &[String]) -> Result<f64, Error> {
    let before = target.memory()?.rss;
    let held = heads.iter().cycle().take(IDLE).map(|head| used_once(target, head)).collect::<io::Result<Vec<_>>>();
    let held = held.map_err(Error::io(format!("{}: a connection to keep", target.name)))?;
    let after = target.memory()?.rss;
    drop(held);
    Ok((after as f64 - before as f64) * 1024.0 / IDLE as f64)
}

fn used_once(target: &Target, head: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(target.address)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(head.as_bytes())?;
    let (mut octets, mut piece) = (Vec::new(), [0; 4096]);
    while reply(&octets)?.is_none_or(|(length, _)| octets.len() < length) {
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => octets.extend_from_slice(&piece[..read]),
        }
    }
    Ok(stream)
}
