//! `ringfence-proxy`: the sidecar.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ringfence_proxy::{app, bootstrap::Bootstrap, capture::CaptureCommand, telemetry::notice};

#[derive(Parser)]
#[command(name = "ringfence-proxy", version, about = "The Ringfence sidecar: enforces one workload's policy on its traffic")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve one workload until SIGTERM, which drains.
    #[command(
        after_help = "Examples:\n  ringfence-proxy run --bootstrap bootstrap.json\n  ringfence-proxy run --bootstrap bootstrap.json --take-over    # a new version, in place of the one that runs"
    )]
    Run {
        /// JSON: workload, controlPlane, identity, configKeys, admin, stateDir, accessLog, tracing, threads, drainSeconds, captureDir.
        #[arg(long, value_name = "FILE")]
        bootstrap: PathBuf,
        /// Take over from the sidecar that uses the same stateDir: its listeners, its counters and its last known good. It drains then and
        /// ends with 0. If there is none, start like any other; if it cannot hand over, wait until it has ended.
        #[arg(long)]
        take_over: bool,
    },
    /// Install, remove or verify the redirect rules of a workload with `capture: redirect`.
    #[command(subcommand)]
    Capture(CaptureCommand),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { bootstrap, take_over } => {
            let outcome = Bootstrap::read(&bootstrap).map_err(|error| error.to_string());
            match outcome.and_then(|bootstrap| app::run(bootstrap, take_over).map_err(|error| error.to_string())) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    notice(format_args!("{error}"));
                    ExitCode::FAILURE
                }
            }
        }
        Command::Capture(command) => command.run(),
    }
}
