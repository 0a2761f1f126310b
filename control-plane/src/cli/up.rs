//! `ringfence up`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;

use super::DEFAULT_DIR;
use crate::{
    quickstart::{self, WriteError},
    say::say,
    up::{self, UpError},
};

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// Directory to watch; default: the quickstart, written to ringfence-quickstart if that is not there
    dir: Option<PathBuf>,
    /// Address, UDP and TCP, at which primaries may notify of policy zones that have changed (RFC 1996)
    #[arg(long, value_name = "ADDR")]
    notify: Option<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Up(#[from] UpError),
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
}

pub(super) fn run(args: &UpArgs) -> Result<(), Error> {
    let dir = match &args.dir {
        Some(dir) => dir,
        None => {
            let dir = Path::new(DEFAULT_DIR);
            if !dir.exists() {
                quickstart::write(dir)?;
                say(format_args!("ringfence: wrote the quickstart to {DEFAULT_DIR}"));
            }
            dir
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(up::up(dir, args.notify))?)
}
