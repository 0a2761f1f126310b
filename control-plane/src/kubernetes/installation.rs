//! One installation of Ringfence in a cluster, as its control planes know it.

use std::{env, fmt::Write};

use kube::{Client, Config};
use tokio::task::AbortHandle;

use super::{
    lease::{self, Candidate, Leader},
    status,
};
use crate::say::say;

/// Where the chart puts the control plane if nobody says otherwise.
pub const DEFAULT_NAMESPACE: &str = "ringfence-system";

/// Why the API server is not to be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    #[error("no way to the API server, neither in a pod nor by KUBECONFIG: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    #[error("no way to the API server: {0}")]
    Client(#[from] Box<kube::Error>),
}

#[derive(Clone)]
pub struct Installation {
    pub client: Client,
    pub namespace: String,
    /// Name of this replica: of its pod, if it is in one.
    pub replica: String,
    /// Whether this replica writes status, and children of what operators write.
    pub leader: Leader,
    standing: AbortHandle,
}

impl Installation {
    /// Joins the election of whoever writes. The API server as a pod knows it, or as `KUBECONFIG` does; `namespace`: default that of the
    /// pod, or [`DEFAULT_NAMESPACE`]. Call it within a runtime.
    pub async fn join(namespace: Option<&str>) -> Result<Self, InstallationError> {
        let client = Client::try_from(Config::infer().await?).map_err(Box::new)?;
        let of_the_pod = || env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty());
        let namespace = namespace.map(str::to_owned).or_else(of_the_pod).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let replica = env::var("POD_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(invented_name);
        let (candidate, leader) = Candidate::new(&client, &namespace, &replica);
        let standing = tokio::spawn(candidate.run()).abort_handle();
        Ok(Self { client, namespace, replica, leader, standing })
    }

    /// Before the process ends, and after its other tasks have: another replica writes at once, and does not wait for our sidecars.
    pub async fn leave(self) {
        self.standing.abort();
        let (given_up, withdrawn) = tokio::join!(lease::give_up(&self.client, &self.namespace, &self.replica), status::withdraw(&self));
        for error in [given_up.err(), withdrawn.err()].into_iter().flatten() {
            say(format_args!("ringfence: {error}; the other replicas find out by themselves"));
        }
    }
}

fn invented_name() -> String {
    let mut bytes = [0; 4];
    // Without randomness two of them take turns, and no more is wrong.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().fold("ringfence-".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}
