//! The operator's command. Exit codes: 0 done, 1 refused or found faults, 2 wrong usage.

mod crds;
mod explain;
mod init;
mod inject;
mod injection;
mod join;
mod serve;
mod sign;
mod status;
mod token;
mod trust;
mod up;
mod validate;

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, Write},
    ops::RangeInclusive,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The directory that `up` and `token` take where none is named.
pub const DEFAULT_DIR: &str = "ringfence-quickstart";

const REFUSED: u8 = 1;
const WRONG_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "ringfence",
    version,
    about = "Tenant isolation for HTTP workloads",
    after_help = "Example:\n  ringfence init demo && ringfence up demo"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on one machine: the control plane, and a sidecar per workload
    #[command(after_help = "Example:\n  ringfence up ringfence-quickstart")]
    Up(up::UpArgs),
    /// Run the control plane alone: watch a directory or a cluster's custom resources, push to sidecars that were started otherwise
    #[command(after_help = "Example:\n  ringfence serve ringfence-quickstart --sockets run")]
    Serve(Box<serve::ServeArgs>),
    /// Compile and sign a directory, for control planes that serve it without the configuration key
    #[command(after_help = "Example:\n  ringfence sign ringfence-quickstart --key config.key --out policy.signed --watch")]
    Sign(sign::SignArgs),
    /// Write the quickstart: two tenants, a platform, three workloads, a development issuer
    #[command(after_help = "Example:\n  ringfence init demo")]
    Init(init::InitArgs),
    /// Print a token of a directory's development issuer
    #[command(
        after_help = "Example:\n  curl -H \"Authorization: Bearer $(ringfence token --tenant acme --scope admin)\" http://127.0.0.1:18080/hello"
    )]
    Token(token::TokenArgs),
    /// Tell every fault in a directory, one a line
    #[command(after_help = "Example:\n  ringfence validate ringfence-quickstart")]
    Validate(validate::ValidateArgs),
    /// Say what would happen to a request or connection, and by which rule; exit 1 if it would be refused
    #[command(
        after_help = "Example:\n  ringfence token --tenant acme | ringfence explain ringfence-quickstart --workload acme-api http GET /hello --token-file -"
    )]
    Explain(explain::ExplainArgs),
    /// Print objects of a running control plane (not built yet)
    #[command(after_help = "Example:\n  ringfence get tenants")]
    Get(NotBuiltArgs),
    /// Write objects to a running control plane (not built yet)
    #[command(after_help = "Example:\n  ringfence apply tenant-acme.yaml")]
    Apply(NotBuiltArgs),
    /// Remove an object from a running control plane (not built yet)
    #[command(after_help = "Example:\n  ringfence delete tenant acme")]
    Delete(NotBuiltArgs),
    /// Say what `apply` would change (not built yet)
    #[command(after_help = "Example:\n  ringfence diff tenant-acme.yaml")]
    Diff(NotBuiltArgs),
    /// Say which sidecars enforce what is published, and what they refused; exit 1 if something has faults or was refused
    #[command(after_help = "Example:\n  ringfence status ringfence-quickstart")]
    Status(status::StatusArgs),
    /// Print a token with which the sidecar of a workload joins: good for one certificate, and for minutes
    #[command(after_help = "Example:\n  ringfence join ringfence-quickstart --workload acme-api")]
    Join(join::JoinArgs),
    /// See to who vouches for identities
    #[command(after_help = "Example:\n  ringfence trust rotate ringfence-quickstart")]
    Trust(trust::TrustCommandArgs),
    /// Put sidecars into the pods of manifests, as the webhook does in a cluster
    #[command(after_help = "Example:\n  ringfence inject --tenant acme -f deployment.yaml | kubectl apply -f -")]
    Inject(inject::InjectArgs),
    /// Print the CustomResourceDefinitions of the kinds
    #[command(after_help = "Example:\n  ringfence crds | kubectl apply --server-side -f -")]
    Crds(crds::CrdsArgs),
    /// Say why a request was refused, by its id (not built yet)
    #[command(after_help = "Example:\n  ringfence why 0af7651916cd43dd8448eb211c80319c")]
    Why(NotBuiltArgs),
}

/// Whatever follows a command that is refused by name.
#[derive(Debug, Args)]
struct NotBuiltArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs the command of the process's arguments.
pub fn run() -> ExitCode {
    // Wrong usage ends inside, with code 2; so do `--help` and `--version`, with 0.
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    match cli.command {
        Command::Up(args) => {
            drop(out); // others print from here on
            ran(up::run(&args))
        }
        Command::Serve(args) => {
            drop(out);
            ran(serve::run(&args))
        }
        Command::Sign(args) => {
            drop(out);
            ran(sign::run(&args))
        }
        Command::Init(args) => done(init::run(&args, &mut out)),
        Command::Token(args) => done(token::run(&args, &mut out)),
        Command::Validate(args) => verdict(validate::run(&args, &mut out)),
        Command::Explain(args) => verdict(explain::run(&args, &mut out)),
        Command::Get(_) => not_built("get"),
        Command::Apply(_) => not_built("apply"),
        Command::Delete(_) => not_built("delete"),
        Command::Diff(_) => not_built("diff"),
        Command::Status(args) => verdict(status::run(&args, &mut out)),
        Command::Join(args) => done(join::run(&args, &mut out)),
        Command::Trust(args) => done(trust::run(&args, &mut out)),
        Command::Inject(args) => done(inject::run(&args, &mut out)),
        Command::Crds(args) => done(crds::run(&args, &mut out)),
        Command::Why(_) => not_built("why"),
    }
}

/// N with s, m, h or d.
fn duration(text: &str, within: RangeInclusive<Duration>) -> Result<Duration, String> {
    let (least, most) = (within.start().as_secs(), within.end().as_secs());
    let duration = token::duration(text)?;
    within.contains(&duration).then_some(duration).ok_or_else(|| format!("must be {least}s to {most}s"))
}

fn done(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error),
    }
}

/// 0 where all is well, 1 where the command found that it is not.
fn verdict(result: Result<bool, impl Display>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(REFUSED),
        Err(error) => refused(&error),
    }
}

/// As `done`, after what it said on the way.
fn ran(result: Result<(), impl Display>) -> ExitCode {
    crate::say::flush();
    done(result)
}

fn refused(error: &impl Display) -> ExitCode {
    say(&format!("ringfence: {error}"));
    ExitCode::from(REFUSED)
}

fn not_built(command: &str) -> ExitCode {
    say(&format!("ringfence: `{command}` is not built yet"));
    ExitCode::from(WRONG_USAGE)
}

/// To stderr; that nobody reads it is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_shows_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example:\n  "), "{}", command.get_name());
            assert!(help.contains(&format!("ringfence {}", command.get_name())), "{}", command.get_name());
        }
    }
}
