//! `ringfence inject`.

use std::{
    fs,
    io::{self, Read, Write},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use ringfence_xds::policy::{TenantId, TrustDomain};

use super::{injection::InjectionArgs, say};
use crate::{
    inject::{
        SettingError,
        manifest::{ManifestError, Manifests, Whose},
    },
    trust::DEFAULT_TRUST_DOMAIN,
};

#[derive(Debug, Args)]
pub(super) struct InjectArgs {
    /// Manifests in YAML or JSON; `-`: standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The tenant whose namespace they are for
    #[arg(long, value_name = "NAME")]
    tenant: TenantId,
    /// The namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Authority in the names of identities
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
    #[command(flatten)]
    injection: InjectionArgs,
    /// How they are printed
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InjectError {
    #[error("{}: {error}", file.display())]
    Read { file: PathBuf, error: io::Error },
    #[error("{}: {error}", file.display())]
    Manifest { file: PathBuf, error: ManifestError },
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

pub(super) fn run(args: &InjectArgs, out: &mut impl Write) -> Result<(), InjectError> {
    let settings = args.injection.settings(args.trust_domain.clone());
    settings.check()?;
    let text = read(&args.file).map_err(|error| InjectError::Read { file: args.file.clone(), error })?;
    let manifest = |error| InjectError::Manifest { file: args.file.clone(), error };
    let mut manifests = Manifests::read(&text).map_err(manifest)?;
    manifests.inject(Whose { tenant: args.tenant.as_str(), namespace: &args.namespace }, &settings).map_err(manifest)?;
    manifests.warnings.iter().for_each(|warning| say(warning));
    match args.output {
        Format::Yaml => out.write_all(manifests.to_yaml().map_err(manifest)?.as_bytes())?,
        Format::Json => writeln!(out, "{:#}", manifests.to_json())?,
    }
    Ok(())
}

fn read(file: &PathBuf) -> io::Result<String> {
    if file.as_os_str() != "-" {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}
