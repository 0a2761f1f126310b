//! The configuration key of a control plane with replicas, and up to which epoch any of them has signed.
//!
//! Sidecars refuse what was signed earlier than what they hold, whichever replica signed either. So each replica signs later than all that it
//! knows of the others: the record of the latest epoch, an annotation beside the key, is raised after each publication and watched by all.
//! Clocks that differ, or jump, are no matter then. What is left is two replicas that learn of two changes to one resource in opposite order,
//! and a sidecar that goes from one to the other between them: it stays with what it has, tells so (`status`), and takes the next change.
//! It never takes what is older for that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use ringfence_xds::seal::SigningKey;
use tokio::{sync::watch, time::sleep};

use super::{Signer, SigningError, epoch::Epochs, key::PRIVATE_KEY};
use crate::{
    kubernetes::secret::{SecretError, SharedSecret, Versioned},
    say::say,
};

/// On the Secret of the key, in decimal.
const EPOCH_ANNOTATION: &str = "ringfence.dev/config-epoch";
/// Between two writes of the record: publications come in bursts.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a replica that starts begins anew because another did at the same time.
const MAX_RACES: usize = 16;

/// Epochs of this replica and, as far as it knows, of the others.
#[derive(Debug)]
pub(super) struct SharedEpoch {
    /// The latest that another replica has told of.
    others: AtomicU64,
    /// Ours, to be told.
    own: watch::Sender<u64>,
}

impl SharedEpoch {
    fn new(latest: u64) -> Arc<Self> {
        Arc::new(Self { others: AtomicU64::new(latest), own: watch::Sender::new(latest) })
    }

    pub(super) fn others(&self) -> u64 {
        self.others.load(Ordering::Relaxed)
    }

    pub(super) fn used(&self, epoch: u64) {
        self.own.send_replace(epoch);
    }
}

/// Keeps the record, for as long as it runs.
#[derive(Debug)]
pub struct EpochRecord {
    secret: SharedSecret,
    epoch: Arc<SharedEpoch>,
}

/// By the key in the Secret, which is made where there is none.
pub async fn open(secret: SharedSecret) -> Result<(Signer, EpochRecord), SigningError> {
    let kept = read_or_make(&secret).await?;
    let bad = |message: String| secret.bad(format!("{PRIVATE_KEY}: {message}"));
    let pem =
        kept.get(PRIVATE_KEY).ok_or_else(|| bad("is missing: bring it back, or delete the Secret and start every sidecar anew".into()))?;
    let key = SigningKey::from_pem(pem).map_err(|error| bad(error.to_string()))?;
    let epoch = SharedEpoch::new(recorded(&kept));
    Ok((Signer { key, epochs: Epochs::shared(epoch.clone()) }, EpochRecord { secret, epoch }))
}

async fn read_or_make(secret: &SharedSecret) -> Result<Versioned, SigningError> {
    for _ in 0..MAX_RACES {
        if let Some(kept) = secret.read().await? {
            return Ok(kept);
        }
        let (_, pem) = SigningKey::generate().map_err(|error| secret.bad(error.to_string()))?;
        match secret.create([(PRIVATE_KEY, pem.into_bytes())]).await {
            Err(SecretError::Raced { .. }) => {}
            created => return Ok(created?),
        }
    }
    Err(secret.bad("comes and goes").into())
}

/// What cannot be read leaves the clock alone to say how late it is.
fn recorded(secret: &Versioned) -> u64 {
    secret.annotation(EPOCH_ANNOTATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl EpochRecord {
    /// Tells and is told, until it is dropped.
    pub async fn run(self) {
        let (mut own, mut told) = (self.epoch.own.subscribe(), String::new());
        let mut changes = std::pin::pin!(self.secret.changes());
        own.mark_changed();
        loop {
            // The senders live as long as this.
            tokio::select! {
                _ = changes.next() => {}
                _ = own.changed() => {}
            }
            let failed = self.reconcile().await.err().map(|error| error.to_string()).unwrap_or_default();
            if failed != told && !failed.is_empty() {
                say(format_args!("ringfence: {failed}: of other replicas' epochs the clock alone tells"));
            }
            told = failed;
            sleep(PAUSE).await;
        }
    }

    /// Learns the record, and raises it to our own epoch.
    async fn reconcile(&self) -> Result<(), SecretError> {
        for _ in 0..MAX_RACES {
            let Some(mut kept) = self.secret.read().await? else { return Err(self.secret.bad("is gone")) };
            let (recorded, own) = (recorded(&kept), *self.epoch.own.borrow());
            self.epoch.others.fetch_max(recorded, Ordering::Relaxed);
            if recorded >= own {
                return Ok(());
            }
            kept.annotate(EPOCH_ANNOTATION, own.to_string());
            match self.secret.replace(&kept).await {
                Err(SecretError::Raced { .. }) => {}
                written => return written.map(drop),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_signs_later_than_all_it_knows_of() {
        let epoch = SharedEpoch::new(5000);
        let mut epochs = Epochs::shared(epoch.clone());
        for (others, now, wanted) in [(0, 1000, 5001), (5001, 1000, 5002), (9000, 1000, 9001), (9000, 10_000, 10_000), (0, 10_000, 10_001)]
        {
            epoch.others.fetch_max(others, Ordering::Relaxed);
            assert_eq!(epochs.at(now), wanted);
            assert_eq!(*epoch.own.borrow(), wanted, "it is to be told");
        }
    }
}
