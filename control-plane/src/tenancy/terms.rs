//! What a Tenant's `spec.kubernetes` comes to under the platform's: every default filled in, every ceiling kept.
//!
//! Never knows the cluster.

use std::fmt;

use ringfence_xds::policy::{NameError, name::is_dns_label};

use super::quantity::{Quantity, QuantityError};
use crate::{
    kubernetes::names::{FENCE_CLOSED, FENCE_STANDS},
    spec::{AdminsSpec, PlatformKubernetesSpec, QuotaSpec, TenantKubernetesSpec, quoted},
};

const MAX_NAMESPACES: usize = 64;
const MAX_ADMINS: usize = 256;
const MAX_ADMIN_BYTES: usize = 256;

/// Whether pods may come into a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Closed,
}

impl Gate {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Gate::Open => FENCE_STANDS,
            Gate::Closed => FENCE_CLOSED,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodSecurity {
    Restricted,
    Baseline,
}

impl PodSecurity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            PodSecurity::Restricted => "restricted",
            PodSecurity::Baseline => "baseline",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Terms {
    pub(super) namespaces: Vec<String>,
    pub(super) pod_security: PodSecurity,
    pub(super) quota: Quota,
    /// CPU and memory.
    pub(super) container_defaults: (Quantity, Quantity),
    pub(super) admins: AdminsSpec,
    pub(super) node_pool: Option<String>,
    pub(super) ingress_from: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quota {
    pub(super) cpu: Quantity,
    pub(super) memory: Quantity,
    pub(super) pods: Quantity,
    pub(super) storage: Quantity,
    pub(super) gpus: Quantity,
}

/// A field below `spec.` and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) path: String,
    pub(crate) message: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec.{}: {}", self.path, self.message)
    }
}

/// What is wrong with a Tenant's, by itself. `None`: it stands in no cluster, or takes what it is given there.
pub(crate) fn wrong_with_tenant(name: &str, spec: Option<&TenantKubernetesSpec>) -> Vec<Wrong> {
    spec.and_then(|spec| Terms::read(name, Some(spec), None).err()).unwrap_or_default()
}

/// What is wrong with the Platform's, by itself.
pub(crate) fn wrong_with_platform(spec: Option<&PlatformKubernetesSpec>) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if let Some(spec) = spec {
        Limits::read("kubernetes.quota", spec.quota.as_ref(), &mut wrong);
        Limits::read("kubernetes.maxQuota", spec.max_quota.as_ref(), &mut wrong);
    }
    wrong
}

impl Terms {
    /// Of the tenant `name`. A quota that is over its ceiling is at it: a ceiling that is lowered must bind those who are there.
    pub(super) fn read(
        name: &str,
        spec: Option<&TenantKubernetesSpec>,
        platform: Option<&PlatformKubernetesSpec>,
    ) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let absent = TenantKubernetesSpec::default();
        let spec = spec.unwrap_or(&absent);
        let namespaces = spec.namespaces.clone().unwrap_or_else(|| vec![name.to_owned()]);
        check_namespaces(&namespaces, &mut wrong);
        let pod_security = match spec.pod_security.as_deref() {
            None | Some("restricted") => PodSecurity::Restricted,
            Some("baseline") => PodSecurity::Baseline,
            Some(other) => {
                let message = format!("must be restricted or baseline, not {}", quoted(other));
                wrong.push(Wrong { path: "kubernetes.podSecurity".into(), message });
                PodSecurity::Restricted
            }
        };
        let asked = Limits::read("kubernetes.quota", spec.quota.as_ref(), &mut wrong);
        let default = Limits::read("kubernetes.quota", platform.and_then(|platform| platform.quota.as_ref()), &mut wrong);
        let ceiling = Limits::read("kubernetes.maxQuota", platform.and_then(|platform| platform.max_quota.as_ref()), &mut wrong);
        let container = spec.container_defaults.clone().unwrap_or_default();
        let cpu = amount("kubernetes.containerDefaults.cpu", container.cpu.as_deref(), &mut wrong);
        let memory = amount("kubernetes.containerDefaults.memory", container.memory.as_deref(), &mut wrong);
        let admins = spec.admins.clone().unwrap_or_default();
        check_admins(&admins, &mut wrong);
        if let Some(pool) = spec.node_pool.as_deref().filter(|pool| !is_dns_label(pool)) {
            wrong.push(Wrong { path: "kubernetes.nodePool".into(), message: format!("{NameError}, not {}", quoted(pool)) });
        }
        check_names("kubernetes.ingressFrom", &spec.ingress_from, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            namespaces,
            pod_security,
            quota: Quota::of(asked, default, ceiling),
            container_defaults: (cpu.unwrap_or(Quantity::milli(250)), memory.unwrap_or(Quantity::mebi(256))),
            admins,
            node_pool: spec.node_pool.clone(),
            ingress_from: spec.ingress_from.clone(),
        })
    }
}

/// A quota as it is written: what is absent is said elsewhere.
#[derive(Default)]
struct Limits {
    cpu: Option<Quantity>,
    memory: Option<Quantity>,
    pods: Option<Quantity>,
    storage: Option<Quantity>,
    gpus: Option<Quantity>,
}

impl Limits {
    fn read(path: &str, spec: Option<&QuotaSpec>, wrong: &mut Vec<Wrong>) -> Self {
        let Some(spec) = spec else { return Self::default() };
        let mut read = |field: &str, text: &Option<String>| amount(&format!("{path}.{field}"), text.as_deref(), wrong);
        Self {
            cpu: read("cpu", &spec.cpu),
            memory: read("memory", &spec.memory),
            storage: read("storage", &spec.storage),
            pods: spec.pods.map(Quantity::from),
            gpus: spec.gpus.map(Quantity::from),
        }
    }
}

impl Quota {
    fn of(asked: Limits, default: Limits, ceiling: Limits) -> Self {
        let within = |asked: Option<Quantity>, default: Option<Quantity>, standard, ceiling: Option<Quantity>| {
            let wanted = asked.or(default).unwrap_or(standard);
            match ceiling {
                Some(ceiling) if ceiling < wanted => ceiling,
                _ => wanted,
            }
        };
        Self {
            cpu: within(asked.cpu, default.cpu, 4.into(), ceiling.cpu),
            memory: within(asked.memory, default.memory, Quantity::mebi(8 << 10), ceiling.memory),
            pods: within(asked.pods, default.pods, 50.into(), ceiling.pods),
            storage: within(asked.storage, default.storage, Quantity::mebi(50 << 10), ceiling.storage),
            gpus: within(asked.gpus, default.gpus, 0.into(), ceiling.gpus),
        }
    }
}

fn amount(path: &str, text: Option<&str>, wrong: &mut Vec<Wrong>) -> Option<Quantity> {
    let text = text?;
    let read: Result<Quantity, QuantityError> = text.parse();
    read.map_err(|error| wrong.push(Wrong { path: path.to_owned(), message: format!("{error}, not {}", quoted(text)) })).ok()
}

fn check_namespaces(names: &[String], wrong: &mut Vec<Wrong>) {
    const PATH: &str = "kubernetes.namespaces";
    if names.len() > MAX_NAMESPACES {
        wrong.push(Wrong { path: PATH.into(), message: format!("must be at most {MAX_NAMESPACES} namespaces") });
    }
    check_names(PATH, names, wrong);
    for (i, name) in names.iter().enumerate().filter(|(_, name)| *name == "default" || name.starts_with("kube-")) {
        wrong.push(Wrong { path: format!("{PATH}[{i}]"), message: format!("{} is the cluster's own: name another", quoted(name)) });
    }
}

fn check_names(path: &str, names: &[String], wrong: &mut Vec<Wrong>) {
    for (i, name) in names.iter().enumerate() {
        let mut add = |message| wrong.push(Wrong { path: format!("{path}[{i}]"), message });
        if !is_dns_label(name) {
            add(format!("{NameError}, not {}", quoted(name)));
        } else if let Some(first) = names[..i].iter().position(|other| other == name) {
            add(format!("{} is already listed as {path}[{first}]", quoted(name)));
        }
    }
}

/// `system:masters` stands above every fence, and `system:authenticated` is everybody.
fn check_admins(admins: &AdminsSpec, wrong: &mut Vec<Wrong>) {
    for (field, names) in [("users", &admins.users), ("groups", &admins.groups)] {
        let path = format!("kubernetes.admins.{field}");
        if names.len() > MAX_ADMINS {
            wrong.push(Wrong { path: path.clone(), message: format!("must be at most {MAX_ADMINS}") });
        }
        for (i, name) in names.iter().enumerate() {
            let mut add = |message: String| wrong.push(Wrong { path: format!("{path}[{i}]"), message });
            if name.is_empty() || name.len() > MAX_ADMIN_BYTES || name.chars().any(char::is_control) {
                add(format!("must be 1 to {MAX_ADMIN_BYTES} bytes without control characters"));
            } else if name.starts_with("system:") {
                add(format!("{} is the cluster's own: name a person, or a group of persons", quoted(name)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(json: serde_json::Value) -> TenantKubernetesSpec {
        serde_json::from_value(json).unwrap()
    }

    fn quota(terms: &Terms) -> String {
        let Quota { cpu, memory, pods, storage, gpus } = &terms.quota;
        format!("{cpu} {memory} {pods} {storage} {gpus}")
    }

    #[test]
    fn what_is_absent_is_filled_in() {
        let terms = Terms::read("acme", None, None).unwrap();
        assert_eq!(terms.namespaces, ["acme"]);
        assert_eq!(terms.pod_security, PodSecurity::Restricted);
        assert_eq!(quota(&terms), "4 8192Mi 50 51200Mi 0");
        assert_eq!(terms.container_defaults, ("250m".parse().unwrap(), "256Mi".parse().unwrap()));
        assert_eq!(Terms::read("acme", Some(&tenant(serde_json::json!({"namespaces": []}))), None).unwrap().namespaces, [""; 0]);
    }

    #[test]
    fn a_quota_is_the_tenants_then_the_platforms_and_never_over_its_ceiling() {
        let platform: PlatformKubernetesSpec = serde_json::from_value(serde_json::json!({
            "quota": {"cpu": "2", "pods": 20, "gpus": 8}, "maxQuota": {"cpu": "1500m", "memory": "16Gi", "gpus": 4},
        }))
        .unwrap();
        for (asked, wanted) in [
            (serde_json::json!({}), "1500m 8192Mi 20 51200Mi 4"),
            (serde_json::json!({"cpu": "1", "gpus": 1}), "1 8192Mi 20 51200Mi 1"),
            (serde_json::json!({"cpu": "1.5", "memory": "1Ti", "pods": 500, "storage": "2Ti"}), "1.5 16Gi 500 2Ti 4"),
        ] {
            let spec = tenant(serde_json::json!({"quota": asked}));
            assert_eq!(quota(&Terms::read("acme", Some(&spec), Some(&platform)).unwrap()), wanted, "{asked}");
        }
    }

    #[test]
    fn faults_say_the_field_and_what_would_be_right() {
        for (spec, wanted) in [
            (serde_json::json!({"namespaces": ["Acme"]}), "spec.kubernetes.namespaces[0]: must be a DNS label"),
            (
                serde_json::json!({"namespaces": ["a", "b", "a"]}),
                "spec.kubernetes.namespaces[2]: \"a\" is already listed as kubernetes.namespaces[0]",
            ),
            (serde_json::json!({"namespaces": ["kube-acme"]}), "spec.kubernetes.namespaces[0]: \"kube-acme\" is the cluster's own"),
            (serde_json::json!({"namespaces": ["default"]}), "spec.kubernetes.namespaces[0]: \"default\" is the cluster's own"),
            (serde_json::json!({"podSecurity": "privileged"}), "spec.kubernetes.podSecurity: must be restricted or baseline"),
            (serde_json::json!({"quota": {"memory": "8GB"}}), "spec.kubernetes.quota.memory: must be an amount"),
            (serde_json::json!({"containerDefaults": {"cpu": "-1"}}), "spec.kubernetes.containerDefaults.cpu: must be an amount"),
            (
                serde_json::json!({"admins": {"groups": ["system:masters"]}}),
                "spec.kubernetes.admins.groups[0]: \"system:masters\" is the cluster's own",
            ),
            (serde_json::json!({"admins": {"users": [""]}}), "spec.kubernetes.admins.users[0]: must be 1 to"),
            (serde_json::json!({"nodePool": "a/b"}), "spec.kubernetes.nodePool: must be a DNS label"),
            (serde_json::json!({"ingressFrom": ["*"]}), "spec.kubernetes.ingressFrom[0]: must be a DNS label"),
        ] {
            let wrong = Terms::read("acme", Some(&tenant(spec.clone())), None).unwrap_err();
            assert_eq!(wrong.len(), 1, "{spec}: {wrong:?}");
            assert!(wrong[0].to_string().starts_with(wanted), "{spec}: {}", wrong[0]);
        }
    }
}
