//! What an installation puts into its tenants' pods.

use std::net::{IpAddr, SocketAddr};

use ringfence_xds::policy::TrustDomain;

/// Of a DNS server that says none.
pub const RESOLVER_PORT: u16 = 53;

/// The same for every pod; checked once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of `ringfence-proxy`, for both containers.
    pub image: String,
    /// `<host>:<port>` at which sidecars find the control plane.
    pub control_plane: String,
    pub trust_domain: TrustDomain,
    pub capture: Capture,
    /// Whom sidecars ask for names where their Workload does not say: the cluster's. Without any they believe the pod's resolv.conf(5) and
    /// hosts(5), which its containers may write.
    pub resolvers: Vec<SocketAddr>,
    pub resources: Resources,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
}

/// How a pod's traffic gets to its sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Capture {
    /// Rules in the pod's network namespace, installed and verified by an init container with NET_ADMIN before any other container runs
    Redirect,
    /// Proxy variables and resolv.conf, without NET_ADMIN: programs that ignore them go past the sidecar, unless the network fences them
    Explicit,
}

/// Of the sidecar; the capture container, which ends before it starts, has the same. Quantities as the API server writes them.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Whole CPUs, or thousandths: `50m`.
    pub cpu_request: String,
    pub cpu_limit: String,
    /// `64Mi`.
    pub memory_request: String,
    pub memory_limit: String,
}

impl Default for Resources {
    fn default() -> Self {
        let [cpu_request, cpu_limit, memory_request, memory_limit] = ["20m", "1", "32Mi", "256Mi"].map(str::to_owned);
        Self { cpu_request, cpu_limit, memory_request, memory_limit }
    }
}

/// A setting that would make pods that no node could run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {message}, not {value:?}")]
pub struct SettingError {
    setting: &'static str,
    message: &'static str,
    value: String,
}

impl Settings {
    pub fn check(&self) -> Result<(), SettingError> {
        let fault = |setting, message, value: &str| Err(SettingError { setting, message, value: value.to_owned() });
        if self.image.is_empty() || self.image.contains(char::is_whitespace) {
            return fault("image", "must be an image reference", &self.image);
        }
        let Some((host, port)) = self.control_plane.rsplit_once(':') else {
            return fault("control plane", "must be <host>:<port>", &self.control_plane);
        };
        if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port != 0) {
            return fault("control plane", "must be <host>:<port>", &self.control_plane);
        }
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if self.capture == Capture::Explicit && !is_address {
            // All names of the pod are looked up at the sidecar, which answers none before it has found the control plane.
            return fault("control plane", "must be an address and a port where capture is explicit", &self.control_plane);
        }
        if self.capture == Capture::Explicit && self.resolvers.is_empty() {
            return fault("resolvers", "must be named where capture is explicit: the pod's own is the sidecar", "");
        }
        if let Some(resolver) = self.resolvers.iter().find(|resolver| resolver.ip().is_loopback() || resolver.ip().is_unspecified()) {
            return fault("resolvers", "must be addresses that a pod reaches", &resolver.to_string());
        }
        let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = &self.resources;
        for (setting, quantity) in [("cpu request", cpu_request), ("cpu limit", cpu_limit)] {
            if !is_cpu(quantity) {
                return fault(setting, "must be whole CPUs or thousandths in shortest form, e.g. 2 or 50m", quantity);
            }
        }
        for (setting, quantity) in [("memory request", memory_request), ("memory limit", memory_limit)] {
            if !is_memory(quantity) {
                return fault(setting, "must be in Mi or Gi in shortest form, e.g. 64Mi", quantity);
            }
        }
        Ok(())
    }
}

/// In another form than the shortest, the API server would write it anew, and a second pass would find a change.
fn is_cpu(quantity: &str) -> bool {
    match quantity.strip_suffix('m') {
        Some(thousandths) => whole(thousandths).is_some_and(|count| count % 1000 != 0),
        None => whole(quantity).is_some(),
    }
}

fn is_memory(quantity: &str) -> bool {
    let unit = quantity.strip_suffix("Mi").or_else(|| quantity.strip_suffix("Gi"));
    unit.and_then(whole).is_some_and(|count| count % 1024 != 0)
}

fn whole(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|count: &u32| *count > 0 && count.to_string() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::tests::settings;

    #[test]
    fn settings_that_no_node_could_run_are_refused() {
        type Change = fn(&mut Settings);
        let cases: [(Change, &str); 11] = [
            (|s| (s.capture, s.resolvers) = (Capture::Explicit, Vec::new()), "resolvers: must be named"),
            (|s| s.resolvers = vec!["127.0.0.53:53".parse().unwrap()], "resolvers: must be addresses that a pod reaches"),
            (|s| s.image.clear(), "image: "),
            (|s| s.image = "a b".into(), "image: "),
            (|s| s.control_plane = "here".into(), "control plane: must be <host>:<port>"),
            (|s| s.control_plane = "here:0".into(), "control plane: must be <host>:<port>"),
            (|s| (s.capture, s.control_plane) = (Capture::Explicit, "control-plane.svc:15010".into()), "control plane: must be an address"),
            (|s| s.resources.cpu_request = "1000m".into(), "cpu request: "),
            (|s| s.resources.cpu_limit = "0.5".into(), "cpu limit: "),
            (|s| s.resources.memory_request = "1024Mi".into(), "memory request: "),
            (|s| s.resources.memory_limit = "064Mi".into(), "memory limit: "),
        ];
        assert_eq!(settings(Capture::Redirect).check(), Ok(()));
        assert_eq!(settings(Capture::Explicit).check(), Ok(()));
        for (change, wanted) in cases {
            let mut settings = settings(Capture::Redirect);
            change(&mut settings);
            let error = settings.check().unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
