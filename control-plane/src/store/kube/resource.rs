//! One custom resource: JSON -> object or faults.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kube::api::DynamicObject;
use ringfence_xds::policy::rpz;
use serde_json::{Value as Json, json};

use super::ledger::Verdict;
use crate::{
    feed::transfer::{Checksum, Kept},
    kubernetes::crd::status::{LastAccepted, Place},
    spec::{API_VERSION, Disk, Fault, Object, ObjectKey, Others, Parsed, Spec, parse_resource},
    zones::Outcome,
};

/// Whole documents stand in this one, which nobody has written.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Told of one object in its status.
const MAX_PLACES: usize = 32;

#[derive(Debug)]
pub(super) struct Held {
    uid: String,
    generation: i64,
    /// As it stands there, but for the status.
    written: Json,
    parsed: Parsed,
    /// Of what was transferred for it, as it was read.
    transferred: Option<Checksum>,
    is_in_force: bool,
    /// What is in force in its stead.
    before: Option<LastAccepted>,
}

impl Held {
    /// `old`: what was held under the name until now.
    pub(super) fn read(key: &ObjectKey, object: DynamicObject, old: Option<&Held>, state_dir: &Path) -> Self {
        let metadata = object.metadata;
        let uid = metadata.uid.unwrap_or_default();
        // Of another object that had the name nothing is left.
        let before = match old.filter(|old| old.uid == uid) {
            Some(old) => old.in_force(),
            None => object.data.get("status").and_then(|status| serde_json::from_value(status["lastAccepted"].clone()).ok()),
        };
        let annotations = metadata.annotations.map(|mut annotations| {
            annotations.remove(APPLIED);
            annotations
        });
        let mut written = json!({
            "apiVersion": API_VERSION,
            "kind": key.kind.as_str(),
            "metadata": { "name": &*key.name, "labels": metadata.labels.unwrap_or_default(), "annotations": annotations.unwrap_or_default() },
        });
        // Fields that none of ours has are told as in a file.
        if let (Json::Object(written), Json::Object(data)) = (&mut written, object.data) {
            written.extend(data.into_iter().filter(|(field, _)| field != "status"));
        }
        let (parsed, transferred) = parse(key, &written, state_dir);
        let generation = metadata.generation.unwrap_or_default();
        Self { uid, generation, written, parsed, transferred, is_in_force: false, before }
    }

    pub(super) fn is(&self, uid: &str, generation: i64) -> bool {
        (self.uid.as_str(), self.generation) == (uid, generation)
    }

    pub(super) fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    /// A transfer may have brought another zone meanwhile.
    pub(super) fn refresh(&mut self, key: &ObjectKey, state_dir: &Path) {
        if self.parsed.needs.is_empty() {
            return;
        }
        if checksum(&self.parsed.needs) != self.transferred {
            (self.parsed, self.transferred) = parse(key, &self.written, state_dir);
        }
    }

    fn in_force(&self) -> Option<LastAccepted> {
        if !self.is_in_force {
            return self.before.clone();
        }
        self.written["spec"].as_object().map(|spec| LastAccepted { generation: self.generation, spec: spec.clone() })
    }

    /// As it was when it last was accepted; as it is where that is not known.
    pub(super) fn last_accepted(&self, key: &ObjectKey, state_dir: &Path) -> Vec<Arc<Object>> {
        let Some(before) = &self.before else { return self.parsed.objects.clone() };
        let mut written = self.written.clone();
        written["spec"] = Json::Object(before.spec.clone());
        parse(key, &written, state_dir).0.objects
    }

    /// `object`: what is in force under its name.
    pub(super) fn is_judged(&mut self, object: Option<&Arc<Object>>) {
        self.is_in_force = self.parsed.objects.first().zip(object).is_some_and(|(own, object)| Arc::ptr_eq(own, object));
        if self.is_in_force || object.is_none() {
            self.before = None;
        }
    }

    pub(super) fn verdict(&self, faults: &[&Fault]) -> Verdict {
        let place = |fault: &&Fault| Place { path: fault.path.clone(), message: fault.message.clone() };
        Verdict {
            uid: self.uid.clone(),
            generation: self.generation,
            is_in_force: self.is_in_force,
            is_fed: self.parsed.objects.iter().any(|object| is_fed(&object.spec)),
            faults: faults.iter().take(MAX_PLACES).map(place).collect(),
            last_accepted: self.before.clone(),
        }
    }
}

fn is_fed(spec: &Spec) -> bool {
    match spec {
        Spec::Issuer(issuer) => issuer.jwks.uri().is_some(),
        Spec::PolicyZone(zone) => zone.transfer.is_some(),
        Spec::Platform(_) | Spec::Tenant(_) | Spec::Workload(_) => false,
    }
}

fn parse(key: &ObjectKey, written: &Json, state_dir: &Path) -> (Parsed, Option<Checksum>) {
    let parsed = parse_resource(key, written, Beside { state_dir });
    let transferred = checksum(&parsed.needs);
    (parsed, transferred)
}

/// Of a custom resource's files there is one at most: that of its transfer.
fn checksum(needs: &[PathBuf]) -> Option<Checksum> {
    needs.first().and_then(|path| Kept::at(path).checksum().ok())
}

/// What there is beside a custom resource: what a transfer has left, and no files. The control plane's own disk is none of theirs.
struct Beside<'a> {
    state_dir: &'a Path,
}

impl Others for Beside<'_> {
    fn text(&mut self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "files are for directories, and a custom resource has none"))
    }

    fn transferred(&mut self, name: &str, origin: &rpz::Name) -> Option<(PathBuf, Option<Outcome>)> {
        Disk { state_dir: Some(self.state_dir) }.transferred(name, origin)
    }

    fn are_in_a_cluster(&self) -> bool {
        true
    }
}
