//! What the sidecar costs beside what one would use instead: as a proxy with and without a tenant policy, for many tenants, under a flood, as
//! a way out and as a DNS filter; its memory, wake-ups and time to start; and what configuration push costs the control plane.
//!
//! This process only directs. The programs under test, the origin behind them and the load before them are processes of their own: the
//! CPU of one is told from that of the others by the kernel. Origin, relay and load are this program again, with a subcommand.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is for whoever reads it")]

mod dns;
mod load;
mod measure;
mod names;
mod namespace;
mod origin;
mod peers;
mod policy;
mod process;
mod relay;
mod report;
mod scenarios;
mod sidecars;
mod site;
mod target;

use std::{io, net::SocketAddr, process::ExitCode};

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    report::Report,
    scenarios::{Part, Plan},
};

#[derive(Parser)]
#[command(about = "Measures Ringfence beside what one would use instead, in one run")]
struct Arguments {
    /// Three short rounds instead of five long ones.
    #[arg(long)]
    quick: bool,
    /// These parts alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it starts itself. Each ends when its standard input does.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Origin,
    #[command(hide = true)]
    Source,
    #[command(hide = true)]
    DnsUpstream,
    #[command(hide = true)]
    Site,
    #[command(hide = true)]
    Names,
    #[command(hide = true)]
    Relay { upstream: SocketAddr },
    /// Reads a `Load` from standard input and writes an `Outcome` to standard output, both JSON.
    #[command(hide = true)]
    Load,
    /// Simulated sidecars, told what to do on standard input.
    #[command(hide = true)]
    Sidecars,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("the load generator failed: {0}")]
    Load(String),
    #[error("{target} does not enforce the policy, so its speed says nothing: {case}: status {got}, body {body:?}, must be {wanted}")]
    NotEnforced { target: String, case: &'static str, wanted: u16, got: u16, body: String },
    #[error("{0}")]
    Unexpected(String),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Error::Io { what, error }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        Some(Role::Origin) => origin::run().map_err(Error::io("origin")),
        Some(Role::Source) => scenarios::source().map_err(Error::io("source")),
        Some(Role::DnsUpstream) => dns::upstream().map_err(Error::io("DNS upstream")),
        Some(Role::Site) => site::run().map_err(Error::io("site")),
        Some(Role::Names) => names::run(),
        Some(Role::Relay { upstream }) => relay::run(upstream).map_err(Error::io("relay")),
        Some(Role::Load) => load::run(),
        Some(Role::Sidecars) => sidecars::run(),
        None => compare(if arguments.quick { Plan::QUICK } else { Plan::FULL }, &arguments.only),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringfence-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(plan: Plan, only: &[Part]) -> Result<(), Error> {
    open_many_files()?;
    let mut report = Report::begin(plan);
    let measured = scenarios::run(plan, only, &mut report);
    // What was measured before something failed is told.
    print!("{report}");
    println!("\n{}", report.store()?.display());
    measured
}

/// A thousand connections have two ends. What is started from here may have as many.
fn open_many_files() -> Result<(), Error> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(|error| Error::io("limit of open files")(error.into()))
}
