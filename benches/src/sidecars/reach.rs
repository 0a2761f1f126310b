//! How simulated sidecars reach their control plane, and as whom.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use ringfence_proxy::{
    bootstrap::{self, ControlPlane, IdentitySource, JoinToken, ProofSource},
    identity::Identity,
    telemetry::metrics::Metrics,
};
use ringfence_xds::policy::{NameError, WorkloadName};
use serde::{Deserialize, Serialize};

use crate::Error;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reach {
    /// Each workload's by its Unix socket in this directory.
    Sockets(PathBuf),
    Tls(Tls),
}

/// By mutual TLS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tls {
    pub(crate) address: SocketAddr,
    pub(crate) trust_domain: String,
    /// PEM: whom they believe until the control plane has told of others.
    pub(crate) bundle: PathBuf,
    /// The state directory of the `n`th sidecar is `n` in this one.
    pub(crate) states: PathBuf,
}

impl Tls {
    /// Of one sidecar: there is its SVID, or a join token that it has not used yet.
    pub(crate) fn state(&self, number: usize) -> PathBuf {
        self.states.join(number.to_string())
    }

    pub(crate) fn join_token(&self, number: usize) -> PathBuf {
        self.state(number).join("join-token")
    }
}

/// One sidecar's.
pub(super) struct Link {
    pub(super) control_plane: ControlPlane,
    /// Over TLS alone.
    pub(super) identity: Option<Identity>,
}

pub(super) struct Links {
    reach: Reach,
    metrics: Arc<Metrics>,
}

impl Links {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach, metrics: Arc::new(Metrics::new()) }
    }

    /// That of the sidecar `number`, which serves `workload`.
    pub(super) fn of(&self, number: usize, workload: &str) -> Result<Link, Error> {
        let tls = match &self.reach {
            Reach::Sockets(dir) => {
                return Ok(Link { control_plane: ControlPlane::Unix(dir.join(format!("{workload}.ads"))), identity: None });
            }
            Reach::Tls(tls) => tls,
        };
        let control_plane = ControlPlane::Tls(tls.address.to_string());
        let source = IdentitySource::ControlPlane(ProofSource::JoinToken(JoinToken::File(tls.join_token(number))));
        let config = bootstrap::Identity { trust_domain: tls.trust_domain.clone(), bundle: Some(tls.bundle.clone()), source };
        let failed = |error: &dyn std::fmt::Display| Error::Load(format!("the sidecar {number} of {workload}: {error}"));
        let workload: WorkloadName = workload.parse().map_err(|error: NameError| failed(&error))?;
        let identity = Identity::new(&config, &control_plane, &workload, Some(&tls.state(number)), &self.metrics);
        Ok(Link { identity: Some(identity.map_err(|error| failed(&error))?), control_plane })
    }
}
