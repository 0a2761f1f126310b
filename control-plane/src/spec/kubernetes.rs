//! What the objects say of the cluster that they stand in: fields of custom resources alone, which a directory of files refuses.

use schemars::JsonSchema;
use serde::Deserialize;

use super::vocabulary;

/// The namespaces that are made and kept for a tenant, and what may be in them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantKubernetesSpec {
    /// Made for the tenant, and its alone; default: one that is named as it. Empty: none. One that stands already is not taken over: pods
    /// may run in it that never were behind a fence.
    #[schemars(transform = vocabulary::namespaces)]
    pub namespaces: Option<Vec<String>>,
    /// The Pod Security Standard that is enforced: restricted or baseline; default: restricted.
    #[schemars(transform = vocabulary::pod_security)]
    pub pod_security: Option<String>,
    /// Of each of its namespaces; what is absent is the platform's default. Never more than the platform's `maxQuota`.
    pub quota: Option<QuotaSpec>,
    /// Of containers that ask for nothing themselves, as request and as limit; default: 250m and 256Mi.
    pub container_defaults: Option<ContainerDefaultsSpec>,
    /// Who administers the tenant's namespaces, within the ClusterRole `ringfence-tenant-admin`.
    pub admins: Option<AdminsSpec>,
    /// Nodes that are the tenant's alone: those with the label and the taint `ringfence.dev/node-pool=NAME`. Default: the nodes of all.
    #[schemars(transform = vocabulary::name)]
    pub node_pool: Option<String>,
    /// Namespaces besides its own whose pods may connect to the tenant's inbound listeners, such as an ingress controller's.
    #[serde(default)]
    #[schemars(transform = vocabulary::names)]
    pub ingress_from: Vec<String>,
}

/// Quantities as Kubernetes writes them: `500m`, `8`, `16Gi`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuotaSpec {
    /// Sum of the containers' requests, and of their limits.
    #[schemars(transform = vocabulary::quantity)]
    pub cpu: Option<String>,
    /// Sum of the containers' requests, and of their limits.
    #[schemars(transform = vocabulary::quantity)]
    pub memory: Option<String>,
    pub pods: Option<u32>,
    /// Sum of what the volume claims ask for.
    #[schemars(transform = vocabulary::quantity)]
    pub storage: Option<String>,
    /// `requests.nvidia.com/gpu`.
    pub gpus: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDefaultsSpec {
    #[schemars(transform = vocabulary::quantity)]
    pub cpu: Option<String>,
    #[schemars(transform = vocabulary::quantity)]
    pub memory: Option<String>,
}

/// As the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminsSpec {
    #[serde(default)]
    #[schemars(transform = vocabulary::admins)]
    pub users: Vec<String>,
    #[serde(default)]
    #[schemars(transform = vocabulary::admins)]
    pub groups: Vec<String>,
}

/// What holds for the namespaces of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformKubernetesSpec {
    /// Default of the tenants' `quota`; what is absent: 4 CPUs, 8Gi, 50 pods, 50Gi of storage, no GPUs.
    pub quota: Option<QuotaSpec>,
    /// The most that a tenant's namespace may have. Default: whatever the tenant's spec asks for.
    pub max_quota: Option<QuotaSpec>,
}
