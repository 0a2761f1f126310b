//! All that a tenant's fence is made of, read once: from here on nothing is looked up and little can be wrong.

use std::net::SocketAddr;

use ringfence_xds::{
    decode,
    policy::{
        egress::PlatformEgress,
        tenant::{DnsUpstream, TenantPolicy},
    },
};

use super::terms::{Terms, Wrong, wrong_with_platform};
use crate::{
    compile::{platform_body, tenant_body},
    kubernetes::trust::TrustText,
    spec::{PlatformSpec, TenantSpec, WorkloadSpec},
};

/// What a Tenant claims of the cluster.
pub(super) struct Claim<'a> {
    pub(super) name: &'a str,
    /// Of the Tenant object: what its namespaces are marked with.
    pub(super) uid: &'a str,
    pub(super) terms: Terms,
    /// Tenants that it has agreed with, each listing the other.
    pub(super) peers: Vec<&'a str>,
    pub(super) workloads: Vec<Serving<'a>>,
    /// Where the control plane is.
    pub(super) system_namespace: &'a str,
    /// Whether pods carry the capture step. If not, their programs are told of the sidecar, by resolv.conf(5) too.
    pub(super) pods_capture: bool,
    pub(super) trust: &'a TrustText,
}

/// What a Workload's sidecar listens on and asks.
pub(super) struct Serving<'a> {
    pub(super) name: &'a str,
    pub(super) listeners: Vec<Listener>,
    pub(super) upstreams: Vec<DnsUpstream>,
}

pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) mtls: bool,
}

impl<'a> Serving<'a> {
    /// What cannot be read is no listener, and its fault is told with the Workload.
    pub(super) fn new(name: &'a str, spec: &WorkloadSpec) -> Self {
        let listener = |inbound: &crate::spec::InboundSpec| Some(Listener { address: inbound.listen.parse().ok()?, mtls: inbound.mtls });
        let upstreams = spec.dns.iter().flat_map(|dns| dns.upstreams.iter().flatten());
        Self {
            name,
            listeners: spec.inbound.iter().filter_map(listener).collect(),
            upstreams: upstreams.filter_map(|text| decode::dns_upstream(text).ok()).collect(),
        }
    }
}

/// What a sidecar makes of the Tenant, or what is wrong with it: then its sidecars go by what they had before, and so does its fence.
pub(super) fn tenant_policy(name: &str, spec: &TenantSpec, peers: &[&str]) -> Result<TenantPolicy, Vec<Wrong>> {
    decode::tenant(name, &tenant_body(spec, name, &peers.iter().copied().collect()))
        .map_err(|faults| faults.into_iter().map(wrong).collect())
}

pub(super) fn platform_egress(name: &str, spec: &PlatformSpec) -> Result<PlatformEgress, Vec<Wrong>> {
    let faults = wrong_with_platform(spec.kubernetes.as_ref());
    if !faults.is_empty() {
        return Err(faults);
    }
    let policy = decode::platform(name, &platform_body(spec)).map_err(|faults| faults.into_iter().map(wrong).collect::<Vec<_>>())?;
    Ok(policy.egress)
}

fn wrong(fault: decode::Fault) -> Wrong {
    Wrong { path: fault.path, message: fault.message }
}
