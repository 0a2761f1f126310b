//! Pod Security Standards, level `restricted`, as far as `spec` says: what a pod violates, by container and rule.

use std::collections::BTreeSet;

use serde_json::Value;

const ADDABLE: [&str; 1] = ["NET_BIND_SERVICE"];
const VOLUMES: [&str; 8] = ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
const SYSCTLS: [&str; 11] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
];

/// `(container, rule)`; the pod's own rules stand under "".
pub(super) fn violations(pod: &Value) -> BTreeSet<(String, &'static str)> {
    let spec = &pod["spec"];
    let mut found = BTreeSet::new();
    let mut pod_rule = |holds: bool, rule| {
        if !holds {
            found.insert((String::new(), rule));
        }
    };
    for (field, rule) in [("hostNetwork", "host network"), ("hostPID", "host PID"), ("hostIPC", "host IPC")] {
        pod_rule(spec[field] != true, rule);
    }
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let is_listed = |volume: &Value| volume.as_object().unwrap().keys().all(|key| key == "name" || VOLUMES.contains(&key.as_str()));
    pod_rule(items(&spec["volumes"]).iter().all(is_listed), "volume types");
    let context = &spec["securityContext"];
    pod_rule(items(&context["sysctls"]).iter().all(|sysctl| SYSCTLS.contains(&sysctl["name"].as_str().unwrap())), "sysctls");
    pod_rule(context["runAsUser"] != 0, "run as user");
    for container in ["initContainers", "containers"].iter().flat_map(|list| items(&spec[*list])) {
        let name = container["name"].as_str().unwrap().to_owned();
        let own = &container["securityContext"];
        let either = |field: &str| if own[field].is_null() { context[field].clone() } else { own[field].clone() };
        let capabilities = |field: &str| items(&own["capabilities"][field]);
        let profile = either("seccompProfile");
        for (holds, rule) in [
            (own["privileged"] != true, "privileged"),
            (own["allowPrivilegeEscalation"] == false, "privilege escalation"),
            (either("runAsNonRoot") == true, "run as non-root"),
            (own["runAsUser"] != 0, "run as user"),
            (capabilities("drop").iter().any(|name| name == "ALL"), "drop ALL"),
            (capabilities("add").iter().all(|name| ADDABLE.contains(&name.as_str().unwrap())), "capabilities"),
            (profile["type"] == "RuntimeDefault" || profile["type"] == "Localhost", "seccomp"),
            (own["procMount"].is_null() || own["procMount"] == "Default", "proc mount"),
            (items(&container["ports"]).iter().all(|port| port["hostPort"].as_u64().unwrap_or(0) == 0), "host ports"),
        ] {
            if !holds {
                found.insert((name.clone(), rule));
            }
        }
    }
    found
}
