//! Who this sidecar is: its X.509-SVID, and the trust bundle that it judges others by.
//!
//! ```text
//! issue (control plane's CA: proof, then the SVID itself) ┐
//! workload_api (SPIRE's agent)                             ┴> svid (verify) -> CurrentSvid -> whoever shows or asks for an SVID
//! trust (the bootstrap's file, then what the stream brings)             -> CurrentTrust -> whoever verifies one
//! ```
//!
//! Keys are made here (`issue`) or come over the Workload API's socket, and leave the process only for `kept`, a file of its own.

#[cfg(test)]
pub(crate) mod authority;
mod clock;
mod issue;
mod kept;
mod membership;
pub mod peer;
mod proof;
mod schedule;
mod svid;
#[cfg(test)]
pub(crate) mod tests;
mod trust;
mod workload_api;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ringfence_policy::{SpiffeId, TrustBundle, TrustDomain, WorkloadName, spiffe::SpiffeError};
use ringfence_xds::trust::Svid;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    bootstrap::{self, ControlPlane, IdentitySource},
    telemetry::{metrics::Metrics, notice},
};
use clock::Clock;
use issue::Issuance;
pub use membership::Membership;
use proof::Proof;
pub use trust::{Trust, TrustError};
use workload_api::WorkloadApi;

/// `None`: there is none yet, or it has expired. Every renewal is a change.
pub type CurrentSvid = watch::Receiver<Option<Arc<Svid>>>;
/// `None`: not told yet. Whoever was believed under an earlier sequence is looked at again.
pub type CurrentTrust = watch::Receiver<Option<Arc<TrustBundle>>>;

/// Why there can be no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("identity.trustDomain: {0}")]
    TrustDomain(#[from] SpiffeError),
    #[error("identity.bundle: {}: {error}", path.display())]
    Bundle { path: PathBuf, error: TrustError },
    #[error("identity.source.controlPlane: requires controlPlane.tls")]
    NoControlPlane,
}

/// This sidecar's identity, to be kept up by [`Identity::run`].
#[derive(Debug)]
pub struct Identity {
    pub trust: Arc<Trust>,
    /// For connections of this sidecar as itself.
    pub membership: Membership,
    source: Source,
}

#[derive(Debug)]
enum Source {
    ControlPlane(Box<Issuance>),
    WorkloadApi(Box<WorkloadApi>),
}

/// Where an SVID is put in force, and what is told of it.
#[derive(Debug)]
struct Publisher {
    svid: watch::Sender<Option<Arc<Svid>>>,
    /// Why there was no newer one when it was last asked for.
    failure: watch::Sender<Option<String>>,
    metrics: Arc<Metrics>,
}

impl Identity {
    /// Reads the bundle; what else there is to read is read when it runs.
    pub fn new(
        config: &bootstrap::Identity,
        control_plane: &ControlPlane,
        workload: &WorkloadName,
        state_dir: Option<&Path>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, IdentityError> {
        let me = Me { trust_domain: config.trust_domain.parse()?, workload: workload.clone() };
        let trust = match &config.bundle {
            Some(path) => Trust::read(&me.trust_domain, path).map_err(|error| IdentityError::Bundle { path: path.clone(), error })?,
            None => Trust::told_elsewhere(&me.trust_domain),
        };
        let trust = Arc::new(trust);
        let publisher = Publisher::new(metrics.clone());
        let membership = Membership::new(&publisher, trust.subscribe(), Clock::SYSTEM);
        let source = match (&config.source, control_plane) {
            (IdentitySource::ControlPlane(proof), ControlPlane::Tls(address)) => Source::ControlPlane(Box::new(Issuance {
                address: address.clone(),
                me,
                proof: Proof::of(proof),
                unanswered: None,
                kept: state_dir.map(kept::Kept::new),
                trust: trust.subscribe(),
                bundles: trust.clone(),
                publisher,
                clock: Clock::SYSTEM,
            })),
            (IdentitySource::ControlPlane(_), _) => return Err(IdentityError::NoControlPlane),
            (IdentitySource::WorkloadApi(socket), _) => Source::WorkloadApi(Box::new(WorkloadApi {
                socket: socket.clone(),
                me,
                trust: trust.clone(),
                publisher,
                clock: Clock::SYSTEM,
            })),
        };
        Ok(Self { trust, membership, source })
    }

    /// Obtains and renews, for as long as it is polled.
    pub async fn run(self) {
        match self.source {
            Source::ControlPlane(issuance) => issuance.run().await,
            Source::WorkloadApi(workload_api) => workload_api.run().await,
        }
    }
}

impl Publisher {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self { svid: watch::Sender::default(), failure: watch::Sender::default(), metrics }
    }

    fn publish(&self, svid: Option<Arc<Svid>>) {
        let expiry = svid.as_ref().map_or(0, |svid| svid.not_after.as_secs());
        self.metrics.identity_svid_expiry.set(i64::try_from(expiry).unwrap_or(i64::MAX));
        if svid.is_some() {
            self.failure.send_replace(None);
        }
        self.svid.send_replace(svid);
    }

    /// What keeps going wrong is told when it begins and when it changes, not at each attempt.
    fn fail(&self, message: String) {
        self.metrics.identity_renewal_failures.inc();
        if self.failure.borrow().as_ref() != Some(&message) {
            notice(format_args!("identity: {message}"));
            self.failure.send_replace(Some(message));
        }
    }

    fn current(&self) -> Option<Arc<Svid>> {
        self.svid.borrow().clone()
    }
}

/// Whose SVID is ours. Of which tenant the workload is, only who issues the SVID can tell.
#[derive(Clone, Debug)]
struct Me {
    trust_domain: TrustDomain,
    workload: WorkloadName,
}

impl Me {
    fn is(&self, id: &SpiffeId) -> bool {
        use ringfence_policy::spiffe::Member;
        let is_workload = matches!(id.member(), Some(Member::Workload { workload, .. }) if workload == self.workload);
        is_workload && *id.trust_domain() == self.trust_domain
    }
}

/// What `/config` tells of an identity.
pub fn shown(membership: &Membership) -> Value {
    let svid = membership.svid.borrow().clone();
    let bundle = membership.trust.borrow().clone();
    json!({
        "svid": svid.map(|svid| json!({
            "id": svid.id.to_string(),
            "notAfter": humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + svid.not_after).to_string(),
        })),
        "trustBundle": bundle.map(|bundle| json!({
            "trustDomain": bundle.trust_domain.as_str(),
            "sequence": bundle.sequence,
            "authorities": bundle.authorities.len(),
        })),
        "failure": *membership.failure.borrow(),
    })
}
