//! What operators are told of their objects, in each object's `status`.
//!
//! 1. `report`: each replica knows its own sidecars, and writes what they acknowledged into a ConfigMap of its own;
//! 2. `conditions`: of those reports, the leader makes each object's status;
//! 3. it writes those that are another than what stands there, so many at a time.
//!
//! What a late leader writes stands until the next one sees it, in its watch, and writes what is.
//!
//! Not covered: a sidecar that connects to a replica is not counted before that replica's next report, a second later.

mod conditions;
mod report;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    api::{Api, DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use super::{Installation, names::FIELD_MANAGER};
use crate::{
    fleet::Fleet,
    kubernetes::crd::status::Status,
    say::say,
    spec::{API_VERSION, ObjectKey},
    store::kube::{Ledger, api_resource, ledger::Entry},
};
use report::{Reporter, Reports};

/// Changes are gathered for so long: a thousand sidecars that acknowledge one edit are one write.
const EVERY: Duration = Duration::from_secs(1);
/// Requests at a time, and objects of one round; more wait for the next. At most so many writes a second then, however many changed.
const AT_A_TIME: usize = 4;
const MAX_WRITES: usize = 50;

pub(super) use report::withdraw;

/// Runs until the task is ended.
pub async fn run(installation: Installation, fleet: Arc<Fleet>, ledger: Arc<Ledger>) {
    let mut reporter = Reporter::new(&installation);
    let mut reports = Reports::new(&installation);
    let (mut of_fleet, mut of_ledger) = (fleet.changes(), ledger.changes());
    let mut leader = installation.leader.clone();
    let mut told = false;
    let mut is_behind = false;
    loop {
        of_fleet.mark_unchanged();
        of_ledger.mark_unchanged();
        let entries = ledger.entries();
        let own = report::of(&entries, &fleet.acknowledged());
        reporter.write(&own).await;
        if leader.is_held() {
            let all = reports.all(&own);
            let due: Vec<(ObjectKey, String, Status)> = entries.iter().filter_map(|(key, entry)| due(key, entry, &all)).collect();
            is_behind = due.len() > MAX_WRITES;
            let writes = due.into_iter().take(MAX_WRITES).map(|(key, uid, status)| write(installation.client.clone(), key, uid, status));
            let failed = stream::iter(writes).buffer_unordered(AT_A_TIME).filter_map(|written| async { written.err() });
            let failed: Vec<kube::Error> = failed.collect().await;
            is_behind |= !failed.is_empty();
            match failed.first() {
                Some(error) if !told => say(format_args!("ringfence: status cannot be written: {error}")),
                _ => {}
            }
            told = !failed.is_empty();
            reports.clear_stale().await;
        }
        tokio::time::sleep(EVERY).await;
        let again = async {
            if !is_behind {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = of_fleet.changed() => {}
            _ = of_ledger.changed() => {}
            () = leader.changed() => {}
            () = reports.changed() => {}
            () = reporter.due() => {}
            () = again => {}
        }
    }
}

/// The status that is to be written, if it is another than what stands there.
fn due(key: &ObjectKey, entry: &Entry, reports: &report::All) -> Option<(ObjectKey, String, Status)> {
    let verdict = entry.verdict.as_ref().filter(|verdict| verdict.uid == entry.uid)?;
    let status = conditions::status(&entry.status, verdict, entry.unfed.as_ref(), &reports.of(key, &entry.uid), &now());
    (status != entry.status).then(|| (key.clone(), entry.uid.clone(), status))
}

/// RFC 3339, in whole seconds as Kubernetes has it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn write(client: Client, key: ObjectKey, uid: String, status: Status) -> Result<(), kube::Error> {
    let resource = api_resource(key.kind);
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let object = json!({
        "apiVersion": API_VERSION,
        "kind": key.kind.as_str(),
        // Of another object under this name it would not be true.
        "metadata": { "name": &*key.name, "uid": uid },
        "status": status,
    });
    match api.patch_status(&key.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await {
        Ok(_) => Ok(()),
        // Gone, or made anew: the watch tells.
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}
