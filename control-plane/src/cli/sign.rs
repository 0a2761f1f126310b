//! `ringfence sign`.

use std::path::PathBuf;

use clap::Args;
use ringfence_xds::policy::TrustDomain;

use crate::{
    plane::PlaneError,
    sign::{self, SignConfig},
    trust::{Authorities, DEFAULT_TRUST_DOMAIN},
};

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
    /// PEM certificates of the authorities that sidecars are to believe: the roots of whoever serves this over TLS, who cannot change them
    #[arg(long, value_name = "FILE")]
    authorities: Option<PathBuf>,
    /// Of these
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN, requires = "authorities")]
    trust_domain: TrustDomain,
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
    let authorities = |file: &PathBuf| Authorities { trust_domain: args.trust_domain.clone(), file: file.clone() };
    let config = SignConfig {
        dir: args.dir.clone(),
        key: args.key.clone(),
        out: args.out.clone(),
        authorities: args.authorities.as_ref().map(authorities),
    };
    Ok(runtime.block_on(sign::sign(&config, args.watch))?)
}
