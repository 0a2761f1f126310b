//! What is measured, in rounds that go through all programs in turn, so that the machine's moods meet all of them.

mod bulk;
mod flood;
mod policy;
mod rest;

use std::net::SocketAddr;

use serde::Serialize;

pub(crate) use self::bulk::source;
use crate::{
    Error, dns,
    load::{Load, Outcome},
    peers::ringfence::Installation,
    report::Report,
    target::{Running, Target},
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
    Bulk,
    Rest,
    Policy,
    Flood,
    Dns,
}

/// Each starts what it needs, fills tables of the report, and ends what it started.
type Scenario = fn(Plan, &mut Report) -> Result<(), Error>;

const SCENARIOS: [(Part, Scenario); 5] =
    [(Part::Bulk, bulk::run), (Part::Rest, rest::run), (Part::Policy, policy::run), (Part::Flood, flood::run), (Part::Dns, dns::run)];

/// `only`: all parts where it is `None`.
pub(crate) fn run(plan: Plan, only: Option<Part>, report: &mut Report) -> Result<(), Error> {
    let wanted = SCENARIOS.into_iter().filter(|(part, _)| only.is_none_or(|only| only == *part));
    wanted.into_iter().try_for_each(|(_, scenario)| scenario(plan, report))
}

/// The programs of this run and the requests that they are given.
struct Field {
    origin: Target,
    relay: Target,
    sidecar: Target,
    installation: Installation,
    /// The heads of requests that need a token, of `TOKENS` callers.
    cached: Vec<String>,
}

impl Field {
    fn new() -> Result<Self, Error> {
        let origin = Target::origin()?;
        let relay = Target::relay(origin.address)?;
        let mut installation = Installation::new(origin.address)?;
        installation.start_control_plane()?;
        let (sidecar, _) = installation.start_sidecar()?;
        installation.policy.check(sidecar.name, sidecar.address)?;
        let cached = installation.policy.requests("cached", TOKENS)?;
        Ok(Self { origin, relay, sidecar, installation, cached })
    }
}

/// Requests under way at a time.
const CONNECTIONS: usize = 64;
/// Tokens that are used in turn where they are cached.
const TOKENS: usize = 1_000;
/// Requests a second of the open loop.
const RATE: usize = 3_000;
/// Seconds after which a run has failed.
const LIMIT: u64 = 60;

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
