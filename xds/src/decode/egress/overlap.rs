//! Rules that take each other's meaning away. What one rule limits and another does not is not limited; an operator who wrote both believes
//! that it is.
//!
//! A fault is told only where it is certain:
//! - the same host or prefix with the same port twice, where one of the two adds nothing to the other;
//! - a host or prefix within a wider one of another rule, where the wider rule lets through what the narrower means to refuse: other
//!   requests, other protocols, other addresses;
//! - a host or prefix and one that covers it, of two rules that do not name the same peer: what goes to a peer goes nowhere else.
//!
//! That `*.example.com` covers `api.example.com`, both for the same, is no fault: it is said twice and meant once.

use std::{collections::HashMap, fmt::Display, hash::Hash};

use ipnet::IpNet;
use ringfence_policy::{
    egress::{EgressRule, Protocol},
    host::HostPattern,
};

use super::super::Faults;
use crate::generated::resource as proto;

/// One host or prefix of a rule.
#[derive(Clone, Copy)]
struct Entry {
    rule: usize,
    index: usize,
}

/// `rules`: those of `bodies`, entry by entry.
pub(super) fn check(bodies: &[proto::EgressRule], rules: &[EgressRule], faults: &mut Faults) {
    let hosts = rules.iter().map(|rule| rule.hosts.as_slice());
    report("hosts", hosts, wider_patterns, bodies, rules, faults);
    // With hosts, the prefixes are a condition of theirs, and nothing that one may ask for.
    let prefixes = rules.iter().map(|rule| if rule.hosts.is_empty() { rule.cidrs.as_slice() } else { &[] });
    report("cidrs", prefixes, wider_prefixes, bodies, rules, faults);
}

/// `targets`: of each rule. `wider`: a target itself, and every one that covers it.
fn report<'a, T, W>(
    field: &str,
    targets: impl Iterator<Item = &'a [T]>,
    wider: impl Fn(&T) -> W,
    bodies: &[proto::EgressRule],
    rules: &[EgressRule],
    faults: &mut Faults,
) where
    T: Eq + Hash + Display + 'a,
    W: Iterator<Item = T>,
{
    let of_rule = |(rule, targets): (usize, &'a [T])| targets.iter().enumerate().map(move |(i, target)| (Entry { rule, index: i }, target));
    let entries: Vec<(Entry, &T)> = targets.enumerate().flat_map(of_rule).collect();
    let mut by_target: HashMap<&T, Vec<Entry>> = HashMap::with_capacity(entries.len());
    for (entry, target) in &entries {
        by_target.entry(target).or_default().push(*entry);
    }
    for (entry, target) in &entries {
        let found = wider(target).find_map(|covering| {
            let same = covering == **target;
            let others = by_target.get(&covering)?.iter().filter(|other| other.rule != entry.rule);
            let (other, Void { what, port, how }) =
                others.into_iter().find_map(|other| Some((other, voids(rules, *entry, *other, same)?)))?;
            let Entry { rule, index } = other;
            let name = &bodies[*rule].name;
            Some(format!("{what} at port {port}: egress.allow[{rule}].{field}[{index}] ({name}) allows {covering} there{how}"))
        });
        if let Some(message) = found {
            faults.add(format!("egress.allow[{}].{field}[{}]", entry.rule, entry.index), message);
        }
    }
}

struct Void {
    what: &'static str,
    port: u16,
    how: &'static str,
}

/// Whether what `entry`'s rule says of a target says nothing, because `other`'s does. `same`: of the same target, not only of a wider one.
fn voids(rules: &[EgressRule], entry: Entry, other: Entry, same: bool) -> Option<Void> {
    let (narrow, wide) = (&rules[entry.rule], &rules[other.rule]);
    let of_hosts = !narrow.hosts.is_empty();
    if narrow.peer != wide.peer {
        // Of two for the same target, the later is told.
        let is_told = !same || other.rule < entry.rule;
        let port = narrow.ports.iter().copied().find(|port| wide.ports.contains(port))?;
        return is_told.then_some(Void { what: "must name the same peer", port, how: "" });
    }
    let protocol = narrow.protocol == wide.protocol || wide.protocol == Protocol::Tcp;
    let requests = wide.requests.is_empty() || wide.requests == narrow.requests;
    let addresses = !of_hosts || wide.cidrs.is_empty() || wide.cidrs == narrow.cidrs;
    if !(protocol && requests && addresses) {
        return None;
    }
    let how = if narrow.protocol != wide.protocol {
        ", by any protocol"
    } else if narrow.requests != wide.requests {
        ", with every request"
    } else if of_hosts && narrow.cidrs != wide.cidrs {
        ", at every address"
    } else if same && other.rule < entry.rule {
        // Of two that say the same, the later is told.
        ""
    } else {
        return None;
    };
    let port = narrow.ports.iter().copied().find(|port| wide.ports.contains(port))?;
    Some(Void { what: "has no effect", port, how })
}

fn wider_patterns(pattern: &HostPattern) -> impl Iterator<Item = HostPattern> + use<> {
    let name = match pattern {
        HostPattern::Exact(name) | HostPattern::Below(name) => name.clone(),
    };
    let parents = std::iter::successors(name.parent(), |name| name.parent());
    std::iter::once(pattern.clone()).chain(parents.map(HostPattern::Below))
}

fn wider_prefixes(prefix: &IpNet) -> impl Iterator<Item = IpNet> + use<> {
    std::iter::successors(Some(*prefix), IpNet::supernet)
}

#[cfg(test)]
mod tests;
