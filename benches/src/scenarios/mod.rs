//! What is measured, in rounds that go through all programs in turn, so that the machine's moods meet all of them.

mod bulk;
mod compare;
mod egress;
mod field;
mod flood;
mod plain;
mod policy;
mod push;
mod rest;
mod tenants;

use std::time::Duration;

use serde::Serialize;

pub(crate) use self::bulk::source;
use crate::{
    Error, dns,
    load::{Load, Outcome, Protocol, Running},
    report::Report,
    target::Target,
};

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Of one run in a closed loop.
    saturated: Duration,
    /// Of one run in an open loop.
    steady: Duration,
    /// Requests of one run whose tokens are seen once.
    fresh: usize,
    /// How many tenants a workload is shared by, in turn.
    tenants: &'static [usize],
    /// Octets of one download in bulk, and connections of one octet each.
    bulk: u64,
    short: usize,
    /// Simulated sidecars on one control plane, in turn, and edits of single tenants that they see.
    sidecars: &'static [usize],
    /// The same without TLS.
    plaintext_sidecars: &'static [usize],
    edits: usize,
    /// That an idle program is watched.
    idle: Duration,
}

impl Plan {
    /// Half an hour and some minutes. `benches/README.md` says what each part takes.
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        saturated: Duration::from_millis(1500),
        steady: Duration::from_secs(2),
        fresh: 20_000,
        tenants: &[1, 100, 1_000, 10_000],
        bulk: 1 << 30,
        short: 4_000,
        sidecars: &[100, 1_000, 10_000],
        plaintext_sidecars: &[1_000],
        edits: 20,
        idle: Duration::from_secs(10),
    };
    /// Less than five minutes.
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        saturated: Duration::from_millis(200),
        steady: Duration::from_millis(300),
        fresh: 2_000,
        tenants: &[1, 1_000],
        bulk: 64 << 20,
        short: 1_000,
        sidecars: &[1_000],
        plaintext_sidecars: &[1_000],
        edits: 8,
        idle: Duration::from_secs(2),
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// A reverse proxy and nothing else.
    Plain,
    /// The full tenant policy.
    Policy,
    /// Memory, start, wake-ups.
    Rest,
    /// Names through policy zones.
    Dns,
    /// Many tenants behind one workload.
    Tenants,
    /// One tenant floods.
    Flood,
    /// Bytes in bulk.
    Bulk,
    /// Out to a thousand allowed names.
    Egress,
    /// Configuration push.
    Push,
}

/// Each starts what it needs, fills tables of the report, and ends what it started.
type Scenario = fn(Plan, &mut Report) -> Result<(), Error>;

const SCENARIOS: [(Part, Scenario); 9] = [
    (Part::Plain, plain::run),
    (Part::Policy, policy::run),
    (Part::Rest, rest::run),
    (Part::Dns, dns::run),
    (Part::Tenants, tenants::run),
    (Part::Flood, flood::run),
    (Part::Bulk, bulk::run),
    (Part::Egress, egress::run),
    (Part::Push, push::run),
];

/// `only`: all parts where it is empty.
pub(crate) fn run(plan: Plan, only: &[Part], report: &mut Report) -> Result<(), Error> {
    let mut wanted = SCENARIOS.into_iter().filter(|(part, _)| only.is_empty() || only.contains(part));
    wanted.try_for_each(|(_, scenario)| scenario(plan, report))
}

/// Requests under way at a time.
const CALLERS: usize = 64;
/// After which a run in a closed loop has failed, and by how much one in an open loop may be late.
const LIMIT: Duration = Duration::from_secs(60);

/// Each caller asks as soon as it has been answered.
fn closed(target: &Target, duration: Duration, heads: &[String]) -> Load {
    Load {
        address: target.address,
        protocol: Protocol::Http1,
        callers: CALLERS,
        requests: usize::MAX,
        duration: Some(duration),
        rate: None,
        heads: heads.to_vec(),
        limit: (duration + LIMIT).as_secs(),
    }
}

/// `rate` requests a second, as many as belong to the duration.
fn open(target: &Target, duration: Duration, rate: usize, heads: &[String]) -> Load {
    let requests = (duration.as_secs_f64() * rate as f64) as usize;
    Load { requests, duration: None, rate: Some(rate as f64), ..closed(target, duration, heads) }
}

/// Runs a load that must be answered with `status` alone.
fn answered(name: &str, load: &Load, status: u16) -> Result<Outcome, Error> {
    let outcome = Running::start(load)?.wait()?;
    match outcome.other_than(status) {
        0 if outcome.answered() > 0 => Ok(outcome),
        _ => Err(Error::Unexpected(format!("{name}: answers must be {status}: {:?}, {} errors", outcome.statuses, outcome.errors))),
    }
}
