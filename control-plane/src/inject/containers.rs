//! What is put into a pod, written out as the API server would write it, its defaults included: whatever it finds missing it would add, and a
//! second pass would find a difference.

use serde_json::{Value, json};

use super::{Capture, Settings};
use crate::kubernetes::names::{
    ADMIN_ADDRESS, BOOTSTRAP_VARIABLE, BUNDLE_KEY, CAPTURE_CONTAINER, CAPTURE_DIR, CAPTURE_VOLUME, CONFIG_KEYS_KEY, DNS_PORT, EGRESS_PORT,
    EMPTY_VOLUME, PROXY_CONTAINER, PROXY_UID, SERVICE_ACCOUNT_DIR, STATE_DIR, STATE_VOLUME, TOKEN_AUDIENCE, TOKEN_FILE, TOKEN_VOLUME,
    TRUST_CONFIG_MAP, TRUST_DIR, TRUST_VOLUME,
};

/// The binary, in the image's PATH.
const BINARY: &str = "ringfence-proxy";
/// Once a second, for as long as an image pull elsewhere, a new node or a control plane that comes up later may take; then the kubelet
/// starts the sidecar anew.
const STARTUP_ATTEMPTS: u32 = 300;
/// Renewed by the kubelet at four fifths of it; the API server takes no less than 600.
const TOKEN_SECONDS: u32 = 600;

/// Names of what is mounted by none but these two containers.
pub(super) const VOLUMES: [&str; 5] = [TOKEN_VOLUME, TRUST_VOLUME, STATE_VOLUME, CAPTURE_VOLUME, EMPTY_VOLUME];

/// `bounded`: whether the containers have resources of their own. They have none where the pod has some as a whole, which they share then.
pub(super) fn sidecar(settings: &Settings, workload: &str, bounded: bool) -> Value {
    let mut mounts = vec![
        mount(TOKEN_VOLUME, TOKEN_FILE.rsplit_once('/').map_or(TOKEN_FILE, |(dir, _)| dir), true),
        mount(TRUST_VOLUME, TRUST_DIR, true),
        mount(STATE_VOLUME, STATE_DIR, false),
        mount(EMPTY_VOLUME, SERVICE_ACCOUNT_DIR, true),
    ];
    if settings.capture == Capture::Redirect {
        mounts.push(mount(CAPTURE_VOLUME, CAPTURE_DIR, true));
    }
    // No liveness probe: a restart would cut what is open, and a sidecar that has died is started anew anyhow. No readiness probe: once
    // ready it is so until it drains, when the pod is none that is sent traffic any more.
    json!({
        "name": PROXY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [BINARY],
        "args": ["run", "--bootstrap-env", BOOTSTRAP_VARIABLE],
        "env": [{"name": BOOTSTRAP_VARIABLE, "value": bootstrap(settings, workload).to_string()}],
        "restartPolicy": "Always",
        "startupProbe": {
            "exec": {"command": [BINARY, "probe", "--admin", ADMIN_ADDRESS]},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": STARTUP_ATTEMPTS,
        },
        "resources": resources(settings, bounded),
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    })
}

/// Root, because a capability that is added reaches no other user's process. NET_ADMIN installs the rules. The others are the probes' that
/// verify them: they watch the devices, become other users and stand in for the sidecar.
pub(super) fn capture(settings: &Settings, bounded: bool) -> Value {
    json!({
        "name": CAPTURE_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [BINARY],
        "args": [
            "capture", "install", "--verify", "--state", CAPTURE_DIR,
            "--egress-port", EGRESS_PORT.to_string(), "--dns-port", DNS_PORT.to_string(), "--uid", PROXY_UID.to_string(),
        ],
        "resources": resources(settings, bounded),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [mount(CAPTURE_VOLUME, CAPTURE_DIR, false), mount(EMPTY_VOLUME, SERVICE_ACCOUNT_DIR, true)],
    })
}

pub(super) fn volumes(settings: &Settings) -> Vec<Value> {
    let mut volumes = vec![
        json!({"name": TOKEN_VOLUME, "projected": {
            "defaultMode": 0o644,
            "sources": [{"serviceAccountToken": {
                "audience": TOKEN_AUDIENCE,
                "expirationSeconds": TOKEN_SECONDS,
                "path": TOKEN_FILE.rsplit_once('/').map_or(TOKEN_FILE, |(_, file)| file),
            }}],
        }}),
        json!({"name": TRUST_VOLUME, "configMap": {"name": TRUST_CONFIG_MAP, "defaultMode": 0o644}}),
        json!({"name": STATE_VOLUME, "emptyDir": {}}),
        json!({"name": EMPTY_VOLUME, "emptyDir": {}}),
    ];
    if settings.capture == Capture::Redirect {
        volumes.push(json!({"name": CAPTURE_VOLUME, "emptyDir": {}}));
    }
    volumes
}

/// Nothing in it is secret.
fn bootstrap(settings: &Settings, workload: &str) -> Value {
    let mut bootstrap = json!({
        "workload": workload,
        "controlPlane": {"tls": settings.control_plane},
        "identity": {
            "trustDomain": settings.trust_domain.to_string(),
            "bundle": format!("{TRUST_DIR}/{BUNDLE_KEY}"),
            "source": {"controlPlane": {"serviceAccountToken": {"file": TOKEN_FILE}}},
        },
        "configKeys": format!("{TRUST_DIR}/{CONFIG_KEYS_KEY}"),
        "stateDir": STATE_DIR,
        "admin": ADMIN_ADDRESS,
    });
    if !settings.resolvers.is_empty() {
        bootstrap["resolvers"] = settings.resolvers.iter().map(ToString::to_string).collect();
    }
    bootstrap
}

/// With limits too: a LimitRange adds those that are missing, and a quota refuses a pod without them.
fn resources(settings: &Settings, bounded: bool) -> Value {
    let resources = &settings.resources;
    if !bounded {
        return json!({});
    }
    json!({
        "requests": {"cpu": resources.cpu_request, "memory": resources.memory_request},
        "limits": {"cpu": resources.cpu_limit, "memory": resources.memory_limit},
    })
}

fn mount(volume: &str, path: &str, read_only: bool) -> Value {
    // The API server leaves `readOnly: false` out.
    if read_only { json!({"name": volume, "mountPath": path, "readOnly": true}) } else { json!({"name": volume, "mountPath": path}) }
}
