//! `ringfence crds`.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use crate::{
    kubernetes::crd::{self, Names},
    spec::Kind,
};

#[derive(Debug, Args)]
pub(super) struct CrdsArgs {
    /// Directory for a file <plural>.yaml of each kind, instead of stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot be written as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(super) fn run(args: &CrdsArgs, out: &mut impl Write) -> Result<(), Error> {
    let Some(dir) = &args.out else {
        return Ok(out.write_all(crd::yaml()?.as_bytes())?);
    };
    for kind in Kind::ALL {
        fs::write(dir.join(format!("{}.yaml", Names::of(*kind).plural)), crd::one_as_yaml(*kind)?)?;
    }
    Ok(())
}
