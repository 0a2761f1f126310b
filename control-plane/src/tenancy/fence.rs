//! A claim -> the objects that fence one of its namespaces, in the order in which they are to stand.
//!
//! Pure: never knows what of it stands already.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, LimitRange, LimitRangeItem, LimitRangeSpec, ResourceQuota, ResourceQuotaSpec, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::api::resource,
};
use kube::{
    Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ObjectMeta},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    apply::is_of,
    claim::Claim,
    network,
    quantity::Quantity,
    terms::{Gate, Quota},
};
use crate::{
    kubernetes::names::{
        BUNDLE_KEY, CONFIG_KEYS_KEY, DNS_PORT, EGRESS_PORT, EXPLICIT_DNS_PORT, FENCE_LABEL, MANAGED_BY, NODE_POOL, POD_SECURITY_LABEL,
        TENANT_LABEL, TENANT_UID_ANNOTATION, TRUST_CONFIG_MAP,
    },
    spec::API_VERSION,
};

/// The chart's: all that a tenant's own admins may do, wherever they are bound to it.
pub const ADMIN_ROLE: &str = "ringfence-tenant-admin";
pub(super) const QUOTA: &str = "ringfence-quota";

/// An object that is kept as it is written here, and of which kind it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Child {
    pub(super) kind: ApiResource,
    pub(super) object: DynamicObject,
}

impl Child {
    /// Marked as ours and as this tenant's.
    fn of<K: Resource<DynamicType = ()> + Serialize>(mut typed: K, claim: &Claim<'_>, namespace: &str) -> Result<Self, serde_json::Error> {
        let meta = typed.meta_mut();
        meta.namespace = Some(namespace.to_owned());
        meta.labels = Some(labels(claim.name));
        meta.annotations = Some(BTreeMap::from([(TENANT_UID_ANNOTATION.to_owned(), claim.uid.to_owned())]));
        let kind = ApiResource::erase::<K>(&());
        let mut object: DynamicObject = serde_json::from_value(serde_json::to_value(typed)?)?;
        object.types = Some(kube::api::TypeMeta { api_version: kind.api_version.clone(), kind: kind.kind.clone() });
        Ok(Self { kind, object })
    }

    pub(super) fn name(&self) -> String {
        self.object.name_any()
    }
}

/// Kinds of what [`children`] yields: what is watched, and looked through for what is no longer wanted.
pub(super) fn kinds() -> [ApiResource; 6] {
    fn erase<K: Resource<DynamicType = ()>>() -> ApiResource {
        ApiResource::erase::<K>(&())
    }
    [
        erase::<ResourceQuota>(),
        erase::<NetworkPolicy>(),
        erase::<LimitRange>(),
        erase::<ConfigMap>(),
        erase::<ServiceAccount>(),
        erase::<RoleBinding>(),
    ]
}

/// The labels of a namespace that are ours to say; `None`: it has none by that name.
pub(super) fn namespace_labels(claim: &Claim<'_>, gate: Gate) -> BTreeMap<&'static str, Option<String>> {
    let standard = claim.terms.pod_security.as_str();
    // The capture step of a pod adds NET_ADMIN, which no standard but this lets through; the admission policies then hold all other
    // containers to the standard by `POD_SECURITY_LABEL`.
    let enforced = if claim.pods_capture { "privileged" } else { standard };
    BTreeMap::from([
        (TENANT_LABEL, Some(claim.name.to_owned())),
        (FENCE_LABEL, Some(gate.as_str().to_owned())),
        (POD_SECURITY_LABEL, Some(standard.to_owned())),
        (NODE_POOL, claim.terms.node_pool.clone()),
        ("pod-security.kubernetes.io/enforce", Some(enforced.to_owned())),
        ("pod-security.kubernetes.io/enforce-version", Some("latest".to_owned())),
    ])
}

/// Counts nothing in while the gate is closed, whatever else lets a pod through.
pub(super) fn quota(claim: &Claim<'_>, namespace: &str, gate: Gate) -> Result<Child, serde_json::Error> {
    let Quota { cpu, memory, pods, storage, gpus } = &claim.terms.quota;
    let none = Quantity::from(0);
    let pods = if gate == Gate::Open { pods } else { &none };
    let hard = [
        ("requests.cpu", cpu),
        ("limits.cpu", cpu),
        ("requests.memory", memory),
        ("limits.memory", memory),
        ("pods", pods),
        ("requests.storage", storage),
        ("requests.nvidia.com/gpu", gpus),
    ];
    let hard = hard.map(|(resource, amount)| (resource.to_owned(), resource::Quantity::from(amount)));
    let spec = ResourceQuotaSpec { hard: Some(hard.into()), ..Default::default() };
    Child::of(ResourceQuota { metadata: named(QUOTA), spec: Some(spec), status: None }, claim, namespace)
}

/// What stands in a namespace besides its quota: first what denies, last who may act there. `egress`: where its rules lead; `None`: that
/// cannot be told, and what stands is left as it is.
pub(super) fn children(claim: &Claim<'_>, namespace: &str, egress: Option<NetworkPolicy>) -> Result<Vec<Child>, serde_json::Error> {
    let policies = [network::default_deny(), network::infrastructure(claim)].into_iter().chain(egress).chain(network::inbound(claim));
    let mut children = policies.map(|policy| Child::of(policy, claim, namespace)).collect::<Result<Vec<_>, _>>()?;
    children.push(Child::of(limit_range(claim), claim, namespace)?);
    children.push(Child::of(trust(claim), claim, namespace)?);
    let admin = ServiceAccount { metadata: named(ADMIN_ROLE), automount_service_account_token: Some(false), ..Default::default() };
    children.push(Child::of(admin, claim, namespace)?);
    children.push(Child::of(admins(claim, namespace), claim, namespace)?);
    Ok(children)
}

/// What containers have that ask for nothing: without it the quota would refuse them.
fn limit_range(claim: &Claim<'_>) -> LimitRange {
    let (cpu, memory) = &claim.terms.container_defaults;
    let amounts: BTreeMap<_, _> = [("cpu", cpu), ("memory", memory)].map(|(name, amount)| (name.to_owned(), amount.into())).into();
    let item =
        LimitRangeItem { type_: "Container".into(), default: Some(amounts.clone()), default_request: Some(amounts), ..Default::default() };
    LimitRange { metadata: named("ringfence-defaults"), spec: Some(LimitRangeSpec { limits: vec![item] }) }
}

fn trust(claim: &Claim<'_>) -> ConfigMap {
    let data = [(BUNDLE_KEY, &claim.trust.bundle), (CONFIG_KEYS_KEY, &claim.trust.config_keys)];
    let data = data.map(|(key, text)| (key.to_owned(), text.clone()));
    ConfigMap { metadata: named(TRUST_CONFIG_MAP), data: Some(data.into()), ..Default::default() }
}

/// The tenant's admins and their service account, within the ceiling of [`ADMIN_ROLE`].
fn admins(claim: &Claim<'_>, namespace: &str) -> RoleBinding {
    let group = "rbac.authorization.k8s.io";
    let named_subject = |kind: &str, name: &String| Subject {
        kind: kind.to_owned(),
        name: name.clone(),
        api_group: Some(group.to_owned()),
        namespace: None,
    };
    let account =
        Subject { kind: "ServiceAccount".into(), name: ADMIN_ROLE.into(), namespace: Some(namespace.to_owned()), api_group: None };
    let users = claim.terms.admins.users.iter().map(|name| named_subject("User", name));
    let groups = claim.terms.admins.groups.iter().map(|name| named_subject("Group", name));
    RoleBinding {
        metadata: named(ADMIN_ROLE),
        role_ref: RoleRef { api_group: group.to_owned(), kind: "ClusterRole".into(), name: ADMIN_ROLE.into() },
        subjects: Some(users.chain(groups).chain([account]).collect()),
    }
}

/// The Workload of pods that name none: nothing in, all that leaves through the sidecar.
pub(super) fn default_workload(claim: &Claim<'_>) -> Value {
    let (capture, dns_port) = if claim.pods_capture { ("redirect", DNS_PORT) } else { ("none", EXPLICIT_DNS_PORT) };
    json!({
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "metadata": {
            "name": claim.name,
            "labels": labels(claim.name),
            "annotations": { TENANT_UID_ANNOTATION: claim.uid },
        },
        "spec": {
            "tenant": claim.name,
            "egress": { "listen": SocketAddr::from((Ipv4Addr::LOCALHOST, EGRESS_PORT)), "capture": capture },
            // Without upstreams: the cluster's, which the sidecar's bootstrap names.
            "dns": { "listen": SocketAddr::from((Ipv4Addr::LOCALHOST, dns_port)) },
        },
    })
}

/// Whether a Workload is what [`default_workload`] made for the Tenant of this UID. Without our mark it is an operator's.
pub(super) fn is_default_workload(workload: &DynamicObject, uid: &str) -> bool {
    is_of(workload, uid) && workload.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
}

fn labels(tenant: &str) -> BTreeMap<String, String> {
    [MANAGED_BY, (TENANT_LABEL, tenant)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

#[cfg(test)]
mod tests;
