//! The end of a tenant: first nobody new comes in, then all go, and the fence falls last.
//!
//! A namespace that is deleted as it stands loses its NetworkPolicies while its pods still end: for seconds they run without a fence.

use std::{collections::BTreeSet, pin::pin};

use futures_util::{TryStreamExt, future::try_join_all};
use k8s_openapi::api::core::v1::{Namespace, Pod, ResourceQuota};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;

use super::{Error, apply, fence, namespace, terms::Gate};
use crate::kubernetes::names::{FENCE_LABEL, FIELD_MANAGER};

/// For the pods of a tenant that goes, whatever they say themselves.
const GRACE_SECONDS: u32 = 60;

/// Brings the tenant's namespaces nearer their end. Fails with [`Error::Leaving`] until all are gone.
pub(super) async fn retire(client: &Client, tenant: &DynamicObject, uid: &str) -> Result<(), Error> {
    let name = tenant.name_any();
    let namespaces = namespace::of_tenant(client, &name, uid).await?;
    let leave = |namespace: &Namespace| {
        let namespace = namespace.clone();
        async move {
            if namespace::is_leaving(&namespace) {
                return Ok(());
            }
            close(client, &namespace).await?;
            empty(client, &namespace.name_any()).await?;
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

fn ended() -> DeleteParams {
    DeleteParams::default().grace_period(GRACE_SECONDS)
}

/// Deletes all pods, and returns when the last has ended.
async fn empty(client: &Client, namespace: &str) -> Result<(), Error> {
    let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), namespace);
    api.delete_collection(&ended(), &ListParams::default()).await?;
    let mut there = BTreeSet::new();
    let mut is_listed = false;
    let mut events = pin!(watcher(api.clone(), watcher::Config::default()));
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Init => {
                there.clear();
                is_listed = false;
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                // Admitted by a replica of the API server that had not heard yet.
                if pod.metadata.deletion_timestamp.is_none() {
                    match api.delete(&pod.name_any(), &ended()).await {
                        Err(kube::Error::Api(status)) if status.code == 404 => {}
                        deleted => drop(deleted?),
                    }
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
