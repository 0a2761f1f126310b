//! What comes from outside: JWK sets by URI, and policy zones by `transfer`.
//!
//! Of the sets: takes where each issuer's keys are; yields the last good set of each, and tells when one changed or cannot be had. Never
//! knows who is sent the keys. One task per issuer, and none where no issuer has a URI.
//!
//! 1. `uri`: what the operator wrote, checked;
//! 2. `dial`: its host -> an address that may be dialled -> a connection;
//! 3. `fetch`: TLS, one request, one bounded answer;
//! 4. `keys`: the answer -> the keys that the issuer can use;
//! 5. `task`: again and again by the `schedule`, the last good `kept` on disk.

mod dial;
mod fetch;
mod kept;
mod keys;
mod schedule;
mod task;
pub mod transfer;
mod uri;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use ringfence_policy::identify::keys::{Algorithm, KeyFault};
use ringfence_xds::{
    generated::resource as proto,
    resource::{Kind, Resource},
};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use crate::spec::{Object, Spec};
use fetch::{Deadlines, Fetcher};
use kept::Kept;
use task::{Feed, Held, Task};

pub(crate) use schedule::jitter;
pub use uri::{AuthorityError, JwksUri, JwksUriError};

/// Events that nobody has taken yet; the feeds wait where there are more.
const EVENTS: usize = 64;
/// Below the state directory.
const DIR: &str = "jwks";

/// What happened to an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEvent {
    /// `Feeds::text` is another than before, or another part of what was published was set aside. A private key among it is one that the
    /// identity provider has given away.
    Changed { issuer: Arc<str>, set_aside: Vec<KeyFault> },
    /// The keys could not be had, or not be kept; the last good ones stay. Told once for as long as it is the same.
    Failed { issuer: Arc<str>, message: String },
    /// After `Failed`.
    Recovered { issuer: Arc<str> },
}

/// Where an issuer's keys are to come from, and which of them are of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub from: JwksUri,
    pub algorithms: Vec<Algorithm>,
}

/// The issuers among `objects` whose keys are fetched.
pub fn wanted<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> BTreeMap<Arc<str>, Wanted> {
    let fetched = |object: &'a Arc<Object>| {
        let Spec::Issuer(issuer) = &object.spec else { return None };
        // An algorithm that is none is a fault of the object, told by the decoder.
        let algorithms = issuer.algorithms.iter().filter_map(|text| text.parse().ok()).collect();
        Some((object.key.name.clone(), Wanted { from: issuer.jwks.uri()?.clone(), algorithms }))
    };
    objects.into_iter().filter_map(fetched).collect()
}

/// Every issuer's feed. Dropping it ends them all.
#[derive(Debug)]
pub struct Feeds {
    dir: PathBuf,
    deadlines: Deadlines,
    events: mpsc::Sender<FeedEvent>,
    running: BTreeMap<Arc<str>, Running>,
}

#[derive(Debug)]
struct Running {
    wanted: Wanted,
    feed: Arc<Feed>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Feeds {
    /// The sets are kept below `state_dir`.
    pub fn new(state_dir: &Path) -> (Self, mpsc::Receiver<FeedEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        (Self { dir: state_dir.join(DIR), deadlines: Deadlines::default(), events, running: BTreeMap::new() }, receiver)
    }

    /// Makes `wanted` the issuers that are fetched, from now on and each at once. One that is as it was is not disturbed; one whose URI
    /// changed begins without keys. Call it within a runtime.
    pub fn reconcile(&mut self, wanted: BTreeMap<Arc<str>, Wanted>) {
        let dir = &self.dir;
        self.running.retain(|issuer, _| {
            let keep = wanted.contains_key(issuer);
            if !keep {
                Kept::new(dir, issuer).forget();
            }
            keep
        });
        for (issuer, wanted) in wanted {
            if self.running.get(&issuer).is_none_or(|running| running.wanted != wanted) {
                let before = self.running.remove(&issuer);
                let running = self.start(issuer.clone(), wanted, before);
                self.running.insert(issuer, running);
            }
        }
    }

    fn start(&self, issuer: Arc<str>, wanted: Wanted, before: Option<Running>) -> Running {
        let kept = Kept::new(&self.dir, &issuer);
        let uri = wanted.from.to_string();
        let held = before.filter(|before| before.wanted.from.same_place(&wanted.from)).and_then(|before| before.text());
        // Other algorithms make other keys of use.
        let text = match held {
            Some(text) => keys::usable(&text, &wanted.algorithms).ok().map(|(text, _)| text),
            None => kept.load(&uri, &wanted.algorithms),
        };
        let feed = Arc::new(Feed { held: watch::Sender::new(Held { text, tried: false }), wishes: watch::Sender::new(()) });
        let task = Task { issuer, uri, feed: feed.clone(), kept, events: self.events.clone(), jitter: schedule::jitter };
        let fetcher = Arc::new(Fetcher::new(wanted.from.clone(), wanted.algorithms.clone(), self.deadlines));
        let fetch = move || {
            let fetcher = fetcher.clone();
            async move { fetcher.fetch().await }
        };
        Running { wanted, feed, task: tokio::spawn(task.run(fetch)).abort_handle() }
    }

    /// The last good set of an issuer. It can be used with the algorithms that it is wanted for.
    pub fn text(&self, issuer: &str) -> Option<Bytes> {
        self.running.get(issuer)?.text()
    }

    /// Puts the keys that are there into the issuers among `resources` that were compiled without.
    pub fn fill(&self, resources: &mut [Resource]) {
        for resource in resources.iter_mut().filter(|resource| resource.kind == Kind::Issuer) {
            // Compiled by ourselves: it does decode.
            if let Some(text) = self.text(&resource.name)
                && let Ok(body) = proto::Issuer::decode(resource.bytes.clone())
            {
                *resource = Resource::new(resource.name.clone(), &proto::Issuer { jwks: text, ..body });
            }
        }
    }

    /// Somebody met a token of a key that is not there. Fetched at once, but for `REFRESH_EVERY`; an issuer that is not fetched is none.
    pub fn refresh(&self, issuer: &str) {
        if let Some(running) = self.running.get(issuer) {
            running.feed.wishes.send_replace(());
        }
    }

    /// Until every issuer has keys, or was asked for them in vain once: whoever waits for it before the first push spares the sidecars one
    /// without keys. Bounded by the deadline of a fetch.
    pub async fn tried(&self) {
        for running in self.running.values() {
            let mut held = running.feed.held.subscribe();
            // An error says that the task is gone.
            let _ = held.wait_for(|held| held.tried || held.text.is_some()).await;
        }
    }
}

impl Running {
    fn text(&self) -> Option<Bytes> {
        self.feed.held.borrow().text.clone()
    }
}
