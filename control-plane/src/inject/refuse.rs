//! What would defeat the sidecar. Admission policies refuse the same while we are down.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSecurityContext, PodSpec, SecurityContext, Volume, VolumeMount};

use super::{Denial, containers::VOLUMES, deny};
use crate::kubernetes::names::{
    AUTHORITY_SECRET, CAPTURE_CONTAINER, CONFIG_KEY_SECRET, PROXY_CONTAINER, PROXY_UID, TENANT_LABEL, TOKEN_AUDIENCE, TRUST_CONFIG_MAP,
    WEBHOOK_SECRET, WORKLOAD_LABEL,
};

/// What all our labels and annotations begin with.
const OWN_PREFIX: &str = "ringfence.dev/";
/// An annotation that names a container, before the fields that took their place.
const CONTAINER_ANNOTATIONS: [&str; 2] =
    ["container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/"];
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Whoever has one of them changes the rules, sends past them, or reads the sidecar's memory.
const DEFEATING_CAPABILITIES: [&str; 9] =
    ["ALL", "BPF", "NET_ADMIN", "NET_RAW", "PERFMON", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO"];
/// With one of them, everything that a node keeps for its pods is within reach, tokens too.
const NODE_DIRECTORIES: [&str; 4] = ["/proc", "/run", "/var/lib/kubelet", "/var/run"];

/// `tenant`: the namespace's.
pub(super) fn check(pod: &Pod, spec: &PodSpec, tenant: &str) -> Result<(), Denial> {
    metadata(pod, tenant)?;
    sharing(spec)?;
    if let Some(context) = &spec.security_context {
        pod_context(context)?;
    }
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        check_volume(volume).map_err(|denial| denial.within(&format!("spec.volumes[{i}]")))?;
    }
    let lists = [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())];
    for (list, containers) in lists {
        for (i, container) in containers.into_iter().flatten().enumerate() {
            let is_ours = list == "initContainers" && is_own(&container.name);
            if !is_ours {
                check_container(container).map_err(|denial| denial.within(&format!("spec.{list}[{i}]")))?;
            }
        }
    }
    // Refused at a pod's creation by the API server itself; and elsewhere by us, in a subresource.
    match spec.ephemeral_containers.as_deref() {
        None | Some([]) => Ok(()),
        Some([EphemeralContainer { .. }, ..]) => {
            deny("spec.ephemeralContainers", "must be empty: they would run beside the sidecar unjudged")
        }
    }
}

fn taken_uid() -> String {
    format!("{PROXY_UID} is the sidecar's, whose traffic the redirect rules let out: use another")
}

pub(super) fn is_own(container: &str) -> bool {
    [PROXY_CONTAINER, CAPTURE_CONTAINER].contains(&container)
}

fn metadata(pod: &Pod, tenant: &str) -> Result<(), Denial> {
    let labels = pod.metadata.labels.iter().flatten().map(|(key, value)| ("labels", key, value));
    let annotations = pod.metadata.annotations.iter().flatten().map(|(key, value)| ("annotations", key, value));
    for (list, key, value) in labels.chain(annotations) {
        let field = || format!("metadata.{list}[{key}]");
        match (list, key.as_str()) {
            ("labels", WORKLOAD_LABEL) => {}
            ("labels", TENANT_LABEL) if value == tenant => {}
            ("labels", TENANT_LABEL) => return deny(field(), "the namespace's tenant is another, and a pod cannot change it"),
            (_, key) if key.starts_with(OWN_PREFIX) => return deny(field(), "is not known: a pod cannot opt out of its sidecar"),
            ("annotations", MIRROR_ANNOTATION) => {
                return deny(field(), "a static pod runs without a sidecar: use a workload of the API server");
            }
            ("annotations", key) if CONTAINER_ANNOTATIONS.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(is_own)) => {
                return deny(field(), "is about the sidecar's own confinement");
            }
            _ => {}
        }
    }
    Ok(())
}

fn sharing(spec: &PodSpec) -> Result<(), Denial> {
    for (field, shared, why) in [
        ("spec.hostNetwork", spec.host_network, "the node's network has no redirect rules, and is not this tenant's"),
        ("spec.hostPID", spec.host_pid, "the node's processes can be seen, and the sidecar's token through them"),
        ("spec.hostIPC", spec.host_ipc, "the node's shared memory is not this tenant's"),
        ("spec.shareProcessNamespace", spec.share_process_namespace, "the sidecar's files can be reached through its process"),
    ] {
        if shared == Some(true) {
            return deny(field, format!("must be false: {why}"));
        }
    }
    if spec.host_aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        return deny(
            "spec.hostAliases",
            "must be empty: the sidecar reads the same hosts file, and an allowed name would mean what the pod says",
        );
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return deny("spec.os.name", "must be linux: the sidecar runs on nothing else");
    }
    Ok(())
}

fn pod_context(context: &PodSecurityContext) -> Result<(), Denial> {
    let supplemental = context.supplemental_groups.iter().flatten().any(|group| *group == PROXY_UID);
    for (field, taken) in [
        ("runAsUser", context.run_as_user == Some(PROXY_UID)),
        ("runAsGroup", context.run_as_group == Some(PROXY_UID)),
        ("fsGroup", context.fs_group == Some(PROXY_UID)),
        ("supplementalGroups", supplemental),
    ] {
        if taken {
            return deny(format!("spec.securityContext.{field}"), taken_uid());
        }
    }
    if context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true)) {
        return deny("spec.securityContext.windowsOptions.hostProcess", "must be false");
    }
    Ok(())
}

/// Fields are relative to the volume. What has our name is compared with ours elsewhere.
fn check_volume(volume: &Volume) -> Result<(), Denial> {
    if VOLUMES.contains(&volume.name.as_str()) {
        return Ok(());
    }
    let is_own_secret = |name: &str| [AUTHORITY_SECRET, CONFIG_KEY_SECRET, WEBHOOK_SECRET].contains(&name);
    let trust = "is mounted in the sidecar alone";
    if volume.config_map.as_ref().is_some_and(|map| map.name == TRUST_CONFIG_MAP) {
        return deny(".configMap.name", trust);
    }
    if volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()).is_some_and(is_own_secret) {
        return deny(".secret.secretName", "is the control plane's own");
    }
    if let Some(path) = volume.host_path.as_ref().map(|host| host.path.as_str())
        && NODE_DIRECTORIES.iter().any(|directory| overlaps(path, directory))
    {
        return deny(".hostPath.path", "reaches what the node keeps for its pods, the sidecar's token too");
    }
    for (i, source) in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()).enumerate() {
        let at = |field| format!(".projected.sources[{i}].{field}");
        if source.service_account_token.as_ref().is_some_and(|token| token.audience.as_deref() == Some(TOKEN_AUDIENCE)) {
            return deny(at("serviceAccountToken.audience"), "a token for Ringfence is the sidecar's alone");
        }
        if source.config_map.as_ref().is_some_and(|map| map.name == TRUST_CONFIG_MAP) {
            return deny(at("configMap.name"), trust);
        }
        if source.secret.as_ref().is_some_and(|secret| is_own_secret(&secret.name)) {
            return deny(at("secret.name"), "is the control plane's own");
        }
    }
    Ok(())
}

/// Whether one of two paths is within the other. The API server refuses `..`.
fn overlaps(path: &str, directory: &str) -> bool {
    let parts = |path: &'_ str| path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect::<Vec<_>>();
    parts(path).iter().zip(&parts(directory)).all(|(one, other)| one == other)
}

/// Fields are relative to the container.
fn check_container(container: &Container) -> Result<(), Denial> {
    if is_own(&container.name) {
        return deny(".name", "is the sidecar's: use another");
    }
    if let Some(context) = &container.security_context {
        container_context(context)?;
    }
    let is_own_volume = |name: &str| VOLUMES.contains(&name);
    for (i, VolumeMount { name, .. }) in container.volume_mounts.iter().flatten().enumerate() {
        if is_own_volume(name) {
            return deny(format!(".volumeMounts[{i}].name"), format!("{name} is the sidecar's alone"));
        }
    }
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        if is_own_volume(&device.name) {
            return deny(format!(".volumeDevices[{i}].name"), format!("{} is the sidecar's alone", device.name));
        }
    }
    Ok(())
}

fn container_context(context: &SecurityContext) -> Result<(), Denial> {
    for (field, user) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        if user == Some(PROXY_UID) {
            return deny(format!(".securityContext.{field}"), taken_uid());
        }
    }
    if context.privileged == Some(true) {
        return deny(".securityContext.privileged", "must be false: a privileged container takes the redirect rules away");
    }
    if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        return deny(".securityContext.procMount", "must be Default");
    }
    if context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true)) {
        return deny(".securityContext.windowsOptions.hostProcess", "must be false");
    }
    let added = context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    for (i, capability) in added.enumerate() {
        // Runtimes take them in any case, with the kernel's prefix or without.
        let name = capability.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        if DEFEATING_CAPABILITIES.contains(&name) {
            let why = format!("{name} gets past the sidecar: remove it");
            return deny(format!(".securityContext.capabilities.add[{i}]"), why);
        }
    }
    Ok(())
}

/// What is let in though it may get past the sidecar by what a container runtime gives unasked: for the author to read.
pub(super) fn warnings(spec: &PodSpec) -> Vec<String> {
    let pod_user = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let weak = |container: &&Container| {
        let context = container.security_context.as_ref();
        let dropped = context.and_then(|context| context.capabilities.as_ref()?.drop.as_ref());
        let drops_all = dropped.is_some_and(|dropped| dropped.iter().any(|name| name.eq_ignore_ascii_case("all")));
        let confined = context.is_some_and(|context| context.allow_privilege_escalation == Some(false));
        let user = context.and_then(|context| context.run_as_user).or(pod_user);
        let no_root = user.is_some_and(|user| user != 0) || context.is_some_and(|context| context.run_as_non_root == Some(true));
        !(is_own(&container.name) || drops_all && confined && no_root)
    };
    let names: Vec<&str> =
        spec.init_containers.iter().flatten().chain(&spec.containers).filter(weak).map(|container| container.name.as_str()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let mut names = names.join(", ");
    // The API server cuts warnings that are longer than 256 characters.
    if names.len() > 80 {
        names.truncate(names.floor_char_boundary(80));
        names.push('…');
    }
    vec![format!(
        "ringfence: {names}: may get past the sidecar; run as non-root, drop ALL capabilities, set allowPrivilegeEscalation: false"
    )]
}
