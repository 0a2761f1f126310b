//! What is known of each custom resource for its status: what the watch brings of it, and what became of it here.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::Value as Json;
use tokio::sync::watch;

use crate::{
    kubernetes::crd::status::{LastAccepted, Place, Status},
    spec::ObjectKey,
};

/// Shared by the watch, which writes into it, and by whoever writes status.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<BTreeMap<ObjectKey, Entry>>,
    changed: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub uid: String,
    pub generation: i64,
    /// As it stands at the API server.
    pub status: Status,
    /// Absent: not looked at yet.
    pub verdict: Option<Verdict>,
    /// Why what is to be fetched for it cannot be had.
    pub unfed: Option<Place>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Of the object that this is about.
    pub uid: String,
    pub generation: i64,
    pub is_in_force: bool,
    /// Whether there is something to be fetched for it.
    pub is_fed: bool,
    pub faults: Vec<Place>,
    /// What is in force in its stead.
    pub last_accepted: Option<LastAccepted>,
}

impl Ledger {
    pub(super) fn observe(&self, key: &ObjectKey, uid: &str, generation: i64, status: Option<&Json>) {
        // What is not to be read was not written by us, and is written anew.
        let status: Status = status.and_then(|status| serde_json::from_value(status.clone()).ok()).unwrap_or_default();
        let mut entries = self.entries.lock();
        match entries.get_mut(key).filter(|entry| entry.uid == uid) {
            Some(entry) => (entry.generation, entry.status) = (generation, status),
            None => drop(entries.insert(key.clone(), Entry { uid: uid.to_owned(), generation, status, verdict: None, unfed: None })),
        }
        drop(entries);
        self.tell();
    }

    pub(super) fn forget(&self, key: &ObjectKey) {
        self.entries.lock().remove(key);
    }

    pub(super) fn judge(&self, key: &ObjectKey, verdict: Verdict) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.verdict = Some(verdict);
        }
    }

    /// Whether what an object names elsewhere can be had; if not, why.
    pub(crate) fn feed(&self, key: &ObjectKey, unfed: Option<Place>) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.unfed = unfed;
        }
        self.tell();
    }

    /// Wakes whoever writes status.
    pub(super) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn entries(&self) -> BTreeMap<ObjectKey, Entry> {
        self.entries.lock().clone()
    }
}
