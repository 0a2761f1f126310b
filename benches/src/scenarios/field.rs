//! What every scenario stands on: an origin, the relay before it, an issuer, and a directory for files.

use tempfile::TempDir;

use crate::{
    Error,
    peers::Program,
    policy::{Policy, check_plain, request},
    report::Report,
    target::Target,
};

pub(super) struct Field {
    pub(super) dir: TempDir,
    pub(super) origin: Target,
    pub(super) relay: Target,
    pub(super) policy: Policy,
    /// The head of a request that needs no token.
    pub(super) public: [String; 1],
}

impl Field {
    pub(super) fn new() -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let origin = Target::origin()?;
        let relay = Target::relay(origin.address)?;
        Ok(Self { dir, origin, relay, policy: Policy::new()?, public: [request("/public/hello", None)] })
    }

    /// Started, and proven to enforce what they are timed for. Who is not installed, does not start or does not enforce it is left out.
    pub(super) fn start<'a>(
        &self,
        peers: impl IntoIterator<Item = (&'a str, Option<Program>)>,
        check: Check,
        report: &mut Report,
    ) -> Vec<Target> {
        let start = |(name, program): (&str, Option<Program>)| {
            let program = program.ok_or_else(|| Error::Unexpected(format!("{name} is not installed")))?;
            let target = program.start()?;
            match check {
                Check::Plain => check_plain(&target)?,
                Check::Policy => self.policy.check(&target)?,
            }
            Ok(target)
        };
        let started = peers.into_iter().filter_map(|peer| start(peer).map_err(|error: Error| report.leave_out(error.to_string())).ok());
        started.collect()
    }
}

#[derive(Clone, Copy)]
pub(super) enum Check {
    Plain,
    Policy,
}
