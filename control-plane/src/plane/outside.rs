//! Keys and zones that are fetched elsewhere. They are published with the object that they are for: while the watch of its kind is broken,
//! that may be older than what another replica has published, and to sign it anew would bring it back. Until then they are set aside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ringfence_xds::resource::{Kind as ResourceKind, Resource};

use super::{Plane, Step};
use crate::{
    compile::Delta,
    feed::{FeedEvent, transfer::TransferEvent},
    kubernetes::crd::status::Place,
    say::say,
    spec::{Kind, ObjectKey},
};

/// The issuers whose keys are fetched, as compiled: without.
#[derive(Debug, Default)]
pub(super) struct Unfilled {
    issuers: BTreeMap<Arc<str>, Resource>,
    /// Of these: whose keys have changed since, and were not published yet.
    set_aside: BTreeSet<Arc<str>>,
}

impl Unfilled {
    /// What is published now, keys and all.
    pub(super) fn compiled(&mut self, upserts: &[Resource], is_fetched: impl Fn(&str) -> bool) {
        self.issuers.retain(|issuer, _| is_fetched(issuer));
        for resource in upserts.iter().filter(|resource| resource.kind == ResourceKind::Issuer && is_fetched(&resource.name)) {
            self.issuers.insert(resource.name.clone(), resource.clone());
            self.set_aside.remove(&resource.name);
        }
    }

    fn changed(&mut self, issuer: Arc<str>) {
        self.set_aside.insert(issuer);
    }

    /// What is to be filled and published; nothing while an issuer may be older here than elsewhere.
    fn due(&mut self, are_behind: bool) -> Vec<Resource> {
        if are_behind {
            return Vec::new();
        }
        let set_aside = std::mem::take(&mut self.set_aside);
        set_aside.iter().filter_map(|issuer| self.issuers.get(issuer).cloned()).collect()
    }
}

impl Plane {
    pub(super) fn on_feed(&mut self, event: FeedEvent) {
        match event {
            FeedEvent::Changed { issuer, set_aside } => {
                for key in set_aside {
                    say(format_args!("Issuer/{issuer}: keys[{}] is not used: {}", key.index, key.reason));
                }
                self.unfilled.changed(issuer);
                self.fill_set_aside();
            }
            FeedEvent::Failed { issuer, message } => self.on_failed(issuer_key(&issuer), "spec.jwks.uri", message),
            FeedEvent::Recovered { issuer } => self.on_recovered(&issuer_key(&issuer)),
        }
    }

    /// Publishes keys that have changed, as far as their issuers are known to be what is written.
    pub(super) fn fill_set_aside(&mut self) {
        let mut upserts = self.unfilled.due(self.catalog.is_behind(Kind::Issuer));
        if !upserts.is_empty() {
            self.feeds.fill(&mut upserts);
            self.fleet.publish(Delta { upserts, removed: Vec::new() });
            self.take_up_operators();
        }
    }

    pub(super) fn on_transfer(&mut self, event: TransferEvent) -> Step {
        match event {
            TransferEvent::Changed { zone, serial } => {
                say(format_args!("PolicyZone/{zone}: serial {serial} was transferred"));
                // Its object is made of the file that the transfer has left, as soon as it is known to be what is written.
                self.reload();
                return Step::Reloaded;
            }
            TransferEvent::Failed { zone, message } => self.on_failed(zone_key(&zone), "spec.transfer.primary", message),
            TransferEvent::Recovered { zone } => self.on_recovered(&zone_key(&zone)),
        }
        Step::Fed
    }

    /// No sidecar is told of a policy without zones that have come by now.
    pub(super) fn take_up_first_transfers(&mut self) {
        while let Ok(event) = self.transferred.try_recv() {
            self.on_transfer(event);
        }
    }

    /// Something from outside cannot be had, or not be kept.
    fn on_failed(&mut self, key: ObjectKey, path: &str, message: String) {
        let Some(object) = self.catalog.object(&key) else { return };
        if let Some(ledger) = &self.ledger {
            ledger.feed(&key, Some(Place { path: path.to_owned(), message: message.clone() }));
        }
        let fault = object.fault(path, message).to_string();
        let mut faults = self.faults.lock().clone();
        if let Some(old) = self.unfed.insert(key, fault.clone()) {
            faults.remove(&old);
        }
        faults.insert(fault);
        self.tell_faults(faults);
    }

    fn on_recovered(&mut self, key: &ObjectKey) {
        if let Some(ledger) = &self.ledger {
            ledger.feed(key, None);
        }
        let mut faults = self.faults.lock().clone();
        if let Some(fault) = self.unfed.remove(key) {
            faults.remove(&fault);
        }
        self.tell_faults(faults);
    }
}

fn issuer_key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::Issuer, name: name.into() }
}

fn zone_key(name: &str) -> ObjectKey {
    ObjectKey { kind: Kind::PolicyZone, name: name.into() }
}

#[cfg(test)]
mod tests {
    use ringfence_xds::generated::resource as proto;

    use super::*;

    #[test]
    fn keys_wait_while_their_issuer_may_be_an_old_one() {
        let issuer = |name: &str, audience: &str| {
            Resource::new(name, &proto::Issuer { audiences: vec![audience.to_owned()], ..proto::Issuer::default() })
        };
        let mut unfilled = Unfilled::default();
        let compiled = |unfilled: &mut Unfilled, issuers: &[Resource]| unfilled.compiled(issuers, |name| name != "inline");
        compiled(&mut unfilled, &[issuer("sso", "old"), issuer("idp", "old"), issuer("inline", "old")]);
        assert!(unfilled.due(false).is_empty());
        for name in ["sso", "idp", "inline", "gone"] {
            unfilled.changed(name.into());
        }
        assert!(unfilled.due(true).is_empty(), "they would be signed at a later epoch than an edit that is not known here");
        // The watch is whole again: one has been edited meanwhile, and was published as it is, keys and all.
        compiled(&mut unfilled, &[issuer("sso", "new")]);
        assert_eq!(unfilled.due(false), [issuer("idp", "old")]);
        assert!(unfilled.due(false).is_empty(), "once");
        unfilled.changed("sso".into());
        assert_eq!(unfilled.due(false), [issuer("sso", "new")]);
    }
}
