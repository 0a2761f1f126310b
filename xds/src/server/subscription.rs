//! What one stream asked for of one kind, what it was sent of it, and what it answered.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{Event, StreamError, View};
use crate::{
    generated::discovery::DeltaDiscoveryRequest,
    nack,
    resource::{Kind, Resource},
};

/// Names that one stream may subscribe to, per kind.
pub(super) const MAX_NAMES: usize = 65_536;
/// Longest name or version looked at, in bytes: a binding is an issuer's name and a claim value of at most 256 bytes.
pub(super) const MAX_NAME_BYTES: usize = 512;
/// Responses of one kind that may await their ACK; changes meanwhile coalesce, so that a client that does not read costs no memory.
pub(super) const MAX_OUTSTANDING: usize = 4;
/// A response is cut here, well below the 4 MiB that gRPC clients accept by default.
const RESPONSE_BYTES: usize = 1024 * 1024;
/// What a resource or a removal costs besides its bytes, generously: keeps the entries of one response below 4096.
const ENTRY_BYTES: usize = 256;

/// `None`: there is no such resource.
type Version = Option<Arc<str>>;

#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Whether a request of this kind was seen: only the first may be a legacy wildcard or tell initial versions.
    started: bool,
    wildcard: bool,
    /// Asked for by name.
    names: BTreeSet<String>,
    told: HashMap<String, Told>,
    /// To be looked at before the next response; `true`: to be answered even if nothing changed.
    dirty: BTreeMap<String, bool>,
    /// Whether every name is to be looked at (a wildcard began, or what is visible changed).
    dirty_all: bool,
    /// Looked at and gone: a removal is owed.
    gone: BTreeSet<String>,
    /// Awaiting ACK or NACK, by nonce.
    outstanding: BTreeMap<u64, Vec<(String, Version)>>,
}

/// What the client was told of a name.
#[derive(Debug)]
struct Told {
    sent: Version,
    /// At which `sent` was signed, where it is. What was refused for being older than what is in force may be signed anew, and be the same.
    epoch: Option<u64>,
    /// Whether `sent` was acknowledged.
    acked: bool,
    /// The version last acknowledged, which is in force at the client also while it refuses a later one.
    in_force: Version,
    /// The nonce by which it was: an answer to an earlier response that comes late does not undo it.
    accepted: u64,
}

impl Told {
    /// Whether a client that was told this is to be told of `resource`.
    fn lacks(&self, resource: &Resource) -> bool {
        self.sent.as_ref() != Some(&resource.version) || (!self.acked && self.epoch != resource.epoch())
    }
}

impl Subscription {
    /// Takes the request's ACK or NACK in, if it is one.
    pub(super) fn acknowledge(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) -> Vec<Event> {
        // A nonce of another stream, or one already answered, is no answer to anything.
        let Ok(nonce) = request.response_nonce.parse() else { return Vec::new() };
        let Some(answered) = self.outstanding.remove(&nonce) else { return Vec::new() };
        let mut rejections = match &request.error_detail {
            None => Vec::new(),
            Some(detail) => nack::read(kind, detail, &answered.iter().map(|(name, _)| name.as_str()).collect()),
        };
        let refused: BTreeSet<String> = rejections.iter().map(|rejection| rejection.name.clone()).collect();
        // What was sent anew, or given up, meanwhile: nobody waits for an answer to the old.
        let mut superseded = BTreeSet::new();
        let mut acked = Vec::new();
        for (name, version) in answered {
            let refused = refused.contains(&name);
            let Some(told) = self.told.get_mut(&name) else {
                // Given up and asked for again, and not sent again yet: what the client takes of this response it has in force until then.
                if self.names.contains(&name) && !refused {
                    let told = Told { sent: None, epoch: None, acked: false, in_force: version, accepted: nonce };
                    self.told.insert(name.clone(), told);
                }
                superseded.insert(name);
                continue;
            };
            if !refused && nonce > told.accepted {
                (told.in_force, told.accepted) = (version.clone(), nonce);
            }
            if told.sent != version {
                superseded.insert(name);
                continue;
            }
            told.acked |= !refused;
            if version.is_none() && !self.names.contains(&name) {
                self.told.remove(&name); // known through the wildcard alone: nothing to remember of it
            }
            if !refused {
                acked.push(name);
            }
        }
        rejections.retain(|rejection| !superseded.contains(&rejection.name));
        let mut events = Vec::new();
        if !acked.is_empty() {
            events.push(Event::Acked { kind, names: acked });
        }
        if !rejections.is_empty() {
            events.push(Event::Rejected(rejections));
        }
        events
    }

    /// Takes the request's change of subscription in; the names that it asks for again though they were sent.
    pub(super) fn resubscribe(&mut self, request: DeltaDiscoveryRequest) -> Result<Vec<String>, StreamError> {
        let first = !std::mem::replace(&mut self.started, true);
        let (subscribe, unsubscribe) = (request.resource_names_subscribe, request.resource_names_unsubscribe);
        if first {
            self.resume(request.initial_resource_versions)?;
            if subscribe.is_empty() && unsubscribe.is_empty() {
                self.begin_wildcard();
            }
        }
        // Unsubscribing first: a name in both lists is asked for anew.
        for name in unsubscribe {
            self.unsubscribe(name);
        }
        let sent = |name: &&String| self.names.contains(*name) && self.told.get(*name).is_some_and(|told| told.sent.is_some());
        let again: BTreeSet<String> = if first { BTreeSet::new() } else { subscribe.iter().filter(sent).cloned().collect() };
        for name in subscribe {
            if name == "*" {
                self.begin_wildcard();
                continue;
            }
            if name.len() > MAX_NAME_BYTES || (self.names.len() >= MAX_NAMES && !self.names.contains(&name)) {
                return Err(StreamError::TooMany);
            }
            // Asked for again though held: answered though nothing changed. On a stream's first request only what differs is.
            let forced = self.dirty.entry(name.clone()).or_insert(false);
            *forced |= !first;
            self.names.insert(name);
        }
        if first && !self.wildcard {
            let names = &self.names;
            self.told.retain(|name, _| names.contains(name));
        }
        Ok(again.into_iter().collect())
    }

    /// What the client holds from an earlier stream, where it acknowledged it.
    fn resume(&mut self, versions: HashMap<String, String>) -> Result<(), StreamError> {
        if versions.len() > MAX_NAMES || versions.iter().any(|(name, version)| name.len().max(version.len()) > MAX_NAME_BYTES) {
            return Err(StreamError::TooMany);
        }
        self.told.extend(versions.into_iter().map(|(name, version)| {
            let version: Version = Some(version.into());
            (name, Told { sent: version.clone(), epoch: None, acked: true, in_force: version, accepted: 0 })
        }));
        Ok(())
    }

    fn begin_wildcard(&mut self) {
        self.wildcard = true;
        self.dirty_all = true;
    }

    fn unsubscribe(&mut self, name: String) {
        if name == "*" {
            self.wildcard = false;
            let names = &self.names;
            self.told.retain(|name, _| names.contains(name));
            self.dirty.retain(|name, _| names.contains(name));
            self.gone.retain(|name| names.contains(name));
        } else if self.names.remove(&name) {
            if self.wildcard {
                // Must be answered: the client cannot know whether the wildcard still brings it.
                self.dirty.insert(name, true);
            } else {
                self.told.remove(&name);
                self.dirty.remove(&name);
                self.gone.remove(&name);
            }
        }
    }

    /// `visible`: whether the node may see a resource of this name. One that it may not see leaves no trace, not even here.
    pub(super) fn touch(&mut self, name: &str, visible: bool) -> bool {
        let concerned = self.names.contains(name) || (self.wildcard && (visible || self.told.contains_key(name)));
        if concerned {
            self.dirty.entry(name.to_owned()).or_insert(false);
        }
        concerned
    }

    /// As `touch` of each.
    pub(super) fn touch_each(&mut self, changed: &HashSet<&str>, sees: impl Fn(&str) -> bool) -> bool {
        if self.wildcard || changed.len() <= self.names.len() {
            return changed.iter().filter(|name| self.touch(name, sees(name))).count() > 0;
        }
        let mine: Vec<&String> = self.names.iter().filter(|name| changed.contains(name.as_str())).collect();
        for name in &mine {
            self.dirty.entry((*name).clone()).or_insert(false);
        }
        !mine.is_empty()
    }

    pub(super) fn touch_all(&mut self) {
        self.dirty_all = true;
    }

    fn has_room(&self) -> bool {
        self.outstanding.len() < MAX_OUTSTANDING
    }

    /// The next response's resources. Names that change while too many responses await their ACK stay dirty.
    pub(super) fn next_upserts(&mut self, kind: Kind, view: &View<'_>) -> Option<Vec<Resource>> {
        if !self.has_room() {
            return None;
        }
        if std::mem::take(&mut self.dirty_all) {
            self.dirty_everything(kind, view);
        }
        let mut upserts: Vec<Resource> = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = self.dirty.first_entry() {
            let told = self.told.get(entry.key());
            let forced = *entry.get();
            let Some(resource) = view.resource(kind, entry.key()) else {
                let name = entry.remove_entry().0;
                let owed = match told {
                    Some(Told { sent: Some(_), .. }) => true,
                    Some(Told { sent: None, .. }) => forced,
                    None => forced || self.names.contains(&name),
                };
                if owed {
                    self.gone.insert(name);
                }
                continue;
            };
            if forced || told.is_none_or(|told| told.lacks(resource)) {
                bytes += resource.bytes.len() + ENTRY_BYTES;
                if bytes > RESPONSE_BYTES && !upserts.is_empty() {
                    break;
                }
                upserts.push(resource.clone());
            }
            self.gone.remove(entry.key());
            entry.remove();
        }
        (!upserts.is_empty()).then_some(upserts)
    }

    /// The next response's removals, of what `next_upserts` found gone.
    pub(super) fn next_removals(&mut self) -> Option<Vec<String>> {
        if !self.has_room() {
            return None;
        }
        let mut removed = Vec::new();
        let mut bytes = 0;
        while bytes < RESPONSE_BYTES
            && let Some(name) = self.gone.pop_first()
        {
            bytes += name.len() + ENTRY_BYTES;
            removed.push(name);
        }
        (!removed.is_empty()).then_some(removed)
    }

    /// Remembers what a response tells until it is answered.
    pub(super) fn sent(&mut self, nonce: u64, upserts: &[Resource], removed: &[String]) {
        let upserts = upserts.iter().map(|resource| (&*resource.name, Some(resource.version.clone()), resource.epoch()));
        let removed = removed.iter().map(|name| (name.as_str(), None, None));
        let told = upserts.chain(removed).map(|(name, version, epoch)| {
            let (in_force, accepted) = self.told.remove(name).map(|told| (told.in_force, told.accepted)).unwrap_or_default();
            self.told.insert(name.to_owned(), Told { sent: version.clone(), epoch, acked: false, in_force, accepted });
            (name.to_owned(), version)
        });
        let told = told.collect();
        self.outstanding.insert(nonce, told);
    }

    /// Marks every name that this subscription covers: those asked for, and with the wildcard those visible or told.
    fn dirty_everything(&mut self, kind: Kind, view: &View<'_>) {
        let mut names: BTreeSet<&str> = self.names.iter().map(String::as_str).collect();
        if self.wildcard {
            names.extend(view.names(kind));
            names.extend(self.told.keys().map(String::as_str));
        }
        for name in names {
            self.dirty.entry(name.to_owned()).or_insert(false);
        }
    }

    /// Whether the client acknowledged what is published under a name.
    pub(super) fn is_current(&self, name: &str, published: Option<&Resource>) -> bool {
        match self.told.get(name) {
            Some(told) => told.acked && told.sent.as_ref() == published.map(|resource| &resource.version),
            // A wildcard is not told of what was never there.
            None => published.is_none() && self.wildcard && !self.names.contains(name),
        }
    }

    /// Names and versions in force at the client, as far as it has acknowledged.
    pub(super) fn in_force(&self) -> impl Iterator<Item = (&str, &str)> {
        self.told.iter().filter_map(|(name, told)| Some((name.as_str(), told.in_force.as_deref()?)))
    }
}
