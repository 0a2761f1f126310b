//! Sidecars into pods: by the API server's webhook as pods are created, or into manifests beforehand.
//!
//! ```text
//! review (AdmissionReview in)  ┐
//! manifest (files in)          ┴> pod: refuse -> containers, volumes -> resolvers      -> patch -> review | manifest
//! ```
//!
//! What an injected pod has:
//!
//! | where | what |
//! |---|---|
//! | init container `ringfence-capture` | first of all; installs the redirect rules, verifies them by probes, and then tells the sidecar of them |
//! | init container `ringfence-proxy` | second; `restartPolicy: Always`. Its startup probe passes when policy is in force, which it cannot be where `capture: redirect` stands and the rules were not verified in this network namespace. All others wait for it, and end before it does: Jobs end, `preStop` hooks reach others |
//! | volumes | a service-account token for Ringfence, whom to believe, the sidecar's state; mounted in these containers alone |
//! | `dnsConfig`, `dnsPolicy` | no name servers of the pod's own |
//!
//! The pod's own containers are as they were. What comes in is not captured: the kubelet's probes, hostPorts and Services reach the
//! application's ports as they did.
//!
//! The capture container runs as root with NET_ADMIN, NET_RAW, NET_BIND_SERVICE, SETGID and SETUID, which Pod Security's `baseline` refuses;
//! but for that, a pod that met `restricted` still does. With [`Capture::Explicit`] there is no such container, and no capture: programs are
//! asked to use the sidecar, by proxy variables in each container and by resolv.conf(5). One that does otherwise is stopped by the network
//! (a NetworkPolicy, a node) or by nobody. The Workload's `dns` must `listen` on port 53 of loopback then.
//!
//! Whom the sidecar asks for names, its bootstrap says, unless the Workload does: resolv.conf(5) and hosts(5) are all containers' to write.

mod adopt;
mod certificates;
mod containers;
mod explicit;
pub mod manifest;
mod namespaces;
mod patch;
mod pod;
mod refuse;
mod review;
mod server;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;

pub use pod::{Injected, Place, inject};
pub use server::{Webhook, WebhookError, serve};
pub use settings::{Capture, RESOLVER_PORT, Resources, SettingError, Settings};

/// Why a pod is not let in: told to its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Its path in the pod, from the root; empty: the whole.
    pub field: String,
    /// What would be right.
    pub reason: String,
}

impl Denial {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// Of a field that was relative to `parent`.
    fn within(mut self, parent: &str) -> Self {
        self.field.insert_str(0, parent);
        self
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.field, self.reason) }
    }
}

impl std::error::Error for Denial {}

fn deny<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, Denial> {
    Err(Denial::new(field, reason))
}
