//! The NetworkPolicies of a tenant's namespace: nothing in or out, but for what its sidecars need.
//!
//! A NetworkPolicy tells pods apart and not the containers in them, so that what is open for a sidecar is open for its whole pod. It is the
//! outer fence: it bounds where a container that came round the redirect rules could connect to, by address and port; which names, paths
//! and peers are allowed among these is the sidecar's to say. Most networks judge an address after a Service's was translated: a rule for
//! something within the cluster lists the addresses of its pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use kube::api::ObjectMeta;
use ringfence_xds::policy::{
    address::{public_prefixes, special_prefixes},
    egress::{EgressRule, PlatformEgress},
    ratelimit::Mode,
    tenant::{DnsTransport, DnsUpstream, TenantPolicy},
};

use super::claim::{Claim, Serving};
use crate::kubernetes::names::{ADS_PORT, TENANT_LABEL, WORKLOAD_LABEL};

/// The one that follows from the Tenant's rules.
pub(super) const EGRESS: &str = "ringfence-egress";
const DNS_PORT: u16 = 53;
/// The API server keeps it on every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Nothing may come or go.
pub(super) fn default_deny() -> NetworkPolicy {
    let spec = NetworkPolicySpec {
        pod_selector: Some(LabelSelector::default()),
        policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
        ..Default::default()
    };
    policy("ringfence-default-deny", spec)
}

/// To the control plane, and to resolvers: the cluster's and those that the workloads name.
pub(super) fn infrastructure(claim: &Claim<'_>) -> NetworkPolicy {
    let control_plane = NetworkPolicyPeer { namespace_selector: Some(label(NAMESPACE_NAME, claim.system_namespace)), ..Default::default() };
    let cluster_dns = NetworkPolicyPeer {
        namespace_selector: Some(label(NAMESPACE_NAME, "kube-system")),
        pod_selector: Some(label("k8s-app", "kube-dns")),
        ..Default::default()
    };
    let mut egress =
        vec![to([control_plane], vec![port("TCP", ADS_PORT)]), to([cluster_dns], vec![port("TCP", DNS_PORT), port("UDP", DNS_PORT)])];
    let upstreams: BTreeSet<(SocketAddr, bool)> =
        claim.workloads.iter().flat_map(|workload| &workload.upstreams).map(|upstream| (upstream.address, is_udp(upstream))).collect();
    for (address, is_udp) in upstreams {
        let mut ports = vec![port("TCP", address.port())];
        if is_udp {
            ports.push(port("UDP", address.port()));
        }
        egress.push(to([block(IpNet::from(address.ip()), Vec::new())], ports));
    }
    policy("ringfence-infrastructure", out(egress))
}

fn is_udp(upstream: &DnsUpstream) -> bool {
    upstream.transport == DnsTransport::Udp
}

/// Where the tenant's egress rules could lead: their prefixes, and for names whatever is public, on their ports.
pub(super) fn egress(tenant: &TenantPolicy, platform: &PlatformEgress) -> NetworkPolicy {
    let special = special_prefixes();
    let public = || {
        let prefixes = public_prefixes().into_iter().chain(platform.dangerous_allow_private.iter().copied());
        prefixes.filter_map(|prefix| reachable(prefix, &special, &platform.deny))
    };
    if tenant.egress.mode == Mode::Shadow {
        // What would be refused is only told of: every port.
        return policy(EGRESS, out(vec![to(public(), Vec::new())]));
    }
    let rule = |rule: &EgressRule| {
        let listed = rule.cidrs.iter().filter_map(|prefix| reachable(*prefix, &special, &platform.deny));
        let blocks: Vec<_> = if rule.cidrs.is_empty() { public().collect() } else { listed.collect() };
        // A rule without a peer would be one for all.
        (!blocks.is_empty() && !rule.ports.is_empty()).then(|| to(blocks, rule.ports.iter().map(|number| port("TCP", *number)).collect()))
    };
    let mut rules: Vec<NetworkPolicyEgressRule> = Vec::new();
    for rule in tenant.egress.rules.iter().filter_map(rule) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    policy(EGRESS, out(rules))
}

/// To the inbound listeners of the tenant's workloads: one policy for each workload, and one for pods that do not say which they are.
pub(super) fn inbound(claim: &Claim<'_>) -> Vec<NetworkPolicy> {
    let mut policies = Vec::new();
    for workload in &claim.workloads {
        let ingress = ingress(claim, workload);
        if ingress.is_empty() {
            continue;
        }
        let of = |selector| NetworkPolicySpec {
            pod_selector: Some(selector),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(ingress.clone()),
            ..Default::default()
        };
        policies.push(policy(&format!("ringfence-inbound-{}", workload.name), of(label(WORKLOAD_LABEL, workload.name))));
        if workload.name == claim.name {
            policies.push(policy("ringfence-inbound", of(requirement(WORKLOAD_LABEL, "DoesNotExist", None))));
        }
    }
    policies
}

fn ingress(claim: &Claim<'_>, workload: &Serving<'_>) -> Vec<NetworkPolicyIngressRule> {
    let from = |namespaces: LabelSelector| NetworkPolicyPeer { namespace_selector: Some(namespaces), ..Default::default() };
    let own = || from(label(TENANT_LABEL, claim.name));
    let listeners = |mtls: bool| {
        let listeners = workload.listeners.iter().filter(move |listener| listener.mtls == mtls && !listener.address.ip().is_loopback());
        listeners.map(|listener| port("TCP", listener.address.port())).collect::<Vec<_>>()
    };
    let named = || (!claim.terms.ingress_from.is_empty()).then(|| from(one_of(NAMESPACE_NAME, &claim.terms.ingress_from)));
    // Of another tenant nobody comes but over mTLS, and the sidecar judges who.
    let peers: Vec<String> = claim.peers.iter().map(|peer| (*peer).to_owned()).collect();
    let agreed = || (!peers.is_empty()).then(|| from(one_of(TENANT_LABEL, &peers)));
    let open = [(listeners(false), [Some(own()), named(), None]), (listeners(true), [Some(own()), named(), agreed()])];
    let rules = open.into_iter().filter(|(ports, _)| !ports.is_empty());
    rules.map(|(ports, peers)| NetworkPolicyIngressRule { from: Some(peers.into_iter().flatten().collect()), ports: Some(ports) }).collect()
}

/// `prefix` without what is not to be reached there; `None`: nothing of it is.
fn reachable(prefix: IpNet, special: &[IpNet], deny: &[IpNet]) -> Option<NetworkPolicyPeer> {
    if deny.iter().any(|denied| denied.contains(&prefix)) {
        return None;
    }
    let within = special.iter().chain(deny).filter(|other| prefix != **other && prefix.contains(*other)).copied().collect();
    let except = IpNet::aggregate(&within);
    (!except.contains(&prefix.trunc())).then(|| block(prefix, except))
}

fn block(prefix: IpNet, except: Vec<IpNet>) -> NetworkPolicyPeer {
    let except: Vec<String> = except.iter().map(|prefix| prefix.trunc().to_string()).collect();
    let ip_block = IPBlock { cidr: prefix.trunc().to_string(), except: (!except.is_empty()).then_some(except) };
    NetworkPolicyPeer { ip_block: Some(ip_block), ..Default::default() }
}

fn to(peers: impl IntoIterator<Item = NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(peers.into_iter().collect()), ports: (!ports.is_empty()).then_some(ports) }
}

fn out(egress: Vec<NetworkPolicyEgressRule>) -> NetworkPolicySpec {
    NetworkPolicySpec {
        pod_selector: Some(LabelSelector::default()),
        policy_types: Some(vec!["Egress".into()]),
        egress: (!egress.is_empty()).then_some(egress),
        ..Default::default()
    }
}

fn policy(name: &str, spec: NetworkPolicySpec) -> NetworkPolicy {
    NetworkPolicy { metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() }, spec: Some(spec) }
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.to_owned()), port: Some(IntOrString::Int(number.into())), end_port: None }
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])), match_expressions: None }
}

fn one_of(key: &str, values: &[String]) -> LabelSelector {
    requirement(key, "In", Some(values.to_vec()))
}

fn requirement(key: &str, operator: &str, values: Option<Vec<String>>) -> LabelSelector {
    let requirement = LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values };
    LabelSelector { match_labels: None, match_expressions: Some(vec![requirement]) }
}
