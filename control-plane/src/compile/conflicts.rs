//! What two objects cannot both have.

use std::{collections::HashMap, net::SocketAddr};

use super::place;
use crate::spec::{Fault, Object, Spec, quoted};

/// A tenant's place among the objects, and the field that claims.
type Claimant<'a> = (usize, &'a Object, String);

/// A claim value of an issuer means one tenant.
pub(super) fn identities(standing: &[(usize, &Object)], faults: &mut [Vec<Fault>]) {
    let mut claims: HashMap<(&str, &str), Vec<Claimant<'_>>> = HashMap::new();
    for &(i, object) in standing {
        let Spec::Tenant(tenant) = &object.spec else { continue };
        for (n, identity) in tenant.identity.iter().enumerate() {
            match &identity.values {
                None => claims.entry((&identity.issuer, &object.key.name)).or_default().push((i, object, format!("spec.identity[{n}]"))),
                Some(values) => {
                    for (m, value) in values.iter().enumerate() {
                        let path = format!("spec.identity[{n}].values[{m}]");
                        claims.entry((&identity.issuer, value)).or_default().push((i, object, path));
                    }
                }
            }
        }
    }
    for ((issuer, value), claimants) in claims {
        for (i, object, path) in &claimants {
            // Twice in one tenant is the decoder's to tell.
            let Some((_, other, _)) = claimants.iter().find(|(j, ..)| i != j) else { continue };
            let (value, other, place) = (quoted(value), &other.key, place(other));
            let message = format!("{value} of Issuer/{issuer} means {other} too ({place}): it must mean one tenant");
            faults[*i].push(object.fault(path.as_str(), message));
        }
    }
}

/// An address is listened on once. All workloads of a directory run on one machine, and sidecars share ports between their threads
/// (SO_REUSEPORT): the kernel would deal one workload's connections out to the other.
pub(super) fn listeners(standing: &[(usize, &Object)], faults: &mut [Vec<Fault>]) {
    let mut by_port: HashMap<u16, Vec<(usize, &Object, usize, SocketAddr)>> = HashMap::new();
    for &(i, object) in standing {
        let Spec::Workload(workload) = &object.spec else { continue };
        for (n, listener) in workload.inbound.iter().enumerate() {
            match listener.listen.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => by_port.entry(address.port()).or_default().push((i, object, n, address)),
                // Port 0 is any free one; what is no address is the decoder's to tell.
                _ => {}
            }
        }
    }
    for listeners in by_port.values() {
        for (i, object, n, address) in listeners {
            // The very same address twice in one workload is the decoder's to tell.
            let other = listeners.iter().find(|(j, _, m, other)| match (i == j, n == m) {
                (true, true) => false,
                (true, false) => address != other && overlap(*address, *other),
                (false, _) => overlap(*address, *other),
            });
            if let Some((_, other, _, its)) = other {
                let message = format!("{} ({}) listens on {its}: choose another port", other.key, place(other));
                faults[*i].push(object.fault(format!("spec.inbound[{n}].listen"), message));
            }
        }
    }
}

/// Of two addresses with the same port. `[::]` takes IPv4 connections too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all_of = |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.ip() == b.ip() || takes_all_of(a, b) || takes_all_of(b, a)
}
