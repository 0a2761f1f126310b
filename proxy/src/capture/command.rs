//! The command line of `ringfence-proxy capture`. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    CaptureError, Rules, install, remove,
    state::{self, State},
    verify,
};
use crate::telemetry::notice;

const REFUSED: u8 = 1;
const WRONG_USAGE: u8 = 2;

#[derive(Debug, Subcommand)]
pub enum CaptureCommand {
    /// Install the rules in this network namespace, in place of earlier ones; needs CAP_NET_ADMIN
    #[command(after_help = "Example:\n  ringfence-proxy capture install --egress-port 15001 --dns-port 15053 --uid 1337")]
    Install {
        #[command(flatten)]
        rules: RulesArgs,
        #[command(flatten)]
        state: StateArgs,
        /// Verify them as well, before the sidecar is told of them; needs what `verify` needs
        #[arg(long)]
        verify: bool,
    },
    /// Take the rules away; no fault if there are none
    #[command(after_help = "Example:\n  ringfence-proxy capture remove")]
    Remove {
        #[command(flatten)]
        state: StateArgs,
    },
    /// Send probes through the kernel, and fail if one gets out; needs root with CAP_NET_RAW, CAP_SETUID, CAP_SETGID and CAP_NET_BIND_SERVICE
    #[command(after_help = "Example:\n  ringfence-proxy capture verify --egress-port 15001 --dns-port 15053 --uid 1337 -o json")]
    Verify {
        #[command(flatten)]
        rules: RulesArgs,
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub struct RulesArgs {
    /// The port of the sidecar's `egress.listen`
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    egress_port: u16,
    /// The port of the sidecar's `dns.listen`
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: u16,
    /// The sidecar's user, whose traffic is let out; the workload must not be able to become it
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..0xffff_ffff))]
    uid: u32,
    /// The sidecar's cgroup as well, as /proc/PID/cgroup has it: let out is what is of both
    #[arg(long, value_name = "PATH", value_parser = cgroup)]
    cgroup: Option<String>,
}

#[derive(Debug, Args)]
pub struct StateArgs {
    /// Where it is kept what is installed, for the sidecar to see; the workload must not be able to write there
    #[arg(long = "state", value_name = "DIR", default_value = "/run/ringfence")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

impl RulesArgs {
    fn rules(self) -> Result<Rules, ExitCode> {
        if self.egress_port == self.dns_port {
            notice("--egress-port and --dns-port must differ");
            return Err(ExitCode::from(WRONG_USAGE));
        }
        Ok(Rules { egress_port: self.egress_port, dns_port: self.dns_port, uid: self.uid, cgroup: self.cgroup })
    }
}

/// It is written into rules: only what needs no quoting there.
fn cgroup(path: &str) -> Result<String, String> {
    let path = path.trim_matches('/');
    let plain =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte)) && !["", ".", ".."].contains(&part);
    if path.split('/').all(plain) {
        Ok(path.to_owned())
    } else {
        Err("must be a path below the root of the cgroup v2 hierarchy, of letters, digits and ._-:@".into())
    }
}

impl CaptureCommand {
    pub fn run(self) -> ExitCode {
        let done = match self {
            Self::Install { rules, state, verify } => match rules.rules() {
                Ok(rules) => run_install(rules, &state, verify),
                Err(code) => return code,
            },
            Self::Remove { state } => State::remove(&state.dir).and_then(|()| remove()),
            Self::Verify { rules, output } => match rules.rules() {
                Ok(rules) => run_verify(&rules, output),
                Err(code) => return code,
            },
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                notice(format_args!("{error}"));
                ExitCode::from(REFUSED)
            }
        }
    }
}

fn run_install(rules: Rules, args: &StateArgs, verify: bool) -> Result<(), CaptureError> {
    let network_namespace = state::network_namespace()?;
    let before = State::read(&args.dir)?;
    let installed = install(&rules)?;
    if let Some(before) = &before
        && before.backend != installed.backend
    {
        before.backend.remove()?;
    }
    if let Some(text) = &installed.notice {
        notice(text);
    }
    if verify {
        // Rules that do not hold stay: they let out less than none. But the sidecar is not told of them.
        State::remove(&args.dir)?;
        run_verify(&rules, Output::Text)?;
    }
    let (backend, packet_fence) = (installed.backend, installed.packet_fence);
    let state = State { rules, backend, packet_fence, network_namespace };
    if let Err(error) = state.write(&args.dir) {
        // A first installation that the sidecar would not find. Where there was one before, its rules are replaced and the fence stays.
        if before.is_none() {
            remove()?;
        }
        return Err(error);
    }
    notice(format_args!("installed with {backend}; packet fence on: {}", or_none(&state.packet_fence)));
    Ok(())
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "no device".into() } else { names.join(", ") }
}

fn run_verify(rules: &Rules, output: Output) -> Result<(), CaptureError> {
    let report = verify::verify(rules)?;
    let mut out = io::stdout().lock();
    let written = match output {
        Output::Text => write!(out, "{report}"),
        Output::Json => serde_json::to_writer(&mut out, &report).map_err(Into::into).and_then(|()| writeln!(out)),
    };
    written.map_err(CaptureError::io("standard output"))?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(CaptureError::Refused(format!("{failed} of {} probes failed", report.probes.len()))),
    }
}
