//! What a command is told of injection.

use clap::Args;
use ringfence_xds::policy::TrustDomain;

use crate::inject::{Capture, Resources, Settings};

/// The image of this version's sidecar.
const DEFAULT_IMAGE: &str = concat!("ringfence-proxy:", env!("CARGO_PKG_VERSION"));

#[derive(Debug, Args)]
pub(super) struct InjectionArgs {
    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = DEFAULT_IMAGE)]
    inject_image: String,
    /// Where sidecars find the control plane; an address where capture is explicit
    #[arg(long, value_name = "HOST:PORT", default_value = "ringfence-control-plane.ringfence-system.svc:15010")]
    inject_control_plane: String,
    /// How a pod's traffic gets to its sidecar
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Capture::Redirect)]
    inject_capture: Capture,
    /// DNS domain of the cluster
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    inject_cluster_domain: String,
    /// CPU that a sidecar asks for, e.g. 20m
    #[arg(long, value_name = "QUANTITY", default_value_t = Resources::default().cpu_request)]
    inject_cpu_request: String,
    /// CPU that a sidecar gets at most, e.g. 1
    #[arg(long, value_name = "QUANTITY", default_value_t = Resources::default().cpu_limit)]
    inject_cpu_limit: String,
    /// Memory that a sidecar asks for, e.g. 32Mi
    #[arg(long, value_name = "QUANTITY", default_value_t = Resources::default().memory_request)]
    inject_memory_request: String,
    /// Memory that a sidecar gets at most, e.g. 256Mi
    #[arg(long, value_name = "QUANTITY", default_value_t = Resources::default().memory_limit)]
    inject_memory_limit: String,
}

impl InjectionArgs {
    /// Not checked yet.
    pub(super) fn settings(&self, trust_domain: TrustDomain) -> Settings {
        Settings {
            image: self.inject_image.clone(),
            control_plane: self.inject_control_plane.clone(),
            trust_domain,
            capture: self.inject_capture,
            resources: Resources {
                cpu_request: self.inject_cpu_request.clone(),
                cpu_limit: self.inject_cpu_limit.clone(),
                memory_request: self.inject_memory_request.clone(),
                memory_limit: self.inject_memory_limit.clone(),
            },
            cluster_domain: self.inject_cluster_domain.clone(),
        }
    }
}
