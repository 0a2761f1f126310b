//! Which replica writes: a Lease (coordination.k8s.io/v1) that one holds at a time.
//!
//! Nobody's clock is compared with another's: a candidate takes the Lease over when it has seen no renewal for the Lease's whole duration by
//! its own clock, and a holder counts itself out a third of that earlier, from the start of the last renewal that succeeded. Each change is
//! made of the version that was looked at, so that of two who take it over at once one does. What this does not fence is a write that was
//! sent in time and arrives late; whoever writes has to make such a write harmless.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::coordination::v1::{Lease as Resource, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{Api, PostParams},
};
use tokio::{sync::watch, time::Instant};

use super::names::LEASE;
use crate::say::say;

const DURATION: Duration = Duration::from_secs(15);
/// After this without a renewal the holder is none any more, and lets go of what it was about to write.
const HELD_FOR: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);

/// Whether this replica is the one that writes.
#[derive(Clone, Debug)]
pub struct Leader(watch::Receiver<Option<Instant>>);

impl Leader {
    /// To be asked before each write.
    pub fn is_held(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Returns when something may have changed about it.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Stands for election until the process ends, or the task does.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Resource>,
    identity: Arc<str>,
    /// Who held it when it was looked at last, in which version, and since when nothing has changed.
    seen: Option<(Resource, Instant)>,
    held: watch::Sender<Option<Instant>>,
}

impl Candidate {
    pub fn new(client: &Client, namespace: &str, identity: &str) -> (Self, Leader) {
        let (held, leader) = watch::channel(None);
        let api = Api::namespaced(client.clone(), namespace);
        (Self { api, identity: identity.into(), seen: None, held }, Leader(leader))
    }

    pub async fn run(mut self) {
        loop {
            let began = Instant::now();
            // Without an answer in this time there is none for whoever asks in the meantime either.
            let turn = tokio::time::timeout(HELD_FOR / 2, self.turn()).await;
            if let Ok(Ok(true)) = turn {
                // A renewal is no news.
                let is_new = self.held.send_if_modified(|held| held.replace(began + HELD_FOR).is_none());
                if is_new {
                    say("ringfence: this replica writes status");
                }
            } else if self.held.borrow().is_some_and(|until| until <= Instant::now()) || matches!(turn, Ok(Ok(false))) {
                // Errors of the API server are told by the watches, and count only when it has lasted.
                if self.held.send_replace(None).is_some() {
                    say("ringfence: another replica writes status");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Whether the Lease is ours after this.
    async fn turn(&mut self) -> Result<bool, kube::Error> {
        let written = match self.api.get_opt(LEASE).await? {
            None => self.api.create(&PostParams::default(), &self.next(None)).await,
            Some(lease) => {
                if !self.may_take(&lease) {
                    return Ok(false);
                }
                self.api.replace(LEASE, &PostParams::default(), &self.next(Some(&lease))).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Another was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn may_take(&mut self, lease: &Resource) -> bool {
        let holder = |lease: &Resource| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder(lease) == *self.identity || holder(lease).is_empty() {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen.metadata.resource_version == lease.metadata.resource_version => since.elapsed() >= duration(lease),
            _ => {
                self.seen = Some((lease.clone(), Instant::now()));
                false
            }
        }
    }

    fn next(&self, lease: Option<&Resource>) -> Resource {
        let now = MicroTime(Timestamp::try_from(SystemTime::now()).unwrap_or_default());
        let spec = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_ours = spec.holder_identity.as_deref() == Some(&*self.identity);
        Resource {
            metadata: lease
                .map_or_else(|| ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() }, |lease| lease.metadata.clone()),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.to_string()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if is_ours { spec.acquire_time.clone() } else { Some(now.clone()) },
                lease_transitions: Some(spec.lease_transitions.unwrap_or_default() + i32::from(!is_ours && lease.is_some())),
                renew_time: Some(now),
                ..spec
            }),
        }
    }
}

/// Leaves the Lease to whoever comes first, if it is ours.
pub(super) async fn give_up(client: &Client, namespace: &str, identity: &str) -> Result<(), kube::Error> {
    let api: Api<Resource> = Api::namespaced(client.clone(), namespace);
    let Some(mut lease) = api.get_opt(LEASE).await? else { return Ok(()) };
    if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(identity)) {
        spec.holder_identity = None;
        api.replace(LEASE, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

/// As its holder says, within bounds: one that said a year would have it for a year.
fn duration(lease: &Resource) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs).clamp(HELD_FOR, DURATION * 4)
}

#[cfg(test)]
mod tests;
