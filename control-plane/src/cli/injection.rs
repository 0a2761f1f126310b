//! What a command is told of injection.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use ringfence_xds::policy::TrustDomain;

use crate::inject::{Capture, RESOLVER_PORT, Resources, Settings};

/// Where the chart puts it.
const DEFAULT_CONTROL_PLANE: &str = "ringfence-control-plane.ringfence-system.svc:15010";
/// The image of this version's sidecar.
const DEFAULT_IMAGE: &str = concat!("ringfence-proxy:", env!("CARGO_PKG_VERSION"));

#[derive(Debug, Args)]
pub(super) struct InjectionArgs {
    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = DEFAULT_IMAGE)]
    inject_image: String,
    /// Where sidecars find the control plane; an address where capture is explicit
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_CONTROL_PLANE)]
    inject_control_plane: String,
    /// How a pod's traffic gets to its sidecar
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Capture::Redirect)]
    inject_capture: Capture,
    /// DNS server of the cluster, asked where a Workload names no upstreams; repeatable. Default of `serve`: those of its own resolv.conf
    #[arg(long, value_name = "IP[:PORT]", value_parser = resolver)]
    inject_resolver: Vec<SocketAddr>,
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
            resolvers: self.inject_resolver.clone(),
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

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, RESOLVER_PORT)).or_else(|_| text.parse());
    address.map_err(|_| "must be an IP address, or one with a port as in 10.96.0.10:53 or [fd00::a]:53".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_an_address() {
        for (text, wanted) in [
            ("10.96.0.10", Some("10.96.0.10:53")),
            ("10.96.0.10:5353", Some("10.96.0.10:5353")),
            ("fd00::a", Some("[fd00::a]:53")),
            ("[fd00::a]:5353", Some("[fd00::a]:5353")),
            ("kube-dns.kube-system", None),
            ("", None),
        ] {
            assert_eq!(resolver(text).ok().map(|address| address.to_string()).as_deref(), wanted, "{text}");
        }
    }
}
