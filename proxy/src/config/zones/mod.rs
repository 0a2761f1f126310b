//! The policy zones of this sidecar: on disk by content, mapped, never in memory of our own.
//!
//! Takes manifests and chunks as they come; yields zones that were checked whole. A zone that is open stays so for whoever uses it, however
//! it is replaced or removed meanwhile. Never knows who uses which.

mod gather;
mod mapping;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::Path,
    sync::Arc,
};

use gather::{Awaited, Gathering, Progress};
use place::Place;
use ringfence_policy::rpz::Zone;
use ringfence_xds::zone::{Digest, HeldZone, Manifest};
use tokio::task::JoinSet;

use crate::telemetry::notice;

/// Of all zones of one sidecar together, old versions and new, on disk.
const MAX_BYTES: u64 = 512 << 20;

pub struct Zones {
    place: Place,
    open: HashMap<Digest, HeldZone>,
    /// By the zones' names.
    gathering: BTreeMap<Arc<str>, Gathering>,
    checks: JoinSet<Checked>,
}

/// What became of a zone.
#[derive(Debug)]
pub struct Checked {
    pub name: Arc<str>,
    digest: Digest,
    outcome: Result<Zone, String>,
}

/// Why a zone cannot be had, for its author.
pub type Failure = (Arc<str>, String);

impl Zones {
    /// Without `state_dir` nothing outlives the process.
    pub fn new(state_dir: Option<&Path>) -> io::Result<Self> {
        Ok(Self { place: Place::new(state_dir)?, open: HashMap::new(), gathering: BTreeMap::new(), checks: JoinSet::new() })
    }

    /// Opens what an earlier run left. Before anything else.
    pub fn restore(&mut self, manifests: impl IntoIterator<Item = Arc<Manifest>>) -> Vec<(Arc<Manifest>, Result<Zone, String>)> {
        let open = |manifest: Arc<Manifest>| {
            let opened = self.place.open(&manifest.digest).map_err(|error| error.to_string());
            let opened = opened.and_then(|bytes| manifest.open(bytes).map_err(|error| error.to_string()));
            if let Ok(zone) = &opened {
                self.open.insert(manifest.digest, HeldZone { manifest: manifest.clone(), zone: Some(zone.clone()) });
            }
            (manifest, opened)
        };
        manifests.into_iter().map(open).collect()
    }

    /// Removes what an earlier run left and `restore` did not ask for. Once that run has ended, and before anything is gathered.
    pub fn tidy(&self) {
        told(self.place.sweep(|digest| self.open.contains_key(digest)));
    }

    /// The zone of a manifest; `None`: it is being gathered.
    pub fn have(&mut self, manifest: &Arc<Manifest>) -> Result<Option<Zone>, String> {
        let digest = manifest.digest;
        if let Some(HeldZone { zone: Some(zone), .. }) = self.open.get(&digest) {
            let zone = zone.clone();
            self.give_up(&manifest.name);
            return Ok(Some(zone));
        }
        match self.gathering.get_mut(&manifest.name) {
            Some(Gathering { manifest: same, progress: Progress::Done(zone) }) if same.digest == digest => {
                let zone = Zone::clone(zone);
                self.gathering.remove(&manifest.name);
                self.open.insert(digest, HeldZone { manifest: manifest.clone(), zone: Some(zone.clone()) });
                return Ok(Some(zone));
            }
            Some(same) if same.manifest.digest == digest => return Ok(None),
            _ => self.give_up(&manifest.name),
        }
        // Two zones with one content: whoever came first brings it.
        if self.gathering.values().any(|other| other.manifest.digest == digest) {
            return Ok(None);
        }
        let kept = self.open.values().map(|held| held.manifest.size).chain(self.gathering.values().map(|other| other.manifest.size));
        if kept.sum::<u64>() + manifest.size > MAX_BYTES {
            return Err(format!("is one zone too many: those of a sidecar may come to {} MiB", MAX_BYTES >> 20));
        }
        let awaited = Awaited::begin(manifest, self.open.values(), &self.place).map_err(|error| format!("cannot be kept: {error}"))?;
        self.gathering.insert(manifest.name.clone(), Gathering { manifest: manifest.clone(), progress: Progress::Awaits(awaited) });
        self.check_if_whole(&manifest.name.clone());
        Ok(None)
    }

    /// The chunks to ask for. One that is told absent goes on being asked for: until the control plane says otherwise of the zone, it may
    /// come yet.
    pub fn missing(&self) -> BTreeSet<String> {
        self.awaited().flat_map(|(_, awaited)| awaited.missing()).map(Digest::to_string).collect()
    }

    /// Takes a chunk in. Its data is what its digest says.
    pub fn take(&mut self, digest: &Digest, data: &[u8]) -> Vec<Failure> {
        let concerned: Vec<Arc<str>> = self.awaiting(digest);
        let mut failures = Vec::new();
        for name in concerned {
            let Some(Gathering { progress: Progress::Awaits(awaited), .. }) = self.gathering.get_mut(&name) else { continue };
            match awaited.take(digest, data) {
                Ok(()) => self.check_if_whole(&name),
                Err(error) => {
                    self.give_up(&name);
                    failures.push((name, format!("cannot be kept: {error}")));
                }
            }
        }
        failures
    }

    /// The next zone that is whole, for `have`, or that came to nothing. Nothing is lost when the future is dropped before.
    pub async fn checked(&mut self) -> Checked {
        loop {
            match self.checks.join_next().await {
                Some(Ok(checked)) => return checked,
                // Ours do not panic; whoever waits for it goes on waiting for the control plane's next word.
                Some(Err(error)) => notice(format_args!("policy zones: {error}")),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes the outcome of a check in.
    pub fn settle(&mut self, checked: Checked) -> Option<Failure> {
        let Checked { name, digest, outcome } = checked;
        if let Some(gathering) = self.gathering.get_mut(&name).filter(|gathering| gathering.manifest.digest == digest) {
            match outcome {
                Ok(zone) => gathering.progress = Progress::Done(Box::new(zone)),
                Err(error) => {
                    self.gathering.remove(&name);
                    return Some((name, error));
                }
            }
        } else if !self.is_kept(&digest) {
            // Superseded while it was looked at.
            told(self.place.remove(&digest));
        }
        None
    }

    /// Gives up what is gathered for other zones than these.
    pub fn gather_only(&mut self, names: &BTreeSet<String>) {
        let others: Vec<Arc<str>> = self.gathering.keys().filter(|name| !names.contains(&***name)).cloned().collect();
        others.iter().for_each(|name| self.give_up(name));
    }

    /// Removes the zones that nothing refers to any more, neither what is in force nor the last known good.
    pub fn sweep(&mut self, in_use: &HashSet<Digest>) {
        let place = &self.place;
        self.open.retain(|digest, _| {
            let keep = in_use.contains(digest);
            if !keep {
                told(place.remove(digest));
            }
            keep
        });
    }

    fn awaited(&self) -> impl Iterator<Item = (&Arc<str>, &Awaited)> {
        self.gathering.iter().filter_map(|(name, gathering)| match &gathering.progress {
            Progress::Awaits(awaited) => Some((name, awaited)),
            Progress::Checked | Progress::Done(_) => None,
        })
    }

    fn awaiting(&self, digest: &Digest) -> Vec<Arc<str>> {
        self.awaited().filter(|(_, awaited)| awaited.awaits(digest)).map(|(name, _)| name.clone()).collect()
    }

    /// Hashing and the disk are no work for the control thread.
    fn check_if_whole(&mut self, name: &Arc<str>) {
        let Some(gathering) = self.gathering.get_mut(name) else { return };
        if !matches!(&gathering.progress, Progress::Awaits(awaited) if awaited.is_whole()) {
            return;
        }
        let Progress::Awaits(awaited) = std::mem::replace(&mut gathering.progress, Progress::Checked) else { return };
        let (name, manifest, place) = (name.clone(), gathering.manifest.clone(), self.place.clone());
        self.checks.spawn_blocking(move || Checked { name, digest: manifest.digest, outcome: awaited.finish(&manifest, &place) });
    }

    fn give_up(&mut self, name: &str) {
        // Files of its own go with it; one that is being checked is seen to by `settle`.
        if let Some(Gathering { manifest, progress: Progress::Done(_) }) = self.gathering.remove(name)
            && !self.is_kept(&manifest.digest)
        {
            told(self.place.remove(&manifest.digest));
        }
    }

    fn is_kept(&self, digest: &Digest) -> bool {
        self.open.contains_key(digest) || self.gathering.values().any(|gathering| gathering.manifest.digest == *digest)
    }
}

/// What cannot be removed costs disk and nothing else.
fn told(removed: io::Result<()>) {
    if let Err(error) = removed {
        notice(format_args!("policy zones: {error}"));
    }
}

#[cfg(test)]
mod tests;
