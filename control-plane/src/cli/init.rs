//! `ringfence init`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use crate::quickstart::{self, WriteError};

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Directory to write to: new, or empty
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

pub(super) fn run(args: &InitArgs, out: &mut impl Write) -> Result<(), InitError> {
    quickstart::write(&args.dir)?;
    let dir = args.dir.display();
    writeln!(out, "wrote {dir}: tenants acme and globex, three workloads, a development issuer (its key never leaves that directory)")?;
    writeln!(out, "next: ringfence up {dir}")?;
    Ok(())
}
