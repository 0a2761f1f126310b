//! An edit of one rule of a large zone: how long until it shows in an answer, and what whoever asks for other names feels of it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Extent, Field, LIMIT,
    ask::{self, NOERROR, NXDOMAIN},
    load::{Outcome, Questions, Work, at_rate},
    server::{Reload, Server},
    zone::{CHANGING, Changing},
};
use crate::{Error, measure, report::Table};

pub(super) const SECONDS: &str = "seconds";
pub(super) const EFFECT: [&str; 2] = [SECONDS, "of these CPU"];
pub(super) const FELT: [&str; 6] = ["p50", "p99", "p99.9", "max", "lost of 10,000", "seconds"];
/// Queries a second meanwhile: all IDs are used only after half a minute.
const RATE: usize = 2_000;
/// How often the rule that changes is asked for.
const EVERY: Duration = Duration::from_millis(1);
/// Before an edit, and after its effect shows.
const AROUND: Duration = Duration::from_millis(300);

pub(super) fn measure(
    field: &Field,
    extent: &Extent,
    questions: &mut Questions,
    effect: &mut Table,
    felt: &mut Table,
) -> Result<(), Error> {
    for server in field.servers.iter().filter(|server| !server.name.ends_with("logged")) {
        let mut edits = Edits { field, server, serial: 1, now: Changing::Refuses };
        for _ in 0..extent.edits {
            let before = edits.cpu()?;
            let seconds = edits.edit()?.as_secs_f64();
            effect.add(&field.row(server.name), &[seconds, (edits.cpu()? - before).as_secs_f64()]);
        }
        for _ in 0..extent.edits {
            let alone = at_rate(server.address, Work::Mix, questions, RATE, |elapsed| elapsed >= extent.calm)?;
            tell(&field.row(&format!("{}, no edit", server.name)), alone, felt);
            let during = edits.edit_under_load(questions)?;
            tell(&field.row(&format!("{}, an edit", server.name)), during, felt);
        }
    }
    Ok(())
}

fn tell(name: &str, outcome: Outcome, rows: &mut Table) {
    let Outcome { latency, lost, answered, seconds, .. } = outcome;
    let lost = lost as f64 * 1e4 / (lost + answered) as f64;
    rows.add(name, &[latency.p50, latency.p99, latency.p999, latency.max, lost, seconds]);
}

struct Edits<'a> {
    field: &'a Field,
    server: &'a Server,
    serial: u32,
    now: Changing,
}

impl Edits<'_> {
    /// From the file's being there to the first answer that shows it.
    fn edit(&mut self) -> Result<Duration, Error> {
        let (next, wanted) = match self.now {
            Changing::Refuses => (Changing::LetsPass, NOERROR),
            Changing::LetsPass => (Changing::Refuses, NXDOMAIN),
        };
        (self.now, self.serial) = (next, self.serial + 1);
        let reading = self.server.edit(&self.field.zone, self.serial, next)?;
        let started = Instant::now();
        ask::until(self.server.address, CHANGING, wanted, EVERY, LIMIT)?;
        drop(reading);
        Ok(started.elapsed())
    }

    /// Of whoever reads the zone: the server itself, and the control plane where there is one.
    fn cpu(&self) -> Result<Duration, Error> {
        let own = measure::cpu(self.server.pid())?;
        match (&self.server.reload, self.field.ringfence.control_plane_pid()) {
            (Reload::ByItself, Some(pid)) => Ok(own + measure::cpu(pid)?),
            _ => Ok(own),
        }
    }

    fn edit_under_load(&mut self, questions: &mut Questions) -> Result<Outcome, Error> {
        let (over, address) = (AtomicBool::new(false), self.server.address);
        thread::scope(|scope| {
            let load = scope.spawn(|| at_rate(address, Work::Mix, questions, RATE, |_| over.load(Ordering::Relaxed)));
            thread::sleep(AROUND);
            let edited = self.edit();
            thread::sleep(AROUND);
            over.store(true, Ordering::Relaxed);
            let outcome = load.join().unwrap_or_else(|_| Err(Error::Unexpected("the load panicked".into())));
            edited.and(outcome)
        })
    }
}
