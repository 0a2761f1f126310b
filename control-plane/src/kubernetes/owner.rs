//! Whose a namespace is: a Tenant's by name and by UID. One that is made anew under an old name is another, and has nothing of its forerunner.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names::{TENANT_LABEL, TENANT_UID_ANNOTATION};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) tenant: String,
    /// `None`: the namespace does not say, and is nobody's.
    uid: Option<String>,
}

impl Owner {
    /// As a namespace says it; `None`: it is no tenant's.
    pub(crate) fn of(namespace: &ObjectMeta) -> Option<Self> {
        let tenant = namespace.labels.as_ref()?.get(TENANT_LABEL)?.clone();
        let uid = namespace.annotations.as_ref().and_then(|annotations| annotations.get(TENANT_UID_ANNOTATION)).cloned();
        Some(Self { tenant, uid })
    }

    /// Whether it is `tenant`, the one in force under that name.
    pub(crate) fn is(&self, tenant: &ObjectMeta) -> bool {
        self.uid.is_some() && self.uid == tenant.uid
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_alone_owns_nothing() {
        let meta = |json| serde_json::from_value::<ObjectMeta>(json).unwrap();
        let labels = json!({TENANT_LABEL: "acme"});
        for (namespace, tenant, is_of) in [
            (json!({"labels": labels, "annotations": {TENANT_UID_ANNOTATION: "u-1"}}), json!({"uid": "u-1"}), true),
            (json!({"labels": labels, "annotations": {TENANT_UID_ANNOTATION: "u-1"}}), json!({"uid": "u-2"}), false),
            (json!({"labels": labels}), json!({"uid": "u-1"}), false),
            (json!({"labels": labels}), json!({}), false),
        ] {
            let owner = Owner::of(&meta(namespace.clone())).unwrap();
            assert_eq!((owner.tenant.as_str(), owner.is(&meta(tenant.clone()))), ("acme", is_of), "{namespace} {tenant}");
        }
        assert_eq!(Owner::of(&meta(json!({"annotations": {TENANT_UID_ANNOTATION: "u-1"}}))), None);
    }
}
