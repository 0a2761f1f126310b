//! `ringfence join`.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::duration;
use crate::{
    admin::{self, JoinRequest},
    trust::MAX_JOIN_TTL,
};

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The directory that the control plane serves
    dir: PathBuf,
    /// The Workload whose sidecar may join
    #[arg(long, value_name = "NAME")]
    workload: String,
    /// How long the token is good, unless it is used before; at most a day
    #[arg(long, default_value = "10m", value_parser = ttl)]
    ttl: Duration,
}

fn ttl(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=MAX_JOIN_TTL)
}

/// The token and nothing else.
pub(super) fn run(args: &JoinArgs, out: &mut impl Write) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request = JoinRequest { workload: args.workload.clone(), ttl_seconds: args.ttl.as_secs() };
    writeln!(out, "{}", runtime.block_on(admin::join(&args.dir, &request))?.token)
}
