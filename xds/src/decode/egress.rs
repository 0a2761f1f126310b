//! `Tenant.egress` and `Platform.egress`: where a workload may connect to.

mod host;
mod overlap;
mod prefix;

use std::collections::{BTreeMap, HashSet};

use ipnet::IpNet;
use ringfence_policy::{
    NameError, PeerWorkload, RuleRef,
    egress::{EgressPolicy, EgressRule, PlatformEgress, Protocol},
    host::HostPattern,
    name::is_dns_label,
};

use super::{
    Faults, Quoted,
    limits::{mode, request_match},
};
use crate::generated::resource as proto;

const MAX_RULES: usize = 4096;
/// Of one list: a rule's hosts, or its cidrs, or a platform's.
const MAX_ENTRIES: usize = 1024;
const MAX_PORTS: usize = 256;
const MAX_REQUESTS: usize = 256;
/// Hosts and prefixes of a tenant, each counted once for every port: the work of comparing its rules is bounded by this.
const MAX_DESTINATIONS: usize = 65_536;
const MAX_CONNECTIONS: u32 = 1_000_000;

pub(super) fn tenant(tenant: &str, body: &proto::TenantEgress, faults: &mut Faults) -> EgressPolicy {
    let mode = mode("egress.mode".into(), &body.mode, faults);
    if body.max_connections > MAX_CONNECTIONS {
        faults.add("egress.maxConnections", format!("must be from 1 to {MAX_CONNECTIONS}"));
    }
    let connection_rate = match body.connection_rate.as_str() {
        "" => None,
        text => faults.parse("egress.connectionRate", text),
    };
    let max_connections = (body.max_connections != 0).then_some(body.max_connections);
    EgressPolicy { mode, rules: rules(tenant, &body.allow, faults).into(), max_connections, connection_rate }
}

pub(super) fn platform(body: &proto::PlatformEgress, faults: &mut Faults) -> PlatformEgress {
    let deny = body.deny.as_ref().map(|deny| prefixes("egress.deny.cidrs", &deny.cidrs, faults)).unwrap_or_default();
    PlatformEgress { deny, dangerous_allow_private: prefixes("egress.dangerousAllowPrivate", &body.dangerous_allow_private, faults) }
}

fn rules(tenant: &str, bodies: &[proto::EgressRule], faults: &mut Faults) -> Vec<EgressRule> {
    if bodies.len() > MAX_RULES {
        faults.add("egress.allow", format!("must be at most {MAX_RULES} rules"));
        return Vec::new();
    }
    let before = faults.count();
    let mut names = BTreeMap::new();
    let mut rules = Vec::with_capacity(bodies.len());
    for (i, body) in bodies.iter().enumerate() {
        let path = format!("egress.allow[{i}]");
        if !is_dns_label(&body.name) {
            faults.add(format!("{path}.name"), format!("{NameError}, not {}", Quoted(&body.name)));
        } else if let Some(other) = names.insert(&body.name, i) {
            faults.add(format!("{path}.name"), format!("{:?} is already the name of egress.allow[{other}]", body.name));
        }
        rules.push(rule(tenant, &path, body, faults));
    }
    if rules.iter().map(|rule| (rule.hosts.len() + rule.cidrs.len()) * rule.ports.len()).sum::<usize>() > MAX_DESTINATIONS {
        faults.add("egress.allow", format!("must be at most {MAX_DESTINATIONS} hosts and cidrs in all, each counted for every port"));
    } else if faults.count() == before {
        // With a faulty entry left out, the others would be told at the wrong places.
        overlap::check(bodies, &rules, faults);
    }
    rules
}

fn rule(tenant: &str, path: &str, body: &proto::EgressRule, faults: &mut Faults) -> EgressRule {
    let at = |field: &str| format!("{path}.{field}");
    if body.hosts.is_empty() && body.cidrs.is_empty() {
        faults.add(path, "must have hosts, cidrs, or both: names, as long as they lead to these addresses");
    }
    let protocol = protocol(at("protocol"), &body.protocol, faults);
    if !body.requests.is_empty() && !matches!(protocol, Some(Protocol::Http) | None) {
        faults.add(at("requests"), "goes with protocol http alone: of other connections no request is seen");
    }
    if body.requests.len() > MAX_REQUESTS {
        faults.add(at("requests"), format!("must be at most {MAX_REQUESTS} entries"));
    }
    if body.peer.is_some() && !matches!(protocol, Some(Protocol::Http) | None) {
        faults.add(at("peer"), "goes with protocol http alone: other connections are the workload's from end to end");
    }
    let peer = body.peer.as_ref().and_then(|body| peer(tenant, &at("peer"), body, faults));
    let requests = body.requests.iter().take(MAX_REQUESTS).enumerate();
    EgressRule {
        hosts: hosts(&at("hosts"), &body.hosts, faults),
        cidrs: prefixes(&at("cidrs"), &body.cidrs, faults),
        ports: ports(&at("ports"), &body.ports, protocol, faults),
        protocol: protocol.unwrap_or(Protocol::Tls),
        requests: requests.map(|(j, body)| request_match(&at(&format!("requests[{j}]")), &body.methods, &body.paths, faults)).collect(),
        peer,
        rule: RuleRef::new(format!("Tenant/{tenant}: egress.allow[{}]", body.name)),
    }
}

/// `tenant`: the rule's own.
fn peer(tenant: &str, path: &str, body: &proto::PeerWorkload, faults: &mut Faults) -> Option<PeerWorkload> {
    let workload = faults.parse(format!("{path}.workload"), &body.workload);
    let tenant = match (body.tenant.as_str(), body.shared) {
        (_, true) if !body.tenant.is_empty() => {
            faults.add(format!("{path}.shared"), "cannot stand beside tenant: a shared workload is of no tenant");
            return None;
        }
        (_, true) => None,
        // What is wrong with the rule's own name is told where it stands.
        ("", false) => Some(tenant.parse().ok()?),
        (other, false) => Some(faults.parse(format!("{path}.tenant"), other)?),
    };
    Some(PeerWorkload { tenant, workload: workload? })
}

fn protocol(path: String, text: &str, faults: &mut Faults) -> Option<Protocol> {
    match text {
        "" | "tls" => Some(Protocol::Tls),
        "http" => Some(Protocol::Http),
        "tcp" => Some(Protocol::Tcp),
        other => {
            faults.add(path, format!("must be tls, http or tcp, not {}", Quoted(other)));
            None
        }
    }
}

fn ports(path: &str, numbers: &[u32], protocol: Option<Protocol>, faults: &mut Faults) -> Vec<u16> {
    match (numbers, protocol) {
        ([], Some(Protocol::Tls)) => return vec![443],
        ([], Some(Protocol::Http)) => return vec![80],
        ([], Some(Protocol::Tcp)) => faults.add(path, "must be given with protocol tcp: it has no usual port"),
        _ => {}
    }
    if numbers.len() > MAX_PORTS {
        faults.add(path, format!("must be at most {MAX_PORTS} ports"));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut ports = Vec::with_capacity(numbers.len());
    for (i, number) in numbers.iter().enumerate() {
        match u16::try_from(*number) {
            Ok(port) if port != 0 && seen.insert(port) => ports.push(port),
            Ok(port) if port != 0 => faults.add(format!("{path}[{i}]"), format!("{port} is already listed")),
            _ => faults.add(format!("{path}[{i}]"), "must be from 1 to 65535"),
        }
    }
    ports
}

fn hosts(path: &str, texts: &[String], faults: &mut Faults) -> Vec<HostPattern> {
    list(path, texts, host::pattern, faults)
}

fn prefixes(path: &str, texts: &[String], faults: &mut Faults) -> Vec<IpNet> {
    list(path, texts, prefix::prefix, faults)
}

/// A list without repetitions.
fn list<T, E>(path: &str, texts: &[String], read: impl Fn(&str) -> Result<T, E>, faults: &mut Faults) -> Vec<T>
where
    T: Clone + Eq + std::hash::Hash + std::fmt::Display,
    E: std::fmt::Display,
{
    if texts.len() > MAX_ENTRIES {
        faults.add(path, format!("must be at most {MAX_ENTRIES} entries"));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut list = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let at = || format!("{path}[{i}]");
        match read(text) {
            Ok(value) if seen.insert(value.clone()) => list.push(value),
            Ok(value) => faults.add(at(), format!("{value} is already listed")),
            Err(error) => faults.add(at(), format!("{error}, not {}", Quoted(text))),
        }
    }
    list
}
