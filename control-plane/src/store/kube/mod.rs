//! Custom resources: one watch for each kind, whatever it brings read as a file's objects are.
//!
//! Takes what the API server tells; yields what is written at the moment, and keeps for the status what it came to. A server that cannot be
//! reached tells nothing, and so takes nothing away: what was read stays, and is brought up to date by the list that begins the next watch.

mod backoff;
pub mod ledger;
mod resource;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject},
    core::gvk::GroupVersionKind,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::time::{Instant, timeout_at};

use super::catalog::Written;
use crate::{
    kubernetes::crd::{Names, group_version},
    say::say,
    spec::{Fault, Kind, Object, ObjectKey},
};
use backoff::Backoff;
pub use ledger::Ledger;
use resource::Held;

/// An edit is taken up when nothing more came for so long …
const QUIET: Duration = Duration::from_millis(20);
/// … and a steady stream of edits at least this often.
const AT_LEAST_EVERY: Duration = Duration::from_millis(400);

/// A watch that goes on where it was tells nothing of that: one that was not found broken for so long is whole.
const SILENT_FOR: Duration = Duration::from_secs(60);

type Told = (Kind, Result<Event<DynamicObject>, watcher::Error>);

pub struct Cluster {
    told: Pin<Box<dyn Stream<Item = Told> + Send>>,
    /// Where transferred zones are kept.
    state_dir: PathBuf,
    held: BTreeMap<ObjectKey, Held>,
    /// Names that a list under way has brought so far.
    listing: HashMap<Kind, BTreeSet<Arc<str>>>,
    /// The kinds that were listed once.
    listed: BTreeSet<Kind>,
    /// Of those whose watch broke: when it was found so last.
    broken: BTreeMap<Kind, Instant>,
    /// First and last change that was not taken up yet.
    edit: Option<(Instant, Instant)>,
    ledger: Arc<Ledger>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("held", &self.held).field("listed", &self.listed).finish_non_exhaustive()
    }
}

/// How the API server calls a kind.
pub fn api_resource(kind: Kind) -> ApiResource {
    let (group, version) = group_version();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.as_str()), Names::of(kind).plural)
}

fn name_of(object: &DynamicObject) -> Option<Arc<str>> {
    object.metadata.name.as_deref().map(Arc::from)
}

impl Cluster {
    pub fn new(client: &Client, state_dir: &Path) -> Self {
        let watches = Kind::ALL.iter().map(|kind| {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &api_resource(*kind));
            let told = watcher(api, watcher::Config::default()).backoff(Backoff::default());
            told.map(move |event| (*kind, event)).boxed()
        });
        Self::of(Box::pin(stream::select_all(watches)), state_dir)
    }

    fn of(told: Pin<Box<dyn Stream<Item = Told> + Send>>, state_dir: &Path) -> Self {
        Self {
            told,
            state_dir: state_dir.to_owned(),
            held: BTreeMap::new(),
            listing: HashMap::new(),
            listed: BTreeSet::new(),
            broken: BTreeMap::new(),
            edit: None,
            ledger: Arc::default(),
        }
    }

    /// What is to be said of the objects.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }

    /// Returns when every kind was listed: whatever is missing then does not exist.
    pub async fn listed(&mut self) {
        while self.listed.len() < Kind::ALL.len() {
            match self.told.next().await {
                Some(told) => self.take(told),
                // A watch has no end.
                None => std::future::pending().await,
            }
        }
    }

    /// Returns when something was edited and no more comes. May be dropped at any time.
    pub async fn edited(&mut self) {
        loop {
            let due = self.edit.map(|(first, last)| (last + QUIET).min(first + AT_LEAST_EVERY));
            let whole = self.broken.values().min().map(|since| *since + SILENT_FOR);
            let told = match due.into_iter().chain(whole).min() {
                None => self.told.next().await,
                Some(until) => match timeout_at(until, self.told.next()).await {
                    Ok(told) => told,
                    // Lists that have not come to their end take nothing away, so that they need not be waited for.
                    Err(_) if due == Some(until) => return self.edit = None,
                    Err(_) => {
                        self.broken.retain(|_, since| since.elapsed() < SILENT_FOR);
                        self.touch();
                        continue;
                    }
                },
            };
            match told {
                Some(told) => self.take(told),
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, (kind, event): Told) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.on_broken(kind, &error),
        };
        let changed = match event {
            Event::Init => {
                self.listing.insert(kind, BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                let name = name_of(&object);
                self.listing.entry(kind).or_default().extend(name);
                self.put(kind, object)
            }
            Event::InitDone => {
                self.on_mended(kind);
                self.listed.insert(kind);
                let there = self.listing.remove(&kind).unwrap_or_default();
                let gone: Vec<ObjectKey> = self.held.keys().filter(|key| key.kind == kind && !there.contains(&key.name)).cloned().collect();
                gone.iter().filter(|key| self.remove(key)).count() > 0
            }
            Event::Apply(object) => {
                self.on_mended(kind);
                self.put(kind, object)
            }
            Event::Delete(object) => name_of(&object).is_some_and(|name| self.remove(&ObjectKey { kind, name })),
        };
        if changed {
            self.touch();
        }
    }

    /// There is something to take up.
    fn touch(&mut self) {
        let now = Instant::now();
        self.edit = Some((self.edit.map_or(now, |(first, _)| first), now));
    }

    /// Whether objects of the kind may be older here than what is written: its watch broke, and is not known to be whole again.
    pub(crate) fn is_behind(&self, kind: Kind) -> bool {
        self.broken.contains_key(&kind)
    }

    /// Whether what is written is another than before.
    fn put(&mut self, kind: Kind, object: DynamicObject) -> bool {
        let Some(name) = name_of(&object) else { return false };
        let key = ObjectKey { kind, name };
        let (uid, generation) = (object.metadata.uid.clone().unwrap_or_default(), object.metadata.generation.unwrap_or_default());
        self.ledger.observe(&key, &uid, generation, object.data.get("status"));
        let before = self.held.get(&key);
        if before.is_some_and(|held| held.is(&uid, generation)) {
            return false;
        }
        let held = Held::read(&key, object, before, &self.state_dir);
        self.held.insert(key, held);
        true
    }

    fn remove(&mut self, key: &ObjectKey) -> bool {
        self.ledger.forget(key);
        self.held.remove(key).is_some()
    }

    fn on_broken(&mut self, kind: Kind, error: &watcher::Error) {
        let why = match error {
            // The server ends a watch now and then, and forgets how far one had come: the next begins at once.
            watcher::Error::WatchFailed(_) => return,
            watcher::Error::WatchError(status) if status.code == 410 => return,
            watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
                "the API server does not know the kind: ringfence crds | kubectl apply --server-side -f -".to_owned()
            }
            other => other.to_string(),
        };
        let is_known = !self.broken.is_empty();
        self.broken.insert(kind, Instant::now());
        if !is_known {
            let stays = if self.listed.len() < Kind::ALL.len() { "nothing is served before that" } else { "what is in force stays" };
            say(format_args!("ringfence: {kind}: {why}; {stays}"));
        }
    }

    fn on_mended(&mut self, kind: Kind) {
        if self.broken.remove(&kind).is_none() {
            return;
        }
        // What was set aside meanwhile.
        self.touch();
        if self.broken.is_empty() {
            say("ringfence: the API server answers again");
        }
    }

    /// What is written at the moment.
    pub(crate) fn read(&mut self) -> Written {
        let mut written = Written::default();
        for (key, held) in &mut self.held {
            // An old object that is made anew of what was transferred would come back under a later seal.
            if !self.broken.contains_key(&key.kind) {
                held.refresh(key, &self.state_dir);
            }
            written.add(held.parsed());
        }
        written
    }

    /// Each object as it was when it last was accepted.
    pub(crate) fn last_accepted(&self) -> Vec<Arc<Object>> {
        self.held.iter().flat_map(|(key, held)| held.last_accepted(key, &self.state_dir)).collect()
    }

    /// Takes note of what became of each object. `in_force`: the object that is, under a name.
    pub(crate) fn judge<'a>(&mut self, in_force: impl Fn(&ObjectKey) -> Option<&'a Arc<Object>>, faults: &[Fault]) {
        let mut by_key: BTreeMap<ObjectKey, Vec<&Fault>> = BTreeMap::new();
        for fault in faults {
            fault.key().into_iter().for_each(|key| by_key.entry(key).or_default().push(fault));
        }
        for (key, held) in &mut self.held {
            held.is_judged(in_force(key));
            let faults = by_key.get(key).map(Vec::as_slice).unwrap_or_default();
            self.ledger.judge(key, held.verdict(faults));
        }
        self.ledger.tell();
    }
}

#[cfg(test)]
mod tests;
