//! `ringfence sign`.

use std::path::PathBuf;

use clap::Args;

use crate::{plane::PlaneError, sign};

#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// Directory to compile
    dir: PathBuf,
    /// Configuration key: a PKCS#8 private key of Ed25519 in PEM (openssl genpkey -algorithm ed25519)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Replaced whole, by a file that `ringfence serve --signed` serves
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Go on: sign each edit, and what is fetched for issuers and policy zones
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Sign(#[from] PlaneError),
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
}

pub(super) fn run(args: &SignArgs) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(sign::sign(&args.dir, &args.key, &args.out, args.watch))?)
}
