//! What of a pod is run. A field that stands neither here nor among those that are others' is refused by its name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Of admission, of the scheduler and of controllers; and what a node of one test does not do: it pulls no images, evicts and restarts
/// nobody, and sets no variables for other Services than the API server's.
const OF_OTHERS: [&str; 17] = [
    "affinity",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "imagePullSecrets",
    "nodeName",
    "nodeSelector",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "restartPolicy",
    "schedulerName",
    "serviceAccount",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
    "resources",
    "hostname",
];
/// The same of a container. Nothing holds it to its resources, and nobody reads its last words.
const OF_OTHERS_IN_CONTAINERS: [&str; 5] =
    ["imagePullPolicy", "livenessProbe", "resources", "terminationMessagePath", "terminationMessagePolicy"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodSpec {
    pub(super) containers: Vec<Container>,
    #[serde(default)]
    pub(super) init_containers: Vec<Container>,
    #[serde(default)]
    pub(super) volumes: Vec<Volume>,
    #[serde(default)]
    pub(super) security_context: PodSecurityContext,
    pub(super) service_account_name: String,
    #[serde(rename = "dnsPolicy")]
    _dns_policy: DnsPolicy,
}

/// Whatever else there is would change resolv.conf(5).
#[derive(Debug, Deserialize)]
enum DnsPolicy {
    ClusterFirst,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodSecurityContext {
    pub(super) run_as_user: Option<u32>,
    pub(super) run_as_group: Option<u32>,
    pub(super) run_as_non_root: Option<bool>,
    pub(super) fs_group: Option<u32>,
    #[serde(default)]
    pub(super) supplemental_groups: Vec<u32>,
    #[serde(rename = "seccompProfile")]
    _seccomp_profile: Option<SeccompProfile>,
}

/// Not installed: what holds without the runtime's filter holds with it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeccompProfile {
    #[serde(rename = "type")]
    _kind: SeccompKind,
}

#[derive(Debug, Deserialize)]
enum SeccompKind {
    RuntimeDefault,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) command: Option<Vec<String>>,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<Variable>,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    /// Of init containers: a native sidecar, which runs on.
    pub(super) restart_policy: Option<RestartPolicy>,
    pub(super) startup_probe: Option<Probe>,
    pub(super) readiness_probe: Option<Probe>,
    #[serde(default)]
    pub(super) security_context: SecurityContext,
    #[serde(default)]
    pub(super) volume_mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize, PartialEq)]
pub(super) enum RestartPolicy {
    Always,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) value_from: Option<ValueFrom>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ValueFrom {
    pub(super) field_ref: FieldRef,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FieldRef {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    pub(super) field_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: Option<String>,
    pub(super) container_port: u16,
    #[serde(rename = "protocol")]
    _protocol: Option<String>,
}

/// Asked until it succeeds; whether in time is for the test's deadline to say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Probe {
    pub(super) exec: Option<ExecAction>,
    pub(super) tcp_socket: Option<TcpAction>,
    pub(super) http_get: Option<HttpAction>,
    #[serde(rename = "initialDelaySeconds")]
    _initial_delay_seconds: Option<u32>,
    #[serde(rename = "periodSeconds")]
    _period_seconds: Option<u32>,
    /// Of one `httpGet`.
    #[serde(default = "Probe::default_timeout")]
    pub(super) timeout_seconds: u32,
    #[serde(rename = "successThreshold")]
    _success_threshold: Option<u32>,
    #[serde(rename = "failureThreshold")]
    _failure_threshold: Option<u32>,
}

impl Probe {
    fn default_timeout() -> u32 {
        1
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExecAction {
    pub(super) command: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpAction {
    /// A number, or the name of one of the container's.
    pub(super) port: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpAction {
    /// HTTP or HTTPS, whose certificate nobody looks at.
    pub(super) scheme: String,
    pub(super) port: Value,
    pub(super) path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SecurityContext {
    pub(super) run_as_user: Option<u32>,
    pub(super) run_as_group: Option<u32>,
    pub(super) run_as_non_root: Option<bool>,
    pub(super) allow_privilege_escalation: Option<bool>,
    #[serde(default)]
    pub(super) read_only_root_filesystem: bool,
    #[serde(default)]
    pub(super) capabilities: Capabilities,
    #[serde(default)]
    pub(super) privileged: bool,
    #[serde(rename = "seccompProfile")]
    _seccomp_profile: Option<SeccompProfile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capabilities {
    #[serde(default)]
    pub(super) add: Vec<String>,
    #[serde(default)]
    pub(super) drop: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) name: String,
    pub(super) mount_path: String,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(rename = "recursiveReadOnly")]
    _recursive_read_only: Option<RecursiveReadOnly>,
}

#[derive(Debug, Deserialize)]
enum RecursiveReadOnly {
    Disabled,
}

/// One of these.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) empty_dir: Option<EmptyDir>,
    pub(super) projected: Option<Projected>,
    pub(super) config_map: Option<ConfigMapVolume>,
    pub(super) secret: Option<SecretVolume>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmptyDir {}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Projected {
    pub(super) default_mode: u32,
    pub(super) sources: Vec<Projection>,
}

/// One of these.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Projection {
    pub(super) service_account_token: Option<TokenProjection>,
    pub(super) config_map: Option<Projectable>,
    pub(super) secret: Option<Projectable>,
    #[serde(rename = "downwardAPI")]
    pub(super) downward_api: Option<DownwardApi>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenProjection {
    /// Default: the API server's own.
    pub(super) audience: Option<String>,
    pub(super) expiration_seconds: u64,
    pub(super) path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Projectable {
    pub(super) name: String,
    #[serde(default)]
    pub(super) items: Vec<Item>,
}

/// Without any, every key is a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DownwardApi {
    pub(super) items: Vec<DownwardItem>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DownwardItem {
    pub(super) path: String,
    pub(super) field_ref: FieldRef,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConfigMapVolume {
    pub(super) name: String,
    pub(super) default_mode: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SecretVolume {
    pub(super) secret_name: String,
    pub(super) default_mode: u32,
}

/// A Pod object as the API server has it, its defaults filled in.
pub(super) fn read(pod: &Value) -> Result<PodSpec, String> {
    let mut spec = pod["spec"].clone();
    let fields = spec.as_object_mut().ok_or("spec: is missing")?;
    fields.retain(|name, _| !OF_OTHERS.contains(&name.as_str()));
    for list in ["containers", "initContainers"] {
        for container in fields.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.retain(|name, _| !OF_OTHERS_IN_CONTAINERS.contains(&name.as_str()));
            }
        }
    }
    let spec: PodSpec = serde_json::from_value(spec).map_err(|error| format!("spec: {error}"))?;
    check(&spec)?;
    Ok(spec)
}

/// What the types do not tell.
fn check(spec: &PodSpec) -> Result<(), String> {
    for container in spec.init_containers.iter().chain(&spec.containers) {
        let wrong = |field: &str, what: &str| Err(format!("container {}: {field}: {what}", container.name));
        if container.security_context.privileged {
            return wrong("securityContext.privileged", "nobody has every right on this machine");
        }
        for probe in [&container.startup_probe, &container.readiness_probe].into_iter().flatten() {
            let kinds = [probe.exec.is_some(), probe.tcp_socket.is_some(), probe.http_get.is_some()];
            if kinds.into_iter().filter(|is_it| *is_it).count() != 1 {
                return wrong("probe", "must be of one kind: exec, httpGet, tcpSocket");
            }
        }
        for mount in &container.volume_mounts {
            if !spec.volumes.iter().any(|volume| volume.name == mount.name) {
                return wrong("volumeMounts", &format!("there is no volume {:?}", mount.name));
            }
        }
    }
    for volume in &spec.volumes {
        let kinds = [volume.empty_dir.is_some(), volume.projected.is_some(), volume.config_map.is_some(), volume.secret.is_some()];
        if kinds.into_iter().filter(|is_it| *is_it).count() != 1 {
            return Err(format!("volume {}: must be of one kind", volume.name));
        }
    }
    Ok(())
}

impl Container {
    /// By the name or number that a probe or a Service has for it.
    pub(super) fn port(&self, port: &Value) -> Option<u16> {
        match port.as_str() {
            Some(name) => Some(self.ports.iter().find(|port| port.name.as_deref() == Some(name))?.container_port),
            None => u16::try_from(port.as_u64()?).ok(),
        }
    }
}

/// Labels that a selector asks for.
pub(super) fn selects(selector: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    let wanted: BTreeMap<String, Value> = serde_json::from_value(selector.clone()).unwrap_or_default();
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[cfg(test)]
mod tests;
