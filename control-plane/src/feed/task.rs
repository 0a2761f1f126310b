//! One issuer's fetches, one after another for as long as it is wanted.

use std::sync::Arc;

use bytes::Bytes;
use ringfence_policy::identify::keys::KeyFault;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    FeedEvent,
    fetch::{FetchError, Fetched},
    kept::Kept,
    schedule::{REFRESH_EVERY, Schedule},
};

/// What the task shares with the `Feeds`.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) held: watch::Sender<Held>,
    /// Changed by each wish for fresh keys; any number of them before a fetch are one.
    pub(super) wishes: watch::Sender<()>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// The last good set.
    pub(super) text: Option<Bytes>,
    /// Whether a fetch has ended since the start.
    pub(super) tried: bool,
}

pub(super) struct Task {
    pub(super) issuer: Arc<str>,
    pub(super) uri: String,
    pub(super) feed: Arc<Feed>,
    pub(super) kept: Kept,
    pub(super) events: mpsc::Sender<FeedEvent>,
    pub(super) jitter: fn() -> f64,
}

/// What was told and still holds.
#[derive(Default)]
struct Told {
    failing: Option<String>,
    set_aside: Vec<KeyFault>,
}

impl Task {
    /// Never ends by itself.
    pub(super) async fn run<F>(self, fetch: impl Fn() -> F)
    where
        F: Future<Output = Result<Fetched, FetchError>>,
    {
        let mut schedule = Schedule::default();
        let mut told = Told::default();
        let mut wishes = self.feed.wishes.subscribe();
        loop {
            wishes.mark_unchanged();
            let started = Instant::now();
            let pause = match fetch().await {
                Ok(fetched) => {
                    let pause = schedule.fetched(fetched.max_age);
                    self.take_up(fetched, &mut told).await;
                    pause
                }
                Err(error) => {
                    self.feed.held.send_modify(|held| held.tried = true);
                    self.tell_failure(format!("{}: {error}", self.uri), &mut told).await;
                    schedule.failed((self.jitter)())
                }
            };
            let next = Instant::now() + pause;
            tokio::select! {
                () = sleep_until(next) => {}
                _ = wishes.changed() => sleep_until(next.min(started + REFRESH_EVERY)).await,
            }
        }
    }

    async fn take_up(&self, fetched: Fetched, told: &mut Told) {
        let Fetched { text, set_aside, .. } = fetched;
        let changed = self.feed.held.borrow().text.as_ref() != Some(&text);
        self.feed.held.send_replace(Held { text: Some(text.clone()), tried: true });
        let mut unkept = None;
        if changed {
            let (kept, uri) = (self.kept.clone(), self.uri.clone());
            let saved = tokio::task::spawn_blocking(move || kept.save(&uri, &text)).await;
            unkept = saved.unwrap_or_else(|error| Err(error.into())).err();
        }
        let issuer = || self.issuer.clone();
        if told.failing.take().is_some() {
            self.tell(FeedEvent::Recovered { issuer: issuer() }).await;
        }
        if changed || told.set_aside != set_aside {
            told.set_aside.clone_from(&set_aside);
            self.tell(FeedEvent::Changed { issuer: issuer(), set_aside }).await;
        }
        if let Some(error) = unkept {
            let message = format!("the keys are in force, but not kept for a restart: {error}");
            self.tell(FeedEvent::Failed { issuer: issuer(), message }).await;
        }
    }

    async fn tell_failure(&self, message: String, told: &mut Told) {
        if told.failing.as_ref() != Some(&message) {
            told.failing = Some(message.clone());
            self.tell(FeedEvent::Failed { issuer: self.issuer.clone(), message }).await;
        }
    }

    async fn tell(&self, event: FeedEvent) {
        // Whoever is told is gone only when the control plane ends.
        let _ = self.events.send(event).await;
    }
}
