//! The namespaces of a Tenant. Whose one is, says the UID on it, which is written when it is made and never after: of two Tenants that claim
//! one name, one makes it, and the other finds it made.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::{apply::is_of, claim::Claim, condition::Refusal, fence, terms::Gate};
use crate::kubernetes::names::{FENCE_LABEL, FIELD_MANAGER, TENANT_LABEL, TENANT_UID_ANNOTATION};

/// The namespace `name` as it stands, made if there was none: closed, until its fence stands.
pub(super) async fn take(client: &Client, claim: &Claim<'_>, name: &str) -> Result<Result<Namespace, Refusal>, kube::Error> {
    let api = Api::<Namespace>::all(client.clone());
    if let Some(namespace) = api.get_opt(name).await? {
        return Ok(judge(namespace, claim.uid));
    }
    let labels = fence::namespace_labels(claim, Gate::Closed);
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()),
            annotations: Some(BTreeMap::from([(TENANT_UID_ANNOTATION.to_owned(), claim.uid.to_owned())])),
            ..Default::default()
        },
        ..Default::default()
    };
    // Not by apply, which would take over what another Tenant made a moment ago.
    match api.create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: false }, &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(judge(api.get(name).await?, claim.uid)),
        created => created.map(Ok),
    }
}

fn judge(namespace: Namespace, uid: &str) -> Result<Namespace, Refusal> {
    let name = namespace.name_any();
    if !is_of(&namespace, uid) {
        let message = format!("namespace {name:?} stands already and is not this Tenant's: name another in spec.kubernetes.namespaces");
        return Err(Refusal { reason: "NamespaceTaken", message });
    }
    if is_leaving(&namespace) {
        return Err(Refusal {
            reason: "NamespaceTerminating",
            message: format!("namespace {name:?} is being deleted, and is made anew then"),
        });
    }
    Ok(namespace)
}

pub(super) fn is_leaving(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

pub(super) fn gate(namespace: &Namespace) -> Gate {
    let stands = namespace.labels().get(FENCE_LABEL).is_some_and(|gate| gate == Gate::Open.as_str());
    if stands { Gate::Open } else { Gate::Closed }
}

/// The namespace with the labels that are ours as they are to be; others are left alone.
pub(super) async fn label(
    client: &Client,
    namespace: Namespace,
    labels: BTreeMap<&'static str, Option<String>>,
) -> Result<Namespace, kube::Error> {
    let live = namespace.labels();
    let changed: BTreeMap<_, _> = labels.into_iter().filter(|(key, value)| live.get(*key) != value.as_ref()).collect();
    if changed.is_empty() {
        return Ok(namespace);
    }
    // Nobody may have written what was not looked at: whose the namespace is above all.
    let patch = json!({ "metadata": { "resourceVersion": namespace.resource_version(), "labels": changed } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    Api::<Namespace>::all(client.clone()).patch(&namespace.name_any(), &params, &Patch::Merge(&patch)).await
}

/// All that are the tenant's by label and by UID.
pub(super) async fn of_tenant(client: &Client, name: &str, uid: &str) -> Result<Vec<Namespace>, kube::Error> {
    let labelled = Api::<Namespace>::all(client.clone()).list(&ListParams::default().labels(&format!("{TENANT_LABEL}={name}"))).await?;
    Ok(labelled.items.into_iter().filter(|namespace| is_of(namespace, uid)).collect())
}

pub(super) async fn delete(client: &Client, namespace: &Namespace) -> Result<(), kube::Error> {
    let preconditions = Preconditions { uid: namespace.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match Api::<Namespace>::all(client.clone()).delete(&namespace.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    }
}
