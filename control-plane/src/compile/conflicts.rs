//! What two objects cannot both have.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::place;
use crate::spec::{Fault, Object, Spec, WorkloadSpec, quoted};

/// A field of a tenant that claims a value: the tenant's place among the objects, and the indices in `identity` and its `values`.
type Claimant<'a> = (usize, &'a Object, usize, Option<usize>);

/// A claim value of an issuer means one tenant.
pub(super) fn identities(standing: &[(usize, &Object)], faults: &mut [Vec<Fault>]) {
    let mut first: HashMap<(&str, &str), Claimant<'_>> = HashMap::with_capacity(standing.len());
    let mut contested: HashMap<(&str, &str), Vec<Claimant<'_>>> = HashMap::new();
    for &(i, object) in standing {
        let Spec::Tenant(tenant) = &object.spec else { continue };
        for (n, identity) in tenant.identity.iter().enumerate() {
            let values = identity.values.iter().flatten().enumerate().map(|(m, value)| (value.as_str(), Some(m)));
            let default = identity.values.is_none().then_some((&*object.key.name, None));
            for (value, m) in values.chain(default) {
                let (claim, claimant) = ((identity.issuer.as_str(), value), (i, object, n, m));
                let holder = *first.entry(claim).or_insert(claimant);
                // Twice in one tenant is the decoder's to tell.
                if holder.0 != i {
                    contested.entry(claim).or_insert_with(|| vec![holder]).push(claimant);
                }
            }
        }
    }
    for ((issuer, value), claimants) in contested {
        for (i, object, n, m) in &claimants {
            let Some((_, other, ..)) = claimants.iter().find(|(j, ..)| i != j) else { continue };
            let path = match m {
                Some(m) => format!("spec.identity[{n}].values[{m}]"),
                None => format!("spec.identity[{n}]"),
            };
            let (value, other, place) = (quoted(value), &other.key, place(other));
            let message = format!("{value} of Issuer/{issuer} means {other} too ({place}): it must mean one tenant");
            faults[*i].push(object.fault(path, message));
        }
    }
}

/// An address is listened on once by the workloads of one network: sidecars share ports between their threads (SO_REUSEPORT), and the kernel
/// would deal one workload's connections out to the other.
pub(super) fn listeners(standing: &[(usize, &Object)], faults: &mut [Vec<Fault>]) {
    let mut ports: HashMap<u16, Port<'_>> = HashMap::new();
    for &(owner, object) in standing {
        let Spec::Workload(workload) = &object.spec else { continue };
        for (field, text) in listens(workload) {
            match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => {
                    ports.entry(address.port()).or_default().add(Listener { owner, object, field, address })
                }
                // Port 0 is any free one; what is no address is the decoder's to tell.
                _ => {}
            }
        }
    }
    for port in ports.values() {
        for listener in port.all() {
            if let Some(Listener { object: other, address, .. }) = port.conflict(listener) {
                let message = format!("{} ({}) listens on {address}: choose another port", other.key, place(other));
                faults[listener.owner].push(listener.object.fault(listener.field.path(), message));
            }
        }
    }
}

/// Where a workload listens: for TCP at each of them, for UDP at `dns.listen` too.
fn listens(workload: &WorkloadSpec) -> impl Iterator<Item = (Field, &str)> {
    let inbound = workload.inbound.iter().enumerate().map(|(i, inbound)| (Field::Inbound(i), inbound.listen.as_str()));
    let egress = workload.egress.iter().map(|egress| (Field::Egress, egress.listen.as_str()));
    let dns = workload.dns.iter().filter_map(|dns| dns.listen.as_deref()).map(|listen| (Field::Dns, listen));
    inbound.chain(egress).chain(dns)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Inbound(usize),
    Egress,
    Dns,
}

impl Field {
    fn path(self) -> String {
        match self {
            Field::Inbound(i) => format!("spec.inbound[{i}].listen"),
            Field::Egress => "spec.egress.listen".to_owned(),
            Field::Dns => "spec.dns.listen".to_owned(),
        }
    }
}

struct Listener<'a> {
    /// The workload's place among the objects.
    owner: usize,
    object: &'a Object,
    field: Field,
    address: SocketAddr,
}

/// The listeners of one port.
#[derive(Default)]
struct Port<'a> {
    unspecified: Vec<Listener<'a>>,
    specified: BTreeMap<IpAddr, Vec<Listener<'a>>>,
}

impl<'a> Port<'a> {
    fn add(&mut self, listener: Listener<'a>) {
        match listener.address.ip() {
            ip if ip.is_unspecified() => self.unspecified.push(listener),
            ip => self.specified.entry(ip).or_default().push(listener),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Listener<'a>> {
        self.unspecified.iter().chain(self.specified.values().flatten())
    }

    fn conflict(&self, listener: &Listener<'a>) -> Option<&Listener<'a>> {
        let Listener { owner, field, address, .. } = listener;
        let conflicts = |other: &&Listener<'_>| match (*owner == other.owner, *field == other.field) {
            (true, true) => false,
            // The very same address twice in one workload is the decoder's to tell.
            (true, false) => *address != other.address && overlap(*address, other.address),
            (false, _) => overlap(*address, other.address),
        };
        if address.ip().is_unspecified() {
            return self.all().find(conflicts);
        }
        self.specified.get(&address.ip()).into_iter().flatten().chain(&self.unspecified).find(conflicts)
    }
}

/// Of two addresses with the same port. `[::]` takes IPv4 connections too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all_of = |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.ip() == b.ip() || takes_all_of(a, b) || takes_all_of(b, a)
}
