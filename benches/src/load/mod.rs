//! The load: HTTP/1.1 requests over keep-alive connections, as many at a time as there are connections (closed loop) or at a fixed rate
//! (open loop). One thread; bounded in number and time.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::Error;

const MAX_FIELDS: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// Requests a second, whether they are answered in time or not; `None`: each connection asks as soon as it has been answered.
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
    let outcome = outcome.map_err(|_| Error::Load(format!("not done within {limit:?}")))?;
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

async fn generate(load: Load) -> Outcome {
    let connections = load.connections;
    let run = Rc::new(Run {
        latencies: RefCell::new(Vec::with_capacity(load.requests)),
        started: Instant::now(),
        load,
        next: Cell::new(0),
        statuses: RefCell::default(),
        errors: Cell::new(0),
    });
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..connections {
        running.spawn_local(ask(run.clone()));
    }
    running.join_all().await;
    let seconds = run.started.elapsed().as_secs_f64();
    Outcome { statuses: run.statuses.take(), errors: run.errors.get(), seconds, latency: Latency::of(run.latencies.take()) }
}

/// One connection, opened anew where it breaks, until no request is left.
async fn ask(run: Rc<Run>) {
    let mut connection = None;
    loop {
        let number = run.next.replace(run.next.get() + 1);
        if number >= run.load.requests {
            return;
        }
        let from = run.turn(number).await;
        let head = &run.load.heads[number % run.load.heads.len()];
        match exchange(&mut connection, run.load.address, head.as_bytes()).await {
            Ok(reply) => {
                run.latencies.borrow_mut().push(from.elapsed());
                *run.statuses.borrow_mut().entry(reply.status).or_default() += 1;
            }
            Err(_) => {
                connection = None;
                run.errors.set(run.errors.get() + 1);
            }
        }
    }
}

impl Run {
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

#[derive(Debug)]
struct Reply {
    status: u16,
    closes: bool,
}

async fn exchange(connection: &mut Option<(TcpStream, Vec<u8>)>, address: SocketAddr, head: &[u8]) -> io::Result<Reply> {
    let (stream, octets) = match connection {
        Some(open) => open,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connection.insert((stream, Vec::with_capacity(4096)))
        }
    };
    stream.write_all(head).await?;
    loop {
        if let Some((length, reply)) = reply(octets)?
            && octets.len() >= length
        {
            octets.drain(..length);
            if reply.closes {
                *connection = None;
            }
            return Ok(reply);
        }
        if stream.read_buf(octets).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The reply whose head stands in `octets`, and its whole length; `None`: the head is not all there.
fn reply(octets: &[u8]) -> io::Result<Option<(usize, Reply)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(octets).map_err(io::Error::other)? else { return Ok(None) };
    let field = |name: &str| response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
    let length = field("content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("a reply without Content-Length"))?;
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    Ok(Some((head + length, Reply { status: response.code.unwrap_or_default(), closes })))
}
