//! `ringfence-proxy`: the sidecar.

use std::{fmt::Display, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use ringfence_proxy::{admin::AdminAddress, app, bootstrap::Bootstrap, capture::CaptureCommand, telemetry::notice};

#[derive(Parser)]
#[command(
    name = "ringfence-proxy",
    version,
    about = "The Ringfence sidecar: enforces one workload's policy on its traffic",
    after_help = "Example:\n  ringfence-proxy run --bootstrap bootstrap.json"
)]
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
        #[arg(long, value_name = "FILE", required_unless_present = "bootstrap_env")]
        bootstrap: Option<PathBuf>,
        /// Instead of a file: the environment variable that holds that JSON
        #[arg(long, value_name = "NAME", conflicts_with = "bootstrap")]
        bootstrap_env: Option<String>,
        /// Take over from the sidecar that uses the same stateDir: its listeners, its counters and its last known good. It drains then and
        /// ends with 0. If there is none, start like any other; if it cannot hand over, wait until it has ended.
        #[arg(long)]
        take_over: bool,
    },
    /// Ask the sidecar that runs whether its policy is in force: exit 0 if it is, 1 if it is not or nobody answers
    #[command(after_help = "Example:\n  ringfence-proxy probe --admin unix:/var/lib/ringfence/admin.sock")]
    Probe {
        /// The bootstrap's `admin`
        #[arg(long, value_name = "ADDR")]
        admin: AdminAddress,
    },
    /// Install, remove or verify the redirect rules of a workload with `capture: redirect`.
    #[command(
        subcommand,
        after_help = "Example:\n  ringfence-proxy capture install --egress-port 15001 --dns-port 15053 --uid 1337 --verify"
    )]
    Capture(CaptureCommand),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { bootstrap, bootstrap_env, take_over } => {
            let bootstrap = match (bootstrap, bootstrap_env) {
                (Some(file), _) => Bootstrap::read(&file),
                // One of both is there: clap has seen to it.
                (None, name) => Bootstrap::from_variable(&name.unwrap_or_default()),
            };
            let outcome = bootstrap.map_err(|error| error.to_string());
            done(outcome.and_then(|bootstrap| app::run(bootstrap, take_over).map_err(|error| error.to_string())))
        }
        Command::Probe { admin } => done(admin.is_ready()),
        Command::Capture(command) => command.run(),
    }
}

fn done(outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            notice(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The command and those below it, each with its words.
    fn check(command: &clap::Command, words: &str) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let shows = |line: &str| line.trim().strip_prefix(words).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        assert!(help.starts_with("Example") && help.lines().any(shows), "{words}: {help:?}");
        command.get_subcommands().for_each(|below| check(below, &format!("{words} {}", below.get_name())));
    }

    #[test]
    fn every_command_shows_an_example() {
        Arguments::command().debug_assert();
        check(&Arguments::command(), "ringfence-proxy");
    }
}
