//! One object as it is to be, by server-side apply: our fields are ours, whoever else wrote them, and others' are left alone.

use std::collections::BTreeMap;

use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::Status,
};
use serde_json::Value;

use super::{fence::Child, quantity::Quantity};
use crate::kubernetes::names::{FIELD_MANAGER, MANAGED_BY, TENANT_UID_ANNOTATION};

/// Makes `child` stand, unless it does already, as `live` tells.
pub(super) async fn apply(client: &Client, child: &Child, live: Option<&DynamicObject>) -> Result<(), kube::Error> {
    if live.is_some_and(|live| stands(live, &child.object)) {
        return Ok(());
    }
    let api = api_of(client, &child.kind, child.object.namespace().as_deref());
    let name = child.name();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = match api.patch(&name, &params, &Patch::Apply(&child.object)).await {
        Err(kube::Error::Api(status)) if may_be_made_anew(&child.kind.kind, &status) => {
            if let Some(other) = api.get_opt(&name).await? {
                delete(&api, &other).await?;
            }
            api.patch(&name, &params, &Patch::Apply(&child.object)).await?
        }
        applied => applied?,
    };
    if stands(&applied, &child.object) {
        return Ok(());
    }
    // A field that we do not say is whoever's added it, and a rule more in a policy that says none opens it.
    let whole = DynamicObject { types: child.object.types.clone(), metadata: applied.metadata, data: child.object.data.clone() };
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: false };
    api.replace(&name, &params, &whole).await.map(drop)
}

/// Whether what stands is to go, because it cannot become what is wanted: some field of it never changes (`roleRef`, `immutable`), and somebody
/// made another thing under the name. What denies or bounds has no such field, and is not taken down for any answer of the API server's: for
/// a moment there would be none.
fn may_be_made_anew(kind: &str, status: &Status) -> bool {
    let immutable = |message: &str| message.contains("immutable") || message.contains("cannot change roleRef");
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    ["RoleBinding", "ConfigMap", "ServiceAccount"].contains(&kind)
        && status.code == 422
        && !causes.is_empty()
        && causes.iter().all(|cause| immutable(&cause.message))
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
    let among =
        |some: &BTreeMap<String, String>, all: &BTreeMap<String, String>| some.iter().all(|(key, value)| all.get(key) == Some(value));
    among(wanted.labels(), live.labels())
        && among(wanted.annotations(), live.annotations())
        && live.metadata.deletion_timestamp.is_none()
        && same(&without_status(&live.data), &without_status(&wanted.data))
}

fn without_status(data: &Value) -> Value {
    let fields = data.as_object().into_iter().flatten().filter(|(field, _)| *field != "status");
    Value::Object(fields.map(|(field, value)| (field.clone(), value.clone())).collect())
}

/// The API server writes amounts in its own way: 8192Mi as 8Gi.
fn same(live: &Value, wanted: &Value) -> bool {
    let amounts = |field: &str| matches!(field, "hard" | "default" | "defaultRequest");
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            let alike =
                |field: &str, live: &Value, wanted: &Value| if amounts(field) { same_amounts(live, wanted) } else { same(live, wanted) };
            live.len() == wanted.len()
                && wanted.iter().all(|(field, wanted)| live.get(field).is_some_and(|live| alike(field, live, wanted)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| same(live, wanted))
        }
        _ => live == wanted,
    }
}

fn same_amounts(live: &Value, wanted: &Value) -> bool {
    let read = |amounts: &Value| -> Option<BTreeMap<String, Quantity>> {
        amounts.as_object()?.iter().map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
    };
    live == wanted || read(live).is_some_and(|live| Some(live) == read(wanted))
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
            (
                json!({"metadata": {"labels": {"a": "1"}}, "spec": {"podSelector": {"matchLabels": {"x": "y"}}, "policyTypes": ["Ingress"]}}),
                false,
            ),
            (json!({"metadata": {"labels": {"a": "1"}}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}}), false),
            (
                json!({"metadata": {"labels": {"a": "1"}}, "immutable": true, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
                false,
            ),
            (json!({"metadata": {"labels": {"a": "1"}}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}), false),
        ] {
            assert_eq!(stands(&object(live.clone()), &wanted), stands_as_wanted, "{live}");
        }
    }

    #[test]
    fn what_stands_goes_only_where_it_can_never_be_what_is_wanted() {
        let role = "Invalid value: {...}: cannot change roleRef";
        let data = "Forbidden: field is immutable when `immutable` is set";
        for (kind, code, causes, goes) in [
            ("RoleBinding", 422, vec![role], true),
            ("ConfigMap", 422, vec![data, data], true),
            ("RoleBinding", 422, vec![role, "Required value"], false),
            ("RoleBinding", 422, vec!["Required value"], false),
            ("RoleBinding", 422, vec![], false),
            ("RoleBinding", 403, vec![role], false),
            ("NetworkPolicy", 422, vec![data], false),
            ("LimitRange", 422, vec![data], false),
            ("ResourceQuota", 422, vec![data], false),
        ] {
            let causes: Vec<Value> = causes.iter().map(|cause| json!({ "message": cause })).collect();
            let status: Status = serde_json::from_value(json!({ "code": code, "details": { "causes": causes } })).unwrap();
            assert_eq!(may_be_made_anew(kind, &status), goes, "{kind} {status:?}");
        }
    }

    #[test]
    fn amounts_are_the_same_however_they_are_written() {
        let quota = |hard: Value| object(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}));
        let wanted = quota(json!({"limits.cpu": "1.5", "limits.memory": "8192Mi"}));
        for (live, stands_as_wanted) in [
            (json!({"limits.cpu": "1500m", "limits.memory": "8Gi"}), true),
            (json!({"limits.cpu": "1500m", "limits.memory": "8G"}), false),
            (json!({"limits.cpu": "1500m"}), false),
            (json!({"limits.cpu": "1500m", "limits.memory": "8Gi", "pods": "1"}), false),
        ] {
            assert_eq!(stands(&quota(live.clone()), &wanted), stands_as_wanted, "{live}");
        }
        let scoped = object(json!({"metadata": {}, "spec": {"hard": wanted.data["spec"]["hard"], "scopeSelector": {}}}));
        assert!(!stands(&scoped, &wanted), "it counts less");
    }
}
