//! The end of a tenant: first nobody new comes in, then all go, and the fence falls last.
//!
//! A namespace that is deleted as it stands loses its NetworkPolicies while its pods still end: for seconds they run without a fence.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use futures_util::{TryStreamExt, future::try_join_all};
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;
use tokio::time::timeout;

use super::{Error, apply, fence, namespace, terms::Gate};
use crate::kubernetes::names::{FENCE_LABEL, FIELD_MANAGER};

/// For the pods of a tenant that goes, whatever they say themselves.
const GRACE_SECONDS: u32 = 60;

/// Brings the tenant's namespaces nearer their end. Fails with [`Error::Leaving`] until all are gone, and with [`Error::Staying`] where pods
/// are still there `within` that time.
pub(super) async fn retire(client: &Client, tenant: &DynamicObject, uid: &str, within: Duration) -> Result<(), Error> {
    let name = tenant.name_any();
    let namespaces = namespace::of_tenant(client, &name, uid).await?;
    let leave = |namespace: &Namespace| {
        let namespace = namespace.clone();
        async move {
            if namespace::is_leaving(&namespace) {
                return Ok(());
            }
            close(client, &namespace).await?;
            empty(client, &namespace.name_any(), within).await?;
            namespace::delete(client, &namespace).await.map_err(Error::from)
        }
    };
    try_join_all(namespaces.iter().map(leave)).await?;
    let workloads = apply::api_of(client, &super::kind("Workload"), None);
    if let Some(workload) = workloads.get_opt(&name).await?.filter(|workload| fence::is_default_workload(workload, uid)) {
        apply::delete(&workloads, &workload).await?;
    }
    match namespace::of_tenant(client, &name, uid).await?.is_empty() {
        true => Ok(()),
        // Whoever deletes what is in a namespace tells by its end.
        false => Err(Error::Leaving),
    }
}

/// From now on no pod is admitted: by the admission policies, and by the quota if they are not there.
pub(super) async fn close(client: &Client, namespace: &Namespace) -> Result<(), kube::Error> {
    namespace::label(client, namespace.clone(), [(FENCE_LABEL, Some(Gate::Closed.as_str().to_owned()))].into()).await?;
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), &namespace.name_any());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    match quotas.patch(fence::QUOTA, &params, &Patch::Merge(&json!({ "spec": { "hard": { "pods": "0" } } }))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        patched => patched.map(drop),
    }
}

/// Deletes all pods, and returns when the last has ended.
async fn empty(client: &Client, namespace: &str, within: Duration) -> Result<(), Error> {
    let mut there = BTreeSet::new();
    let emptied = timeout(within, wait_for_end(client, namespace, &mut there)).await;
    emptied.unwrap_or_else(|_| Err(Error::Staying(told(namespace, &there))))
}

async fn wait_for_end(client: &Client, namespace: &str, there: &mut BTreeSet<String>) -> Result<(), Error> {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), namespace);
    let mut is_listed = false;
    let mut events = pin!(watcher(api.clone(), watcher::Config::default()));
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Init => {
                there.clear();
                is_listed = false;
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                // The API server shortens a grace that has begun, and lengthens none.
                if pod.metadata.deletion_grace_period_seconds.is_none_or(|grace| grace > i64::from(GRACE_SECONDS)) {
                    end(&api, &pod).await?;
                }
                there.insert(pod.name_any());
            }
            Event::InitDone => is_listed = true,
            Event::Delete(pod) => {
                there.remove(&pod.name_any());
            }
        }
        if is_listed && there.is_empty() {
            return Ok(());
        }
    }
    Err(Error::Leaving)
}

/// This very pod, and none that took its name since.
async fn end(api: &Api<PartialObjectMeta<Pod>>, pod: &PartialObjectMeta<Pod>) -> Result<(), kube::Error> {
    let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }.grace_period(GRACE_SECONDS);
    match api.delete(&pod.name_any(), &params).await {
        // A conflict: it is another's.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        deleted => deleted.map(drop),
    }
}

/// Some of them, and how many more there are.
fn told(namespace: &str, pods: &BTreeSet<String>) -> String {
    const TOLD: usize = 10;
    let names: Vec<String> = pods.iter().take(TOLD).map(|pod| format!("{namespace}/{pod}")).collect();
    let more = match pods.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("pods {}{more}: look at their finalizers and their node", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_what_stays_is_named() {
        let pods = |count: usize| (0..count).map(|i| format!("p-{i:02}")).collect();
        assert_eq!(told("acme", &pods(2)), "pods acme/p-00, acme/p-01: look at their finalizers and their node");
        assert!(told("acme", &pods(12)).contains("acme/p-09 and 2 more: "));
    }
}
