//! Simulated sidecars, all of them in one process: each has the sidecar's own connection, state machine and assembly of its policy, and
//! no traffic. What they acknowledge is logged with its time.

mod reach;
mod sidecar;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    io::{self, BufRead, Write},
    process::ChildStdin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use nix::time::ClockId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

pub(crate) use self::reach::{Reach, Tls};
use self::{reach::Links, sidecar::Sidecar};
use crate::{Error, measure, process::Process};

/// After which what is waited for will not come.
const LIMIT: Duration = Duration::from_secs(120);
/// Until nothing more comes of what has been acknowledged: whoever is not concerned has had time to be told all the same.
const QUIET: Duration = Duration::from_millis(100);

/// Sidecars that wait for their first SVID at a time, on a machine that cannot keep the pace. An answer that comes too late has used up
/// the join token.
const JOINING: usize = 64;

/// CLOCK_MONOTONIC, which all processes of a machine share.
pub(crate) fn now() -> Result<Duration, Error> {
    ClockId::CLOCK_MONOTONIC.now().map(Duration::from).map_err(|error| Error::io("clock")(error.into()))
}

/// Who connects, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) reach: Reach,
    pub(crate) workloads: Vec<String>,
    /// Sidecars of each workload. The `n`th sidecar of all serves the workload `n / replicas`.
    pub(crate) replicas: usize,
    /// How many begin in a second, and only while not too many wait for their first SVID; `None`: all at once.
    pub(crate) per_second: Option<u32>,
}

/// A response that was answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ack {
    pub(crate) sidecar: usize,
    /// When the answer was on its way, by `now`.
    pub(crate) at: Duration,
    /// What the response told of: `Tenant/acme`.
    pub(crate) names: Vec<String>,
    /// The response, encoded.
    pub(crate) octets: usize,
    /// Something of it was refused.
    pub(crate) refused: bool,
}

/// A line on standard input, answered by one on standard output.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Waits until every sidecar has a policy in force. Told is what was acknowledged since the last such order, as below.
    InForce,
    /// Waits until so many sidecars have acknowledged something since the last such order.
    Acknowledged(usize),
    /// What each sidecar holds.
    Held,
}

/// Reads a `Group` and connects it; then obeys until standard input ends.
pub(crate) fn run() -> Result<(), Error> {
    let mut lines = io::stdin().lock().lines();
    let Some(group) = lines.next() else { return Ok(()) };
    let group: Group = serde_json::from_str(&group.map_err(Error::io("standard input"))?)?;
    drop(lines);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
    LocalSet::new().block_on(&runtime, obey(group))
}

async fn obey(group: Group) -> Result<(), Error> {
    let log = &Rc::new(Log::default());
    let links = Links::new(group.reach);
    let places = Arc::new(Semaphore::new(group.per_second.map_or(Semaphore::MAX_PERMITS, |_| JOINING)));
    let mut sidecars = Vec::new();
    for number in 0..group.workloads.len() * group.replicas {
        let (workload, replica) = (&group.workloads[number / group.replicas], number % group.replicas);
        let sidecar = Rc::new(RefCell::new(Sidecar::new(number, workload, replica, log.clone())));
        let (begun, link, places) = (sidecar.clone(), links.of(number, workload)?, places.clone());
        let delay = group.per_second.map_or(0.0, |per_second| number as f64 / f64::from(per_second));
        spawn_local(async move {
            sleep(Duration::from_secs_f64(delay)).await;
            if let Ok(place) = places.acquire_owned().await {
                sidecar::run(begun, link, place).await;
            }
        });
        sidecars.push(sidecar);
    }
    let (orders, mut next) = mpsc::unbounded_channel();
    std::thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| orders.send(line)));
    while let Some(line) = next.recv().await {
        let until: Box<dyn Fn() -> bool + '_> = match serde_json::from_str(&line)? {
            Order::InForce => Box::new(|| log.in_force.get() == sidecars.len()),
            Order::Acknowledged(wanted) => Box::new(move || log.acknowledged.borrow().len() >= wanted),
            Order::Held => {
                let held: Vec<_> = sidecars.iter().map(|sidecar| sidecar.borrow().held()).collect();
                say(&held)?;
                continue;
            }
        };
        timeout(LIMIT, log.wait(until)).await.map_err(|_| Error::Load(format!("{line} did not come within {LIMIT:?}")))?;
        sleep(QUIET).await;
        say(&log.take())?;
    }
    Ok(())
}

fn say(answer: &impl Serialize) -> Result<(), Error> {
    let line = serde_json::to_string(answer)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Error::io("standard output"))
}

/// What the sidecars did.
#[derive(Debug, Default)]
struct Log {
    acks: RefCell<Vec<Ack>>,
    /// By whom they are.
    acknowledged: RefCell<HashSet<usize>>,
    /// How many sidecars have a policy.
    in_force: Cell<usize>,
    changed: Notify,
}

impl Log {
    fn push(&self, ack: Ack) {
        self.acknowledged.borrow_mut().insert(ack.sidecar);
        self.acks.borrow_mut().push(ack);
        self.changed.notify_one();
    }

    async fn wait(&self, until: impl Fn() -> bool) {
        while !until() {
            self.changed.notified().await;
        }
    }

    fn take(&self) -> Vec<Ack> {
        self.acknowledged.take();
        self.acks.take()
    }
}

/// They, seen from whoever directs them.
pub(crate) struct Sidecars {
    stdin: ChildStdin,
    process: Process,
}

impl Sidecars {
    /// The first of them begins to connect at the time that is told.
    pub(crate) fn connect(group: &Group) -> Result<(Self, Duration), Error> {
        let mut process = Process::role(&["sidecars"])?;
        let stdin = process.child.stdin.take().ok_or_else(|| Error::Load("no standard input".into()))?;
        let mut sidecars = Self { stdin, process };
        let from = now()?;
        sidecars.tell(group)?;
        Ok((sidecars, from))
    }

    /// What all have acknowledged since they were last asked, once each has a policy in force.
    pub(crate) fn in_force(&mut self) -> Result<Vec<Ack>, Error> {
        self.ask(&Order::InForce)
    }

    /// The same, once so many have acknowledged anything.
    pub(crate) fn acknowledged(&mut self, sidecars: usize) -> Result<Vec<Ack>, Error> {
        self.ask(&Order::Acknowledged(sidecars))
    }

    /// The names of what each holds, sorted: `Tenant/acme`.
    pub(crate) fn held(&mut self) -> Result<Vec<Vec<String>>, Error> {
        self.ask(&Order::Held)
    }

    /// Of all of them together.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        measure::cpu(self.process.pid())
    }

    fn ask<A: DeserializeOwned>(&mut self, order: &Order) -> Result<A, Error> {
        self.tell(order)?;
        Ok(serde_json::from_str(&self.process.line()?)?)
    }

    fn tell(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let line = format!("{}\n", serde_json::to_string(line)?);
        self.stdin.write_all(line.as_bytes()).map_err(Error::io("sidecars"))
    }
}
