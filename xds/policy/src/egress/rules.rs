//! The `allow` list, and its index: a decision costs as much with ten thousand rules as with ten.

use std::{collections::HashMap, ops::Deref};

use smallvec::SmallVec;

use super::EgressRule;
use crate::host::{Host, HostName, HostPattern};

/// In the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EgressRules {
    rules: Vec<EgressRule>,
    /// `None`: there are no rules, as in most of the thousands of tenants of a shared workload.
    index: Option<Box<Index>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Index {
    /// Which list this name.
    exact: HashMap<HostName, Places>,
    /// Which list the names below this one.
    below: HashMap<HostName, Places>,
    /// Which list addresses and no names.
    addresses: Vec<u32>,
}

/// Of rules, ascending.
type Places = SmallVec<[u32; 2]>;

impl From<Vec<EgressRule>> for EgressRules {
    fn from(rules: Vec<EgressRule>) -> Self {
        let index = (!rules.is_empty()).then(|| Box::new(Index::of(&rules)));
        Self { rules, index }
    }
}

impl Index {
    fn of(rules: &[EgressRule]) -> Self {
        let mut index = Self::default();
        for (place, rule) in (0..).zip(rules) {
            for pattern in &rule.hosts {
                let places = match pattern {
                    HostPattern::Exact(name) => index.exact.entry(name.clone()),
                    HostPattern::Below(suffix) => index.below.entry(suffix.clone()),
                };
                places.or_default().push(place);
            }
            if rule.hosts.is_empty() {
                index.addresses.push(place);
            }
        }
        index
    }
}

impl FromIterator<EgressRule> for EgressRules {
    fn from_iter<I: IntoIterator<Item = EgressRule>>(rules: I) -> Self {
        rules.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for EgressRules {
    type Target = [EgressRule];

    fn deref(&self) -> &[EgressRule] {
        &self.rules
    }
}

impl EgressRules {
    /// Those that list `host`, in their order: a name by name, an address by prefix.
    pub(super) fn listing(&self, host: &Host) -> Vec<&EgressRule> {
        let Some(index) = &self.index else { return Vec::new() };
        match host {
            Host::Name(name) => {
                let above = std::iter::successors(parent(name.as_str()), |name| parent(name));
                let found = above.filter_map(|name| index.below.get(name)).chain(index.exact.get(name));
                let mut places: Places = found.flatten().copied().collect();
                places.sort_unstable();
                places.dedup();
                places.into_iter().filter_map(|place| self.rules.get(place as usize)).collect()
            }
            Host::Address(address) => {
                let listed = index.addresses.iter().filter_map(|&place| self.rules.get(place as usize));
                listed.filter(|rule| rule.cidrs.iter().any(|prefix| prefix.contains(address))).collect()
            }
        }
    }
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{RuleRef, egress::Protocol};

    fn rule(number: usize, (hosts, cidrs): (Vec<String>, Vec<String>)) -> EgressRule {
        EgressRule {
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            cidrs: cidrs.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            ports: vec![443],
            protocol: Protocol::Tcp,
            requests: Vec::new(),
            peer: None,
            rule: RuleRef::new(number.to_string()),
        }
    }

    /// Each rule asked by itself.
    fn lists(rule: &EgressRule, host: &Host) -> bool {
        match host {
            Host::Name(name) => rule.hosts.iter().any(|pattern| pattern.matches(name)),
            Host::Address(address) => rule.hosts.is_empty() && rule.cidrs.iter().any(|prefix| prefix.contains(address)),
        }
    }

    proptest! {
        /// The same rules, in the same order, as by asking one after another.
        #[test]
        fn the_index_finds_what_a_search_finds(
            rules in prop::collection::vec((prop::collection::vec("(\\*\\.)?([ab]\\.){0,3}[ab]", 0..4), prop::collection::vec("10\\.[0-3]\\.0\\.0/1[4-6]", 0..2)), 0..12),
            host in "(([ab]\\.){0,4}[ab])|10\\.[0-3]\\.0\\.1",
        ) {
            let rules: EgressRules = rules.into_iter().map(|(hosts, cidrs)| {
                // What the host bits are does not matter here.
                let cidrs = cidrs.iter().map(|prefix| prefix.parse::<ipnet::IpNet>().unwrap().trunc().to_string()).collect();
                (hosts, cidrs)
            }).enumerate().map(|(number, lists)| rule(number, lists)).collect();
            let host: Host = host.parse().unwrap();
            let searched: Vec<&EgressRule> = rules.iter().filter(|rule| lists(rule, &host)).collect();
            prop_assert_eq!(rules.listing(&host), searched);
        }
    }
}
