//! The load: requests over connections that are kept, as many at a time as there are callers (closed loop) or at a fixed rate (open loop).
//! One thread; bounded in number and time.

pub(crate) mod http1;
mod http2;
pub(crate) mod tunnel;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    io::Write,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Error, process::Process};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// A connection for each caller.
    Http1,
    /// Callers share connections, so many each.
    Http2 { streams: usize },
    /// Not of requests: a new connection for each, and `heads` are names.
    Tunnel(tunnel::Asks),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    /// Requests under way at a time, at most.
    pub(crate) callers: usize,
    /// Requests in all, at most.
    pub(crate) requests: usize,
    /// After which no further request is sent.
    pub(crate) duration: Option<Duration>,
    /// Requests a second, whether they are answered in time or not; `None`: each caller asks as soon as it has been answered.
    pub(crate) rate: Option<f64>,
    /// What is sent: request heads, in turn.
    pub(crate) heads: Vec<String>,
    /// Seconds after which the run has failed.
    pub(crate) limit: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) statuses: BTreeMap<u16, usize>,
    /// Requests without an answer.
    pub(crate) errors: usize,
    pub(crate) seconds: f64,
    pub(crate) latency: Latency,
}

/// Microseconds from the request to the last octet of its reply, by quantile.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Outcome {
    pub(crate) fn answered(&self) -> usize {
        self.statuses.values().sum()
    }

    /// Answers of another status, and requests without one.
    pub(crate) fn other_than(&self, status: u16) -> usize {
        self.errors + self.answered() - self.statuses.get(&status).copied().unwrap_or(0)
    }
}

pub(crate) fn run() -> Result<(), Error> {
    let load: Load = serde_json::from_reader(io::stdin().lock())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
    let limit = Duration::from_secs(load.limit);
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, async { timeout(limit, generate(load)).await });
    let outcome = outcome.map_err(|_| Error::Load(format!("not done within {limit:?}")))??;
    Ok(serde_json::to_writer(io::stdout().lock(), &outcome)?)
}

struct Run {
    load: Load,
    started: Instant,
    next: Cell<usize>,
    latencies: RefCell<Vec<Duration>>,
    statuses: RefCell<BTreeMap<u16, usize>>,
    errors: Cell<usize>,
}

async fn generate(load: Load) -> Result<Outcome, Error> {
    let (callers, protocol) = (load.callers, load.protocol);
    // Before the clock starts.
    let openings: Rc<[_]> = match protocol {
        Protocol::Tunnel(asks) => tunnel::openings(&load.heads, asks)?.into(),
        Protocol::Http1 | Protocol::Http2 { .. } => Rc::default(),
    };
    let run = Rc::new(Run {
        latencies: RefCell::default(),
        started: Instant::now(),
        load,
        next: Cell::new(0),
        statuses: RefCell::default(),
        errors: Cell::new(0),
    });
    let mut running = tokio::task::JoinSet::new();
    match protocol {
        Protocol::Http1 => (0..callers).for_each(|_| drop(running.spawn_local(http1::caller(run.clone())))),
        Protocol::Http2 { streams } => {
            (0..callers.div_ceil(streams)).for_each(|_| drop(running.spawn_local(http2::connection(run.clone(), streams))));
        }
        Protocol::Tunnel(_) => (0..callers).for_each(|_| drop(running.spawn_local(tunnel::caller(run.clone(), openings.clone())))),
    }
    running.join_all().await;
    let seconds = run.started.elapsed().as_secs_f64();
    Ok(Outcome { statuses: run.statuses.take(), errors: run.errors.get(), seconds, latency: Latency::of(run.latencies.take()) })
}

impl Run {
    /// The next request's number and from when its latency counts; `None`: all have been sent.
    async fn next(&self) -> Option<(usize, Instant)> {
        let number = self.next.replace(self.next.get() + 1);
        if number >= self.load.requests || self.load.duration.is_some_and(|duration| self.started.elapsed() >= duration) {
            return None;
        }
        Some((number, self.turn(number).await))
    }

    fn answered(&self, from: Instant, status: u16) {
        self.latencies.borrow_mut().push(from.elapsed());
        *self.statuses.borrow_mut().entry(status).or_default() += 1;
    }

    fn failed(&self) {
        self.errors.set(self.errors.get() + 1);
    }

    /// Waits for the time of the `number`th request and tells from when its latency counts. Where every connection was busy at that
    /// time, it counts from then: what waits for a slow answer is slow too. A timer that fires late is this program's own fault.
    async fn turn(&self, number: usize) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.load.rate else { return now };
        let due = self.started + Duration::from_secs_f64(number as f64 / rate);
        if due <= now {
            return due;
        }
        sleep_until(due).await;
        Instant::now()
    }
}

/// A load that is under way, as a process.
pub(crate) struct Running(Process);

impl Running {
    pub(crate) fn start(load: &Load) -> Result<Self, Error> {
        let mut process = Process::role(&["load"])?;
        let mut stdin = process.child.stdin.take().ok_or_else(|| Error::Load("no standard input".into()))?;
        stdin.write_all(&serde_json::to_vec(load)?).map_err(Error::io("load"))?;
        Ok(Self(process))
    }

    pub(crate) fn wait(mut self) -> Result<Outcome, Error> {
        let Some(stdout) = &mut self.0.stdout else { return Err(Error::Load("no standard output".into())) };
        serde_json::from_reader(stdout).map_err(|error| Error::Load(error.to_string()))
    }
}

impl Latency {
    pub(crate) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |quantile: f64| {
            let rank = (latencies.len() as f64 * quantile) as usize;
            latencies.get(rank.min(latencies.len().saturating_sub(1))).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}
