//! Updates of policy zones, which are answered when their zones are open: what is acknowledged is in force.

use std::collections::HashSet;

use ringfence_xds::{
    client::Update,
    decode::{Decoded, Fault, Rejection},
    resource::Kind,
    zone::{Digest, HeldZone},
};

use super::Apply;
use crate::{
    config::zones::{Checked, Failure},
    telemetry::notice,
};

/// An update with zones that are still being gathered.
#[derive(Debug)]
pub struct Parked(pub(super) Update);

impl Apply {
    /// Opens the zones of the last known good. One that cannot be is as if it had never been: no name is answered without it.
    pub(super) fn restore_zones(&mut self) {
        let manifests: Vec<_> = self.client.zones().map(|held| held.manifest.clone()).collect();
        for (manifest, opened) in self.zones.restore(manifests) {
            match opened {
                Ok(zone) => self.client.open_zone(&manifest.name, zone),
                Err(error) => {
                    notice(format_args!("last known good: PolicyZone/{}: {error}", manifest.name));
                    self.client.forget(Kind::PolicyZone, &manifest.name);
                }
            }
        }
    }

    /// Hands over what an update has of chunks; yields the zones that cannot be had for it.
    pub(super) fn take_chunks(&mut self, update: &Update) -> Vec<Failure> {
        let mut failures = Vec::new();
        if update.kind() == Some(Kind::ZoneChunk) {
            for upsert in &update.upserts {
                if let (Decoded::ZoneChunk(data), Ok(digest)) = (&upsert.decoded, upsert.resource.name.parse::<Digest>()) {
                    failures.extend(self.zones.take(&digest, data));
                }
            }
        }
        failures
    }

    /// Whether what is held then is worth keeping.
    pub(super) fn finish_or_park(&mut self, mut update: Update) -> bool {
        if update.kind() != Some(Kind::PolicyZone) || update.refused().is_some() {
            return self.finish(update);
        }
        for Parked(older) in &mut self.parked {
            older.supersede_by(&update);
        }
        if self.open(&mut update) {
            return self.finish(update);
        }
        self.parked.push(Parked(update));
        self.want();
        false
    }

    /// A zone was checked: the updates that waited for it alone are answered. Whether what is held then is worth keeping.
    pub(super) fn on_checked(&mut self, checked: Checked) -> bool {
        let failure = self.zones.settle(checked);
        self.unpark(failure)
    }

    /// Rejects the zones that came to nothing, and answers each update that waits for no other.
    pub(super) fn unpark(&mut self, failures: impl IntoIterator<Item = Failure>) -> bool {
        if self.parked.is_empty() {
            return false;
        }
        let mut is_good = false;
        let failures: Vec<Failure> = failures.into_iter().collect();
        for Parked(mut update) in std::mem::take(&mut self.parked) {
            for (name, message) in &failures {
                if update.upserts.iter().any(|upsert| upsert.resource.name == *name) {
                    reject(&mut update, name, message.clone());
                }
            }
            if self.open(&mut update) {
                is_good |= self.finish(update);
            } else {
                self.parked.push(Parked(update));
            }
        }
        is_good
    }

    /// Gives an update's zones their contents; `false`: some are still to be gathered.
    fn open(&mut self, update: &mut Update) -> bool {
        let mut all = true;
        let mut failures = Vec::new();
        let rejected: HashSet<String> = update.rejections.iter().map(|rejection| rejection.name.clone()).collect();
        for upsert in &mut update.upserts {
            let Decoded::PolicyZone(held) = &mut upsert.decoded else { continue };
            let HeldZone { manifest, zone } = &mut **held;
            // What is wanted no more is not gathered for the sake of an answer.
            if zone.is_some() || rejected.contains(&*manifest.name) || !self.client.wants(Kind::PolicyZone, &manifest.name) {
                continue;
            }
            match self.zones.have(manifest) {
                Ok(opened @ Some(_)) => *zone = opened,
                Ok(None) => all = false,
                Err(message) => failures.push((manifest.name.clone(), message)),
            }
        }
        for (name, message) in failures {
            reject(update, &name, message);
        }
        all
    }

    /// Of what is held, and of what is about to be.
    pub(super) fn zones_in_use(&self) -> HashSet<Digest> {
        let parked = self.parked.iter().flat_map(|Parked(update)| &update.upserts).filter_map(|upsert| match &upsert.decoded {
            Decoded::PolicyZone(held) => Some(held.manifest.digest),
            _ => None,
        });
        self.client.zones().map(|held| held.manifest.digest).chain(parked).collect()
    }
}

fn reject(update: &mut Update, name: &str, message: String) {
    let fault = Fault { path: String::new(), message };
    update.rejections.push(Rejection { kind: Kind::PolicyZone, name: name.into(), faults: vec![fault] });
}
