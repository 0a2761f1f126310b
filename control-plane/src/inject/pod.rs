//! One pod: what comes in, what goes out.

use k8s_openapi::api::core::v1::Pod;
use ringfence_xds::policy::WorkloadName;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Capture, Denial, Settings,
    adopt::{self, Found},
    containers::{self, VOLUMES},
    deny, explicit, refuse,
};
use crate::kubernetes::names::WORKLOAD_LABEL;

/// Where a pod is to run. Nothing of it is the pod's own to say.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub namespace: &'a str,
    /// The namespace's.
    pub tenant: &'a str,
}

/// A pod with its sidecar.
#[derive(Debug)]
pub struct Injected {
    pub pod: Value,
    /// For the author: what is weaker than it might be.
    pub warnings: Vec<String>,
}

/// The pod with a sidecar, every field that is not ours as it was, unknown ones too. A pod that has it already comes out as it went in.
pub fn inject(pod: &Value, place: Place<'_>, settings: &Settings) -> Result<Injected, Denial> {
    let typed = Pod::deserialize(pod).map_err(|error| Denial::new("", format!("this is no Pod: {error}")))?;
    let Some(spec) = &typed.spec else { return deny("spec", "is missing") };
    if spec.containers.is_empty() {
        return deny("spec.containers", "must name one container at least");
    }
    refuse::check(&typed, spec, place.tenant)?;
    let label = typed.metadata.labels.as_ref().and_then(|labels| labels.get(WORKLOAD_LABEL));
    let workload = label.map_or(place.tenant, String::as_str);
    workload.parse::<WorkloadName>().map_err(|error| Denial::new(format!("metadata.labels[{WORKLOAD_LABEL}]"), error.to_string()))?;
    // Counted by the pod as a whole (KEP-2837): its containers need none, and more than it has would be refused.
    let bounded = spec.resources.is_none();

    let mut pod = pod.clone();
    let Some(fields) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return deny("spec", "must be a mapping") };
    let mut own = vec![containers::sidecar(settings, workload, bounded)];
    if settings.capture == Capture::Redirect {
        own.insert(0, containers::capture(settings, bounded));
    }
    place_containers(fields, own)?;
    place_volumes(fields, containers::volumes(settings))?;
    match settings.capture {
        Capture::Redirect => resolvers(fields),
        Capture::Explicit => explicit::lead(fields, place.namespace, &settings.cluster_domain)?,
    }
    Ok(Injected { warnings: refuse::warnings(spec), pod })
}

/// Ours first, in order; the pod's own init containers, native sidecars among them, behind them as they were.
fn place_containers(spec: &mut Map<String, Value>, mut own: Vec<Value>) -> Result<(), Denial> {
    let mut others = Vec::new();
    for (i, found) in list(spec, "initContainers").into_iter().enumerate() {
        let name = found.get("name").and_then(Value::as_str).unwrap_or_default();
        if !refuse::is_own(name) {
            others.push(found);
            continue;
        }
        let field = format!("spec.initContainers[{i}]");
        let Some(wanted) = own.iter_mut().find(|wanted| wanted["name"] == name) else {
            return deny(format!("{field}.name"), format!("{name} has no place where capture is explicit: remove the container"));
        };
        match adopt::compare(&found, wanted) {
            Found::Ours => *wanted = found,
            // As we would have it, without what was added.
            Found::Embellished => {}
            Found::Foreign(difference) => {
                return deny(format!("{field}{difference}"), format!("{name} is the sidecar's name, and this is not what it has there"));
            }
        }
    }
    own.extend(others);
    spec.insert("initContainers".into(), own.into());
    Ok(())
}

/// Ours behind the pod's.
fn place_volumes(spec: &mut Map<String, Value>, own: Vec<Value>) -> Result<(), Denial> {
    let mut volumes = list(spec, "volumes");
    for (i, volume) in volumes.iter_mut().enumerate() {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        if !VOLUMES.contains(&name) {
            continue;
        }
        let wanted = own.iter().find(|wanted| wanted["name"] == name);
        match wanted.map(|wanted| (wanted, adopt::compare(volume, wanted))) {
            Some((_, Found::Ours)) => {}
            Some((wanted, Found::Embellished)) => *volume = wanted.clone(),
            Some((_, Found::Foreign(_))) | None => {
                return deny(format!("spec.volumes[{i}].name"), format!("{name} is the sidecar's: use another"));
            }
        }
    }
    for wanted in own {
        if !volumes.iter().any(|volume| volume["name"] == wanted["name"]) {
            volumes.push(wanted);
        }
    }
    spec.insert("volumes".into(), volumes.into());
    Ok(())
}

/// Whatever server a program asks, the sidecar is asked. Whom the sidecar asks must not be the pod's to choose: it would say what every
/// allowed name means. So the cluster's servers stand in resolv.conf(5), with the pod's search domains and options.
fn resolvers(spec: &mut Map<String, Value>) {
    if let Some(config) = spec.get_mut("dnsConfig").and_then(Value::as_object_mut) {
        config.remove("nameservers");
    }
    if spec.get("dnsPolicy").is_some_and(|policy| policy == "None") {
        spec.insert("dnsPolicy".into(), json!("ClusterFirst"));
    }
}

/// `null` and nothing at all are an empty list.
fn list(spec: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match spec.remove(field) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}
