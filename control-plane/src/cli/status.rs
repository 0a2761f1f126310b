//! `ringfence status`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use super::{DEFAULT_DIR, Output, trust::write_status};
use crate::admin;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The directory that the control plane serves
    #[arg(default_value = DEFAULT_DIR)]
    dir: PathBuf,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Yields whether there are no faults, and no sidecar refused anything.
pub(super) fn run(args: &StatusArgs, out: &mut impl Write) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(admin::status(&args.dir))?;
    match args.output {
        Output::Text => write(&status, out)?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &status)?;
            writeln!(out)?;
        }
    }
    Ok(status.faults.is_empty() && status.sidecars.iter().all(|sidecar| sidecar.rejections.is_empty()))
}

fn write(status: &admin::Status, out: &mut impl Write) -> io::Result<()> {
    if status.sidecars.is_empty() {
        writeln!(out, "no sidecar is connected")?;
    }
    for sidecar in &status.sidecars {
        let state = if sidecar.in_sync { "in sync" } else { "behind" };
        writeln!(out, "{:<24} {state:<8} {} resources acknowledged", sidecar.node, sidecar.acknowledged)?;
        for rejection in &sidecar.rejections {
            writeln!(out, "{:<24} refused  {rejection}", "")?;
        }
    }
    if let Some(trust) = &status.trust {
        write_status(trust, out)?;
    }
    for fault in &status.faults {
        writeln!(out, "{fault}")?;
    }
    Ok(())
}
