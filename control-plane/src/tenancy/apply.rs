//! One object as it is to be, by server-side apply: our fields are ours, whoever else wrote them, and others' are left alone.

use std::collections::BTreeMap;

use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
};
use serde_json::Value;

use super::fence::Child;
use crate::kubernetes::names::{FIELD_MANAGER, MANAGED_BY, TENANT_UID_ANNOTATION};

/// Applies `child` unless it stands already, as `live` tells.
pub(super) async fn apply(client: &Client, child: &Child, live: Option<&DynamicObject>) -> Result<(), kube::Error> {
    if live.is_some_and(|live| stands(live, &child.object)) {
        return Ok(());
    }
    let api = api_of(client, &child.kind, child.object.namespace().as_deref());
    let name = child.name();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(&name, &params, &Patch::Apply(&child.object)).await {
        // Some field cannot be changed where it stands (`roleRef`, `immutable`): somebody made another thing under the name.
        Err(kube::Error::Api(status)) if status.code == 422 => {
            if let Some(other) = api.get_opt(&name).await? {
                delete(&api, &other).await?;
            }
            api.patch(&name, &params, &Patch::Apply(&child.object)).await.map(drop)
        }
        applied => applied.map(drop),
    }
}

/// What is marked as ours in a namespace, by name.
pub(super) async fn ours(client: &Client, kind: &ApiResource, namespace: &str) -> Result<BTreeMap<String, DynamicObject>, kube::Error> {
    let api = api_of(client, kind, Some(namespace));
    let ours = api.list(&ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1))).await?;
    Ok(ours.items.into_iter().map(|object| (object.name_any(), object)).collect())
}

/// The very object that was looked at, and none that took its name since.
pub(super) async fn delete(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<(), kube::Error> {
    let preconditions = Preconditions { uid: object.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&object.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    }
}

pub(super) fn api_of(client: &Client, kind: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    }
}

/// Whether the object is marked as the Tenant's of this UID.
pub(super) fn is_of(object: &impl ResourceExt, uid: &str) -> bool {
    object.annotations().get(TENANT_UID_ANNOTATION).is_some_and(|of| of == uid)
}

/// Whether `live` is as `wanted`: its marks among others, and all else the very same. More than is wanted is another thing: a selector with
/// one label more denies less.
fn stands(live: &DynamicObject, wanted: &DynamicObject) -> bool {
    let among = |some: &BTreeMap<String, String>, all: &BTreeMap<String, String>| some.iter().all(|(key, value)| all.get(key) == Some(value));
    among(wanted.labels(), live.labels())
        && among(wanted.annotations(), live.annotations())
        && live.metadata.deletion_timestamp.is_none()
        && without_status(&live.data) == without_status(&wanted.data)
}

fn without_status(data: &Value) -> BTreeMap<&String, &Value> {
    data.as_object().into_iter().flatten().filter(|(field, _)| *field != "status").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(json: Value) -> DynamicObject {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn more_than_is_wanted_is_not_what_is_wanted() {
        let wanted = object(json!({
            "metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }));
        for (live, stands_as_wanted) in [
            (json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}), true),
            (json!({"metadata": {"labels": {"a": "1"}}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}, "status": {}}), true),
            (json!({"metadata": {"labels": {"a": "2"}}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}), false),
            (json!({"metadata": {}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}), false),
            (json!({"metadata": {"labels": {"a": "1"}}, "spec": {"podSelector": {"matchLabels": {"x": "y"}}, "policyTypes": ["Ingress"]}}), false),
            (json!({"metadata": {"labels": {"a": "1"}}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}}), false),
            (json!({"metadata": {"labels": {"a": "1"}}, "immutable": true, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}), false),
        ] {
            assert_eq!(stands(&object(live.clone()), &wanted), stands_as_wanted, "{live}");
        }
    }
}
