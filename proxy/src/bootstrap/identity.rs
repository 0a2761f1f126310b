//! `identity` of the bootstrap, and the address that goes with it.

use std::{net::IpAddr, path::PathBuf};

use ringfence_policy::TrustDomain;
use serde::Deserialize;

use super::{Bootstrap, ControlPlane};

/// Longest name of a host (RFC 1035 §2.3.4), in octets.
const MAX_HOST_BYTES: usize = 253;

/// Who this sidecar is, and whom it believes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    pub trust_domain: String,
    /// PEM: the authorities believed until the control plane has told of others. With the Workload API there is none: it tells them.
    pub bundle: Option<PathBuf>,
    pub source: IdentitySource,
}

/// Who issues the X.509-SVID.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum IdentitySource {
    /// The control plane, on this proof.
    ControlPlane(ProofSource),
    /// A SPIFFE Workload API (SPIRE's agent) at this Unix socket.
    WorkloadApi(PathBuf),
}

/// Where the proof is that a sidecar is who it says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ProofSource {
    JoinToken(JoinToken),
    /// A projected token of a Kubernetes service account, for the control plane's audience and bound to this pod. Read anew for every use.
    ServiceAccountToken {
        file: PathBuf,
    },
}

/// Good once; so a state directory must keep what it was exchanged for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum JoinToken {
    /// Standard input up to its end.
    Stdin,
    /// Mode 0600; removed after use.
    File(PathBuf),
}

pub(super) fn check(bootstrap: &Bootstrap) -> Result<(), (&'static str, String)> {
    let is_tls = match &bootstrap.control_plane {
        ControlPlane::Tls(address) => {
            check_address(address).map_err(|message| ("controlPlane.tls", format!("{message}, not {address:?}")))?;
            true
        }
        ControlPlane::Unix(_) | ControlPlane::DangerousPlaintext(_) => false,
    };
    let Some(identity) = &bootstrap.identity else {
        return if is_tls { Err(("identity", "is required with controlPlane.tls".into())) } else { Ok(()) };
    };
    identity.trust_domain.parse::<TrustDomain>().map_err(|error| ("identity.trustDomain", error.to_string()))?;
    match &identity.source {
        IdentitySource::ControlPlane(proof) => {
            if !is_tls {
                return Err(("identity.source.controlPlane", "requires controlPlane.tls, where it is asked".into()));
            }
            if identity.bundle.is_none() {
                return Err(("identity.bundle", "is required with source.controlPlane".into()));
            }
            if matches!(proof, ProofSource::JoinToken(_)) && bootstrap.state_dir.is_none() {
                return Err((
                    "identity.source.controlPlane.joinToken",
                    "requires stateDir: the token is good once, and what it is exchanged for must outlive a restart".into(),
                ));
            }
        }
        IdentitySource::WorkloadApi(_) => {
            if identity.bundle.is_some() {
                return Err(("identity.bundle", "must be left out with source.workloadApi, which tells the authorities".into()));
            }
        }
    }
    Ok(())
}

/// `host:port`; an IPv6 address stands in brackets.
fn check_address(address: &str) -> Result<(), &'static str> {
    const WANTED: &str = "must be <host>:<port>";
    let (host, port) = address.rsplit_once(':').ok_or(WANTED)?;
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("must end in a port from 1 to 65535");
    }
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || is_name(host),
    };
    if is_host { Ok(()) } else { Err("must name a host, an IPv4 address or an IPv6 address in brackets") }
}

fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    // What ends in a number is meant as an IPv4 address (WHATWG URL, "ends in a number").
    let is_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= MAX_HOST_BYTES && host.split('.').all(is_label) && !is_number
}

#[cfg(test)]
mod tests;
