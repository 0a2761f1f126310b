//! One query through the policy: takes what is asked and what upstreams answer; yields what to send. Never resolves anything itself.
//!
//! ```text
//! Walk::new ─ filter_query ─┬─ Some(Act): send it; no upstream hears of the name
//!                           └─ None: resolve the query
//!                                ├─ filter_aliases, where an answer ends in a CNAME: Pass: resolve its target too
//!                                └─ filter_response ─┬─ Pass, Act, Unanswered: send it
//!                                                    └─ Ask: resolve that, filter_lookup, and so on
//! ```
//!
//! Precedence, as in BIND with `qname-wait-recurse no`: an earlier name of the CNAME chain comes before a later one; for one name an earlier
//! zone before a later one; within a zone CLIENT-IP, QNAME, IP, NSDNAME, NSIP; within a trigger the exact name, the longest wildcard, the
//! longest prefix, the smallest address. One rule acts. PASSTHRU is one: behind it no rule is asked, for this name or those it leads to.
//!
//! So a rule for the query's name or client needs no upstream, unless an earlier zone has rules that need the answer of just such a query: IP
//! rules for the family of addresses that the type asks for, or rules about name servers. A zone list keeps refused names inside, if zones
//! with such rules stand last.

use std::{collections::HashMap, net::IpAddr};

use super::{
    action::{Action, Override},
    name::Name,
    policy::{Decision, Hit, Policy, PolicyZone, Rewrite},
    record::{Record, rtype},
    trigger::Trigger,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

#[derive(Clone, Debug)]
pub struct Query {
    pub name: Name,
    pub rtype: u16,
    pub client: IpAddr,
    pub transport: Transport,
}

/// What a rule has made of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Answer(Box<Rewrite>),
    /// Send nothing.
    Drop(Box<Decision>),
}

/// What becomes of an upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be sent: exactly the records that were shown here. With the rule that said so, if one did.
    Pass(Option<Box<Decision>>),
    Act(Act),
    /// Rules about name servers need to know this first; see [`Walk::filter_lookup`].
    Ask(Lookup),
    /// There is no answer: SERVFAIL. The upstream failed, or its CNAMEs lead too far or in a circle.
    Unanswered,
}

/// To be resolved, unfiltered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    pub name: Name,
    /// NS, A or AAAA.
    pub rtype: u16,
}

/// Names of one CNAME chain.
const MAX_NAMES: usize = 17;
/// Lookups about name servers for one query.
const MAX_LOOKUPS: usize = 64;

/// One query on its way.
pub struct Walk<'p> {
    policy: &'p Policy,
    query: Query,
    /// The rule for the query's name or client, and the place of its zone: earlier zones may still have a better one.
    pending: Option<(usize, Hit<'p>)>,
    /// PASSTHRU, and no earlier zone may have a better rule.
    passed: Option<Verdict>,
    /// The first that would have acted, of zones in shadow mode.
    shadow: Option<Decision>,
    /// The same of disabled zones, told where `shadow` is empty.
    disabled: Option<Decision>,
    /// What the answer's CNAMEs lead to, without the query's own name, and those records.
    hops: Vec<(Name, Record)>,
    /// Nobody has been asked yet about what the last of them leads to.
    is_open: bool,
    addresses: Vec<IpAddr>,
    lookups: HashMap<Lookup, Vec<Record>>,
}

impl<'p> Walk<'p> {
    pub fn new(policy: &'p Policy, query: Query) -> Self {
        let (pending, passed, shadow, disabled) = (None, None, None, None);
        let (hops, addresses, lookups) = Default::default();
        Self { policy, query, pending, passed, shadow, disabled, hops, is_open: false, addresses, lookups }
    }

    pub fn policy(&self) -> &'p Policy {
        self.policy
    }

    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The first rule that would have acted, were its zone not in shadow mode; else the first that would have, were its zone not disabled.
    pub fn shadow(&self) -> Option<&Decision> {
        self.shadow.as_ref().or(self.disabled.as_ref())
    }

    /// Whether no rule has been met yet that acts, or that waits for what comes before it: what [`Walk::filter_response`] says is then the
    /// same for every client and transport.
    pub fn is_undecided(&self) -> bool {
        self.pending.is_none() && self.passed.is_none()
    }

    /// Whether what has been said so far follows from the query and its answer alone: nothing else was looked up, and no zone that does
    /// not act has a rule that is to be told of.
    pub fn is_plain(&self) -> bool {
        self.lookups.is_empty() && self.shadow().is_none()
    }

    /// Before anything is asked upstream. `None`: the query is to be resolved.
    pub fn filter_query(&mut self) -> Option<Act> {
        let mut earlier_need_answer = false;
        for (place, zone) in self.policy.zones().iter().enumerate() {
            let by_client = || zone.zone.by_address(Trigger::ClientIp, &[self.query.client]).map(|matched| (Trigger::ClientIp, matched));
            let by_name = || zone.zone.by_name(Trigger::Qname, &self.query.name).map(|matched| (Trigger::Qname, matched));
            if let Some((trigger, matched)) = by_client().or_else(by_name) {
                let hit = Hit { zone, trigger, matched };
                if zone.acts() {
                    self.pending = Some((place, hit));
                    break;
                }
                let decision = hit.decision(&self.query.name, &self.query.name, self.action(&hit));
                self.would_act(zone, decision);
            }
            earlier_need_answer |= zone.acts() && needs_answer(zone, self.query.rtype);
        }
        let (_, hit) = self.pending.filter(|_| !earlier_need_answer)?;
        match self.act(&hit, &self.query.name, &self.query.name, 0) {
            Verdict::Act(act) => Some(act),
            verdict => {
                self.passed = Some(verdict);
                None
            }
        }
    }

    /// The CNAMEs so far, the last of which leads to a name that nobody has been asked about. [`Verdict::Pass`]: it is to be resolved, and
    /// [`Walk::filter_response`] gets to see all that there is then.
    pub fn filter_aliases(&mut self, aliases: &[Record]) -> Verdict {
        self.filter(aliases, true)
    }

    /// What the upstream says to the query. `answer`: its answer section. Another RCODE than NOERROR and NXDOMAIN is no answer.
    pub fn filter_response(&mut self, rcode: u8, answer: &[Record]) -> Verdict {
        if !matches!(rcode, 0 | 3) {
            return Verdict::Unanswered;
        }
        self.filter(answer, false)
    }

    fn filter(&mut self, answer: &[Record], is_open: bool) -> Verdict {
        if let Some(passed) = &self.passed {
            return passed.clone();
        }
        if self.policy.zones().is_empty() {
            return Verdict::Pass(None);
        }
        if !self.follow_cnames(answer) {
            return Verdict::Unanswered;
        }
        self.is_open = is_open;
        // Whoever's they claim to be: whatever is sent has been looked at.
        self.addresses.clear();
        answer.iter().for_each(|record| record.addresses(|address| self.addresses.push(address)));
        self.judge()
    }

    /// The answer section of what [`Verdict::Ask`] asked for; empty if there is no such name or record. `None`: it could not be resolved.
    pub fn filter_lookup(&mut self, lookup: Lookup, answer: Option<Vec<Record>>) -> Verdict {
        match answer {
            Some(answer) if self.lookups.len() < MAX_LOOKUPS => {
                self.lookups.insert(lookup, answer);
                self.judge()
            }
            _ => Verdict::Unanswered,
        }
    }

    fn follow_cnames(&mut self, answer: &[Record]) -> bool {
        self.hops.clear();
        if matches!(self.query.rtype, rtype::CNAME | rtype::ANY) {
            return true;
        }
        loop {
            let at = self.hops.last().map_or(&self.query.name, |(name, _)| name);
            let Some(record) = answer.iter().find(|record| record.rtype == rtype::CNAME && record.owner == *at) else { return true };
            let Some(target) = record.target() else { return false };
            if self.hops.len() + 1 == MAX_NAMES || target == self.query.name || self.hops.iter().any(|(name, _)| *name == target) {
                return false;
            }
            self.hops.push((target, record.clone()));
        }
    }

    /// Decides with what is known so far.
    fn judge(&mut self) -> Verdict {
        for hop in 0..=self.hops.len() {
            let name = self.name(hop).clone();
            match self.rule_at(hop, &name) {
                Err(lookup) => return Verdict::Ask(lookup),
                Ok(None) => {}
                Ok(Some((hit, looked_up))) => {
                    let verdict = self.act(&hit, &name, &looked_up, hop);
                    if matches!(verdict, Verdict::Pass(_)) {
                        self.passed = Some(verdict.clone());
                    }
                    return verdict;
                }
            }
        }
        Verdict::Pass(None)
    }

    fn name(&self, hop: usize) -> &Name {
        hop.checked_sub(1).and_then(|index| self.hops.get(index)).map_or(&self.query.name, |(name, _)| name)
    }

    /// The rule for one name of the chain, and the name that it was found by.
    fn rule_at(&mut self, hop: usize, name: &Name) -> Result<Option<(Hit<'p>, Name)>, Lookup> {
        let policy = self.policy;
        let is_last = hop == self.hops.len();
        for (place, zone) in policy.zones().iter().enumerate() {
            if hop == 0
                && let Some((pending, hit)) = self.pending
                && pending == place
            {
                return Ok(Some((hit, name.clone())));
            }
            // `filter_query` has asked about the first name.
            let by_name = || {
                zone.zone.by_name(Trigger::Qname, name).filter(|_| hop > 0).map(|matched| Hit { zone, trigger: Trigger::Qname, matched })
            };
            let by_address = || {
                let matched = zone.zone.by_address(Trigger::Ip, &self.addresses).filter(|_| is_last)?;
                Some(Hit { zone, trigger: Trigger::Ip, matched })
            };
            let found = match by_name().or_else(by_address) {
                Some(hit) => Some((hit, name.clone())),
                None if is_last && self.is_open => match needs_answer(zone, self.query.rtype) && zone.acts() {
                    true => return Ok(None),
                    false => None,
                },
                None => self.by_name_server(zone, name)?,
            };
            let Some((hit, looked_up)) = found else { continue };
            if zone.acts() {
                return Ok(Some((hit, looked_up)));
            }
            self.would_act(zone, hit.decision(name, &looked_up, self.action(&hit)));
        }
        Ok(None)
    }

    /// NSDNAME and NSIP rules: about the servers of the zone that the name lies in, and of each above it but the root.
    fn by_name_server(&self, zone: &'p PolicyZone, name: &Name) -> Result<Option<(Hit<'p>, Name)>, Lookup> {
        if zone.zone.rule_count(Trigger::NsDname) > 0 {
            for labels in (1..=name.label_count()).rev() {
                let servers = self.servers(name.suffix(labels))?;
                let found = servers.into_iter().filter_map(|server| Some((zone.zone.by_name(Trigger::NsDname, &server)?, server)));
                if let Some((matched, server)) = found.min_by(|(_, a), (_, b)| a.cmp(b)) {
                    return Ok(Some((Hit { zone, trigger: Trigger::NsDname, matched }, server)));
                }
            }
        }
        if zone.zone.rule_count(Trigger::NsIp) > 0 {
            for labels in (1..=name.label_count()).rev() {
                let mut addresses = Vec::new();
                for server in self.servers(name.suffix(labels))? {
                    for rtype in [rtype::A, rtype::AAAA] {
                        let answer = self.looked_up(Lookup { name: server.clone(), rtype })?;
                        answer.iter().for_each(|record| record.addresses(|address| addresses.push(address)));
                    }
                }
                if let Some(matched) = zone.zone.by_address(Trigger::NsIp, &addresses) {
                    return Ok(Some((Hit { zone, trigger: Trigger::NsIp, matched }, name.clone())));
                }
            }
        }
        Ok(None)
    }

    fn servers(&self, of: Name) -> Result<Vec<Name>, Lookup> {
        let answer = self.looked_up(Lookup { name: of.clone(), rtype: rtype::NS })?;
        Ok(answer.iter().filter(|record| record.rtype == rtype::NS && record.owner == of).filter_map(Record::target).collect())
    }

    fn looked_up(&self, lookup: Lookup) -> Result<&[Record], Lookup> {
        self.lookups.get(&lookup).map(Vec::as_slice).ok_or(lookup)
    }

    fn would_act(&mut self, zone: &PolicyZone, decision: Decision) {
        let first = if zone.r#override == Override::Disabled { &mut self.disabled } else { &mut self.shadow };
        first.get_or_insert(decision);
    }

    fn action(&self, hit: &Hit<'p>) -> Action {
        match hit.action() {
            Action::TcpOnly if self.query.transport == Transport::Tcp => Action::Passthru,
            action => action,
        }
    }

    /// What a rule makes of the name at `hop`.
    fn act(&self, hit: &Hit<'p>, name: &Name, looked_up: &Name, hop: usize) -> Verdict {
        let action = self.action(hit);
        let decision = hit.decision(name, looked_up, action);
        match action {
            Action::Passthru => Verdict::Pass(Some(Box::new(decision))),
            Action::Drop => Verdict::Act(Act::Drop(Box::new(decision))),
            _ => {
                let led_here = self.hops[..hop].iter().map(|(_, record)| record.clone()).collect();
                Verdict::Act(Act::Answer(Box::new(hit.rewrite(decision, led_here, self.query.rtype))))
            }
        }
    }
}

/// Whether the zone has rules that need to see what upstream answers to a query of this type.
fn needs_answer(zone: &PolicyZone, of: u16) -> bool {
    let by_server = zone.zone.rule_count(Trigger::NsDname) > 0 || zone.zone.rule_count(Trigger::NsIp) > 0;
    by_server || zone.zone.looks_into_answers_of(of)
}
