//! A pod without redirect rules: its programs are told where the sidecar is. Those that do not listen go past it.

use serde_json::{Map, Value, json};

use super::{Denial, deny, refuse};
use crate::kubernetes::names::{EGRESS_PORT, EXPLICIT_DNS_PORT};

/// Without NET_BIND_SERVICE, a port below 1024 takes this; it is among the few that Pod Security lets through at every level.
const LOWEST_PORT: &str = "net.ipv4.ip_unprivileged_port_start";
/// The kubelet's.
const NDOTS: &str = "5";

/// Proxy variables for the pod's own containers, where they have none; and the sidecar for their resolver.
pub(super) fn lead(spec: &mut Map<String, Value>, namespace: &str, cluster_domain: &str) -> Result<(), Denial> {
    for list in ["containers", "initContainers"] {
        for container in items(spec, list).into_iter().flatten().filter_map(Value::as_object_mut) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if !refuse::is_own(name) {
                variables(container);
            }
        }
    }
    lowest_port(spec)?;
    resolver(spec, namespace, cluster_domain);
    Ok(())
}

fn variables(container: &mut Map<String, Value>) {
    let Some(env) = items(container, "env") else { return };
    let proxy = format!("http://127.0.0.1:{EGRESS_PORT}");
    for (name, value) in [("HTTP_PROXY", proxy.as_str()), ("HTTPS_PROXY", &proxy), ("NO_PROXY", "localhost,127.0.0.1,::1")] {
        // Programs differ in which of both they read; curl takes no HTTP_PROXY.
        for name in [name.to_owned(), name.to_ascii_lowercase()] {
            if !env.iter().any(|variable| variable["name"] == name.as_str()) {
                env.push(json!({"name": name, "value": value}));
            }
        }
    }
}

fn lowest_port(spec: &mut Map<String, Value>) -> Result<(), Denial> {
    let Some(sysctls) = object(spec, "securityContext").and_then(|context| items(context, "sysctls")) else { return Ok(()) };
    let Some(sysctl) = sysctls.iter().find(|sysctl| sysctl["name"] == LOWEST_PORT) else {
        sysctls.push(json!({"name": LOWEST_PORT, "value": EXPLICIT_DNS_PORT.to_string()}));
        return Ok(());
    };
    match sysctl["value"].as_str().and_then(|value| value.parse::<u16>().ok()) {
        Some(lowest) if lowest <= EXPLICIT_DNS_PORT => Ok(()),
        _ => deny(
            "spec.securityContext.sysctls",
            format!("{LOWEST_PORT} must be at most {EXPLICIT_DNS_PORT}, where the sidecar answers for names"),
        ),
    }
}

/// What the kubelet writes into resolv.conf(5) for `ClusterFirst`, with the sidecar for its server.
fn resolver(spec: &mut Map<String, Value>, namespace: &str, cluster_domain: &str) {
    let policy = spec.insert("dnsPolicy".into(), json!("None"));
    let is_of_cluster = policy.is_none_or(|policy| policy.is_null() || policy == "ClusterFirst" || policy == "ClusterFirstWithHostNet");
    let Some(config) = object(spec, "dnsConfig") else { return };
    config.insert("nameservers".into(), json!(["127.0.0.1"]));
    if !is_of_cluster {
        return;
    }
    if let Some(searches) = items(config, "searches") {
        let of_cluster = [format!("{namespace}.svc.{cluster_domain}"), format!("svc.{cluster_domain}"), cluster_domain.to_owned()];
        searches.splice(0..0, of_cluster.map(Value::from));
    }
    if let Some(options) = items(config, "options")
        && !options.iter().any(|option| option["name"] == "ndots")
    {
        options.push(json!({"name": "ndots", "value": NDOTS}));
    }
}

/// The list of a field, made where there is none.
fn items<'a>(object: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = object.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}

fn object<'a>(object: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    let value = object.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}
