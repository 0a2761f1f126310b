//! What one replica's sidecars acknowledged, for the replica that writes status: a ConfigMap for each replica, with an entry for each object
//! that concerns a sidecar of its own. Read by nobody else.

use std::{
    collections::{BTreeMap, HashMap},
    future,
    pin::Pin,
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    fleet::Acknowledgement,
    kubernetes::{Installation, crd::status::Rejection, names::FIELD_MANAGER},
    say::say,
    spec::ObjectKey,
    store::kube::ledger::Entry,
};
use ringfence_xds::resource::Kind as ResourceKind;

/// On a replica's ConfigMap: its name.
const REPLICA_LABEL: &str = "ringfence.dev/replica";
/// Counts up while the replica lives.
const BEAT: &str = "ringfence.dev/beat";
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// Without a beat for so long the replica is gone, and its sidecars are another's.
const STALE_AFTER: Duration = Duration::from_secs(16);
/// Refusals of one object that a replica reports.
const MAX_REJECTIONS: usize = 4;
/// Of the field and of the message that a sidecar tells of one: its tenant writes those.
const MAX_CHARS: usize = 256;
/// What all refusals of a report may come to: a ConfigMap holds 1 MiB, and the numbers of some thousand objects are to have room in it.
const MAX_REJECTION_BYTES: usize = 256 * 1024;
/// Of one object, so that none takes the room of all.
const MAX_OBJECT_REJECTION_BYTES: usize = MAX_REJECTION_BYTES / 64;

/// Of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Acknowledged {
    pub(super) uid: String,
    /// In force at the replica; 0: the object is not, as it is written.
    pub(super) generation: i64,
    /// Connected sidecars that need the object.
    pub(super) concerned: u32,
    /// Of these: those that acknowledged it in its present version.
    pub(super) enforcing: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rejections: Vec<Rejection>,
}

#[cfg(test)]
impl Acknowledged {
    pub(super) fn of(uid: &str, generation: i64, enforcing: u32, concerned: u32) -> Self {
        Self { uid: uid.to_owned(), generation, concerned, enforcing, rejections: Vec::new() }
    }
}

/// By `Kind.name`, as keys of a ConfigMap may be.
type Report = BTreeMap<String, Acknowledged>;

fn entry_name(key: &ObjectKey) -> String {
    format!("{}.{}", key.kind, key.name)
}

/// The report of this replica.
pub(super) fn of(entries: &BTreeMap<ObjectKey, Entry>, acknowledged: &HashMap<(ResourceKind, String), Acknowledgement>) -> Report {
    let mut report = Report::new();
    let mut room = MAX_REJECTION_BYTES;
    for (key, entry) in entries {
        let kind = ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == key.kind.as_str());
        let found = kind.and_then(|kind| acknowledged.get(&(kind, key.name.to_string())));
        let (Some(found), Some(verdict)) = (found, &entry.verdict) else { continue };
        let generation = if verdict.is_in_force && verdict.uid == entry.uid { verdict.generation } else { 0 };
        let rejection = |(workload, path, message): &(String, String, String)| Rejection {
            workload: workload.clone(),
            path: if path.is_empty() { String::new() } else { cut(&format!("spec.{path}")) },
            message: cut(message),
        };
        let mut rejections: Vec<Rejection> = found.rejections.iter().take(MAX_REJECTIONS).map(rejection).collect();
        // What has no room is told in the log alone.
        let mut own_room = room.min(MAX_OBJECT_REJECTION_BYTES);
        rejections.retain(|Rejection { workload, path, message }| {
            let bytes = workload.len() + path.len() + message.len();
            let fits = bytes <= own_room;
            if fits {
                (room, own_room) = (room - bytes, own_room - bytes);
            }
            fits
        });
        let Acknowledgement { concerned, enforcing, .. } = *found;
        report.insert(entry_name(key), Acknowledged { uid: entry.uid.clone(), generation, concerned, enforcing, rejections });
    }
    report
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_CHARS).collect()
}

/// Writes the report of this replica.
pub(super) struct Reporter {
    api: Api<ConfigMap>,
    replica: String,
    written: Option<Report>,
    beat: u64,
    next_beat: Instant,
    told: bool,
}

impl Reporter {
    pub(super) fn new(installation: &Installation) -> Self {
        let api = Api::namespaced(installation.client.clone(), &installation.namespace);
        Self { api, replica: installation.replica.clone(), written: None, beat: 0, next_beat: Instant::now(), told: false }
    }

    /// Returns when the next beat is due.
    pub(super) async fn due(&self) {
        tokio::time::sleep_until(self.next_beat).await;
    }

    pub(super) async fn write(&mut self, report: &Report) {
        if self.written.as_ref() == Some(report) && Instant::now() < self.next_beat {
            return;
        }
        self.beat += 1;
        self.next_beat = Instant::now() + BEAT_EVERY;
        let name = config_map_name(&self.replica);
        let data: BTreeMap<&String, String> =
            report.iter().filter_map(|(name, acknowledged)| Some((name, serde_json::to_string(acknowledged).ok()?))).collect();
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name, "labels": { REPLICA_LABEL: self.replica }, "annotations": { BEAT: self.beat.to_string() } },
            "data": data,
        });
        let written = self.api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&map)).await;
        match &written {
            Err(error) if !self.told => {
                say(format_args!("ringfence: what sidecars acknowledged cannot be written into ConfigMap/{name}: {error}"));
            }
            _ => {}
        }
        self.told = written.is_err();
        self.written = written.is_ok().then(|| report.clone());
    }
}

/// Removes the report of a replica that ends: its sidecars are another's.
pub(in crate::kubernetes) async fn withdraw(installation: &Installation) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(installation.client.clone(), &installation.namespace);
    match api.delete(&config_map_name(&installation.replica), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    }
}

fn config_map_name(replica: &str) -> String {
    format!("ringfence-replica-{replica}")
}

/// The reports of the other replicas.
pub(super) struct Reports {
    api: Api<ConfigMap>,
    own: String,
    told: Pin<Box<dyn Stream<Item = Result<Event<ConfigMap>, watcher::Error>> + Send>>,
    replicas: HashMap<String, Replica>,
}

struct Replica {
    beat: Option<String>,
    /// When that was another the last time.
    since: Instant,
    report: Report,
}

impl Reports {
    pub(super) fn new(installation: &Installation) -> Self {
        let api: Api<ConfigMap> = Api::namespaced(installation.client.clone(), &installation.namespace);
        let told = watcher(api.clone(), watcher::Config::default().labels(REPLICA_LABEL)).default_backoff();
        Self { api, own: config_map_name(&installation.replica), told: Box::pin(told), replicas: HashMap::new() }
    }

    /// Returns when another replica has reported something new, or has gone.
    pub(super) async fn changed(&mut self) {
        loop {
            let next_stale = self.replicas.values().map(|replica| replica.since + STALE_AFTER).min();
            let stale = async {
                match next_stale {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => future::pending().await,
                }
            };
            let told = tokio::select! {
                told = self.told.next() => told,
                () = stale => return,
            };
            let is_new = match told {
                Some(Ok(Event::Apply(map) | Event::InitApply(map))) => self.put(map),
                Some(Ok(Event::Delete(map))) => map.metadata.name.is_some_and(|name| self.replicas.remove(&name).is_some()),
                // Those that a list does not bring any more go stale.
                Some(Ok(Event::Init | Event::InitDone) | Err(_)) => false,
                None => future::pending().await,
            };
            if is_new {
                return;
            }
        }
    }

    fn put(&mut self, map: ConfigMap) -> bool {
        let Some(name) = map.metadata.name.filter(|name| *name != self.own) else { return false };
        let beat = map.metadata.annotations.and_then(|mut annotations| annotations.remove(BEAT));
        let read = |(name, text): (String, String)| Some((name, serde_json::from_str(&text).ok()?));
        let report: Report = map.data.unwrap_or_default().into_iter().filter_map(read).collect();
        let old = self.replicas.get(&name);
        let is_new = old.is_none_or(|old| old.report != report);
        let since = old.filter(|old| old.beat == beat).map_or_else(Instant::now, |old| old.since);
        self.replicas.insert(name, Replica { beat, since, report });
        is_new
    }

    /// Removes what replicas that are gone have left.
    pub(super) async fn clear_stale(&mut self) {
        let stale = self.replicas.iter().filter(|(_, replica)| replica.since.elapsed() >= STALE_AFTER).map(|(name, _)| name.clone());
        for name in stale.collect::<Vec<_>>() {
            // Gone already, or tried again by the leader after us: of those that are stale none counts.
            let _ = self.api.delete(&name, &DeleteParams::default()).await;
            self.replicas.remove(&name);
        }
    }

    /// With the report of this replica.
    pub(super) fn all<'a>(&'a self, own: &'a Report) -> All<'a> {
        let live = self.replicas.values().filter(|replica| replica.since.elapsed() < STALE_AFTER);
        All(live.map(|replica| &replica.report).chain([own]).collect())
    }
}

pub(super) struct All<'a>(Vec<&'a Report>);

impl All<'_> {
    pub(super) fn of(&self, key: &ObjectKey, uid: &str) -> Vec<Acknowledged> {
        let name = entry_name(key);
        self.0.iter().filter_map(|report| report.get(&name)).filter(|found| found.uid == uid).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{spec::Kind, store::kube::ledger::Verdict};

    const OBJECTS: usize = 2000;

    /// Of so many Tenants, of which each was refused in the same words.
    fn refused(rejections: &[(String, String, String)]) -> Report {
        let (mut entries, mut acknowledged) = (BTreeMap::new(), HashMap::new());
        for i in 0..OBJECTS {
            let name = format!("tenant-{i:04}");
            let (uid, generation) = (name.clone(), 1);
            let verdict =
                Verdict { uid: uid.clone(), generation, is_in_force: true, is_fed: false, faults: Vec::new(), last_accepted: None };
            let entry = Entry { uid, generation, status: Default::default(), verdict: Some(verdict), unfed: None };
            entries.insert(ObjectKey { kind: Kind::Tenant, name: name.as_str().into() }, entry);
            let acknowledgement = Acknowledgement { concerned: 3, enforcing: 2, rejections: rejections.to_vec() };
            acknowledged.insert((ResourceKind::Tenant, name), acknowledgement);
        }
        of(&entries, &acknowledged)
    }

    #[test]
    fn what_sidecars_say_leaves_room_for_what_they_enforce() {
        let said = ("w".repeat(63), "x".repeat(100), "é".repeat(1000));
        let report = refused(&vec![said; 2]);
        assert_eq!(report.len(), OBJECTS);
        assert!(report.values().all(|object| (object.concerned, object.enforcing) == (3, 2)));
        let bytes: usize = report.iter().map(|(name, object)| name.len() + serde_json::to_string(object).unwrap().len()).sum();
        assert!(bytes < 900_000, "{bytes}");
        let told = &report["Tenant.tenant-0000"].rejections;
        assert!(told.len() == 2 && told[0].message.chars().count() == MAX_CHARS);
        assert!(report["Tenant.tenant-1999"].rejections.is_empty());
    }

    #[test]
    fn no_object_takes_the_room_of_others() {
        let long = ("w".repeat(63), "\u{10348}".repeat(100_000), "\u{10348}".repeat(100_000));
        let report = refused(&vec![long; MAX_REJECTIONS]);
        let told: Vec<&Vec<Rejection>> = report.values().map(|object| &object.rejections).filter(|told| !told.is_empty()).collect();
        assert!(told.len() >= 64, "{}", told.len());
        assert!(told.iter().all(|told| told.len() == 1 && told[0].path.chars().count() == MAX_CHARS), "{}", told[0].len());
    }
}
