//! `ringfence trust`, and what `serve` is told of identities.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use ringfence_xds::policy::TrustDomain;

use super::duration;
use crate::{
    admin::{self, Rotate},
    trust::{DEFAULT_TRUST_DOMAIN, GivenCa, Intermediate, MAX_SVID_TTL, MIN_SVID_TTL, Phase, SignedTrustConfig, TrustConfig, TrustStatus},
};

#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    /// Authority in the names of identities: spiffe://<trust domain>/...
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN, requires = "tls")]
    trust_domain: TrustDomain,
    /// Lifetime of the certificates of sidecars, 10s to 24h; they renew them at half of it
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = svid_ttl, requires = "tls")]
    svid_ttl: Duration,
    /// Certificate of an authority of yours that certifies in the place of one that is made here, and those between it and its roots; PEM
    #[arg(long, value_name = "FILE", requires_all = ["tls", "ca_key", "believed"])]
    ca_cert: Option<PathBuf>,
    /// Its key, which only its owner may read; PKCS#8, PEM
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// The roots that vouch for it: what sidecars believe; PEM. With --signed they stand in the file
    #[arg(long, value_name = "FILE", requires = "ca_cert", group = "believed")]
    ca_roots: Option<PathBuf>,
}

fn svid_ttl(text: &str) -> Result<Duration, String> {
    duration(text, MIN_SVID_TTL..=MAX_SVID_TTL)
}

impl TrustArgs {
    pub(super) fn config(&self) -> TrustConfig {
        let given = self.intermediate().zip(self.ca_roots.clone()).map(|(intermediate, roots)| GivenCa { intermediate, roots });
        TrustConfig { trust_domain: self.trust_domain.clone(), svid_ttl: self.svid_ttl, given }
    }

    fn intermediate(&self) -> Option<Intermediate> {
        let (certificate, key) = self.ca_cert.clone().zip(self.ca_key.clone())?;
        Some(Intermediate { certificate, key })
    }

    /// Under a bundle that somebody else signs; `None`: there is nobody to certify by.
    pub(super) fn signed(&self) -> Option<SignedTrustConfig> {
        let intermediate = self.intermediate()?;
        Some(SignedTrustConfig { trust_domain: self.trust_domain.clone(), svid_ttl: self.svid_ttl, intermediate })
    }
}

#[derive(Debug, Args)]
pub(super) struct TrustCommandArgs {
    #[command(subcommand)]
    command: TrustCommand,
}

#[derive(Debug, Subcommand)]
enum TrustCommand {
    /// Replace the certificate authority by a new one, without a restart: both are believed until the old one's certificates have expired
    #[command(after_help = "Example:\n  ringfence trust rotate ringfence-quickstart")]
    Rotate {
        /// The directory that the control plane serves
        dir: PathBuf,
        /// Withdraw the old authority now, if no connected sidecar has a certificate of it any more
        #[arg(long)]
        finish: bool,
        /// Withdraw it in any case: whoever has no certificate of the new one has to join anew
        #[arg(long, requires = "finish")]
        force: bool,
    },
}

pub(super) fn run(args: &TrustCommandArgs, out: &mut impl Write) -> io::Result<()> {
    let TrustCommand::Rotate { dir, finish, force } = &args.command;
    let rotate = match (finish, force) {
        (false, _) => Rotate::Begin,
        (true, false) => Rotate::Finish,
        (true, true) => Rotate::FinishByForce,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    write_status(&runtime.block_on(admin::rotate(dir, rotate))?, out)
}

pub(super) fn write_status(status: &TrustStatus, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "trust domain {}, bundle {}", status.trust_domain, status.sequence)?;
    for phase in &status.authorities {
        match phase {
            Phase::Announced { .. } => writeln!(out, "  authority announced: issues once the sidecars have the bundle")?,
            Phase::Issuing => writeln!(out, "  authority issuing")?,
            Phase::Retiring { until } => writeln!(out, "  authority retiring: withdrawn at {until} s since 1970")?,
        }
    }
    Ok(())
}
