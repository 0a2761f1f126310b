//! What a workload's DNS queries cost: limits on how many there are, and on how much can be said and heard in them.
//!
//! A name that nobody has asked for before reaches the servers of its domain, whatever it leads to: whoever runs them reads it, and answers
//! with as much. Policy zones stop the domains that are known for it; a budget stops the others. No counters here: cells live in the
//! sidecar's limiter and survive a push.
//!
//! | `count` | charged | one cell is |
//! |---|---|---|
//! | `queries` | at once, also where the answer is known | a query |
//! | `names` | before an upstream is asked for a name that was not asked for lately | a name |
//! | `entropy` | likewise | an octet of what the labels below the domain can say ([`entropy`]) |
//! | `txt` | when the answer is told, the first time | an octet of its free-form records |
//!
//! A domain is the last two labels: whom `example.com`, `cluster.local`, `in-addr.arpa` belong to. Where a registry sells the third
//! (`co.uk`) or a provider gives it away, many owners share one count: too strict, never too lax. (The Public Suffix List would tell them
//! apart; it is three quarters of a megabyte of text in each sidecar.) Whoever has many domains at hand gets as many counts by domain: only
//! one by tenant bounds that. What no limit here sees is said without new names: by the order and the time of questions for known ones.
//! Addresses and CNAME chains are left alone: a chain holds sixteen names at most.

mod entropy;

use std::sync::Arc;

use crate::{
    Reason, RuleRef,
    ratelimit::{Mode, Quota},
    rpz::rtype,
};

pub use entropy::entropy;

/// One entry of a `dns.limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    pub count: Count,
    pub key: Key,
    pub quota: Quota,
    pub mode: Mode,
    /// The identity of its cells across pushes.
    pub rule: RuleRef,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    Queries,
    Names,
    /// Octets.
    Entropy,
    /// Octets.
    Txt,
}

/// What has a count of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// All queries of the tenant, or of the shared workload.
    Tenant,
    Domain,
}

impl Count {
    pub const ALL: [Count; 4] = [Count::Queries, Count::Names, Count::Entropy, Count::Txt];

    pub const fn as_str(self) -> &'static str {
        match self {
            Count::Queries => "queries",
            Count::Names => "names",
            Count::Entropy => "entropy",
            Count::Txt => "txt",
        }
    }
}

impl Limit {
    /// Why it refuses.
    pub const fn reason(&self) -> Reason {
        match self.count {
            Count::Queries => Reason::RateLimited,
            Count::Names | Count::Entropy | Count::Txt => Reason::DnsBudgetSpent,
        }
    }
}

/// The limits of one workload's queries: the platform's, then its tenant's, or its own where it is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget(Vec<Arc<Limit>>);

impl FromIterator<Arc<Limit>> for Budget {
    fn from_iter<I: IntoIterator<Item = Arc<Limit>>>(limits: I) -> Self {
        Self(limits.into_iter().collect())
    }
}

/// Cells to take from a limit. None: it must only not be in debt.
pub type Charge<'b> = (&'b Limit, u32);

impl Budget {
    pub fn limits(&self) -> &[Arc<Limit>] {
        &self.0
    }

    /// Of every well-formed query.
    pub fn at_once(&self) -> impl Iterator<Item = Charge<'_>> {
        self.counting(|count| (count == Count::Queries).then_some(1))
    }

    /// Of a query that upstreams are to be asked. `is_fresh`: it was not asked lately.
    pub fn to_ask(&self, question: &Question<'_>, is_fresh: bool) -> impl Iterator<Item = Charge<'_>> {
        let (entropy, may_bring_free_form) = (entropy(question.below), question.may_bring_free_form());
        self.counting(move |count| match count {
            Count::Names if is_fresh => Some(1),
            Count::Entropy if is_fresh && entropy > 0 => Some(entropy),
            Count::Txt if may_bring_free_form => Some(0),
            _ => None,
        })
    }

    /// Of an answer with so many octets of free-form records.
    pub fn to_tell(&self, octets: u32) -> impl Iterator<Item = Charge<'_>> {
        self.counting(move |count| (count == Count::Txt).then_some(octets))
    }

    fn counting(&self, cost: impl Fn(Count) -> Option<u32>) -> impl Iterator<Item = Charge<'_>> {
        self.0.iter().filter_map(move |limit| Some((&**limit, cost(limit.count)?)))
    }
}

/// A question, as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    name: &'q [u8],
    /// The labels below the domain, in wire form without a root.
    below: &'q [u8],
    domain: &'q [u8],
    rtype: u16,
    dnssec_ok: bool,
}

impl<'q> Question<'q> {
    /// `name`: in wire form and lower case.
    pub fn new(name: &'q [u8], rtype: u16, dnssec_ok: bool) -> Self {
        let (below, domain) = name.split_at(domain(name));
        Self { name, below, domain, rtype, dnssec_ok }
    }

    /// Whose servers hear it: in wire form.
    pub fn domain(&self) -> &'q [u8] {
        self.domain
    }

    /// What makes it another question than those before: the name. The types that programs ask for side by side are one; each of the other
    /// sixty-five thousand could stand for two octets of something else, and makes the name new.
    pub fn identity(&self) -> (&'q [u8], u16) {
        let is_usual = USUAL.contains(&self.rtype);
        (self.name, if is_usual { 0 } else { self.rtype })
    }

    /// Whether an answer may have records that are counted. With DO set any may, for signatures are such.
    fn may_bring_free_form(&self) -> bool {
        self.dnssec_ok || is_free_form(self.rtype)
    }
}

/// Asked for of one name by one program: A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, SVCB, HTTPS.
const USUAL: [u16; 11] = [rtype::A, rtype::NS, rtype::CNAME, 6, 12, 15, 16, rtype::AAAA, 33, rtype::SVCB, rtype::HTTPS];

/// Whether an answer may have any number of records of the type that hold whatever their owner likes, were it in names (MX, SRV, PTR, NS):
/// all but addresses (A, AAAA), and what an owner has one of (CNAME, DNAME, SOA).
pub const fn is_free_form(rtype: u16) -> bool {
    !matches!(rtype, rtype::A | rtype::AAAA | rtype::CNAME | 6 | 39)
}

/// Where the domain begins in a name in wire form.
fn domain(name: &[u8]) -> usize {
    let (mut last, mut before, mut at) = (0, 0, 0);
    while let Some(&length) = name.get(at).filter(|length| **length != 0) {
        (before, last) = (last, at);
        at += usize::from(length) + 1;
    }
    before.min(last)
}

#[cfg(test)]
mod tests;
