//! One zone's transfers, one after another for as long as it is wanted.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    TransferError, TransferEvent,
    connection::Limits,
    fetch::{Fetch, Fetched, How},
    kept::Kept,
    primary::Primary,
    soa::Soa,
};
use crate::feed::schedule::Schedule;

/// From this start of one look to that of the next, at the least, though notified: anybody can send a NOTIFY in the primary's name.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the task shares with the `Transfers`.
#[derive(Debug)]
pub(super) struct Shared {
    /// Whether a look has ended since the start.
    pub(super) tried: watch::Sender<bool>,
    /// Changed by each notification; any number of them before a look are one.
    pub(super) wishes: watch::Sender<()>,
}

pub(super) struct Task {
    /// Of the PolicyZone.
    pub(super) name: Arc<str>,
    pub(super) primary: Arc<Primary>,
    pub(super) kept: Kept,
    pub(super) limits: Limits,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<TransferEvent>,
    pub(super) jitter: fn() -> f64,
}

/// What is known of the zone that stands.
struct Standing {
    soa: Soa,
    /// The last word of its primary, or the start.
    heard: Instant,
}

impl Task {
    /// Never ends by itself.
    pub(super) async fn run(self) {
        let mut standing = self.standing().await;
        let mut schedule = Schedule::default();
        let mut failing: Option<String> = None;
        let mut wishes = self.shared.wishes.subscribe();
        loop {
            wishes.mark_unchanged();
            let started = Instant::now();
            let fetch = Fetch { primary: &self.primary, kept: &self.kept, limits: self.limits };
            let outcome = fetch.run().await;
            self.shared.tried.send_replace(true);
            let pause = match outcome {
                Ok(Fetched { soa, how }) => {
                    schedule = Schedule::default();
                    standing = Some(Standing { soa, heard: Instant::now() });
                    if how != How::Unchanged {
                        self.tell(TransferEvent::Changed { zone: self.name.clone(), serial: soa.serial.0 }).await;
                    }
                    if failing.take().is_some() {
                        self.tell(TransferEvent::Recovered { zone: self.name.clone() }).await;
                    }
                    soa.refresh((self.jitter)())
                }
                Err(error) => {
                    let message = self.told(&error, standing.as_ref());
                    if failing.as_ref() != Some(&message) {
                        failing = Some(message.clone());
                        self.tell(TransferEvent::Failed { zone: self.name.clone(), message }).await;
                    }
                    match &standing {
                        Some(standing) => standing.soa.retry((self.jitter)()),
                        None => schedule.failed((self.jitter)()),
                    }
                }
            };
            let next = Instant::now() + pause;
            tokio::select! {
                () = sleep_until(next) => {}
                _ = wishes.changed() => sleep_until(next.min(started + LOOK_EVERY)).await,
            }
        }
    }

    async fn standing(&self) -> Option<Standing> {
        let (kept, zone) = (self.kept.clone(), self.primary.zone.clone());
        let soa = tokio::task::spawn_blocking(move || kept.soa(&zone)).await.ok().flatten()?;
        Some(Standing { soa: Soa::of(&soa)?, heard: Instant::now() })
    }

    /// A zone that has expired (RFC 1035 §3.3.13) stands all the same. To be without it would be to filter nothing or to answer nothing:
    /// whoever can keep the primary from us must not have that choice.
    fn told(&self, error: &TransferError, standing: Option<&Standing>) -> String {
        let Self { primary, .. } = self;
        match standing {
            None => format!("{primary}: {error}; no zone was transferred yet"),
            Some(Standing { soa, heard }) if heard.elapsed() < soa.expire => format!("{primary}: {error}; serial {} stands", soa.serial.0),
            Some(Standing { soa, .. }) => {
                format!(
                    "{primary}: {error}; serial {} stands, though it expired {} s after the last word of it",
                    soa.serial.0,
                    soa.expire.as_secs()
                )
            }
        }
    }

    async fn tell(&self, event: TransferEvent) {
        // Whoever is told is gone only when the control plane ends.
        let _ = self.events.send(event).await;
    }
}
