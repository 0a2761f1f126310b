//! The zones of one tenant in their order, and what a rule of theirs makes of an answer.

use std::{fmt, sync::Arc};

use ipnet::IpNet;

use super::{
    action::{Action, Override},
    name::Name,
    record::{Record, rtype},
    trigger::{self, Trigger},
    zone::{Match, MatchedOwner, Zone},
};
use crate::ratelimit::Mode;

/// Whose zone it is: what a client is told of a refusal depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The installation's.
    Platform,
    /// The tenant's own.
    Tenant,
}

/// A zone with what is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyZone {
    /// `metadata.name` of the PolicyZone.
    pub name: Arc<str>,
    pub zone: Zone,
    pub scope: Scope,
    pub r#override: Override,
    /// In shadow mode no rule of the zone acts; what would have, and how, is told.
    pub mode: Mode,
    /// Seconds, of what the zone puts into answers, at most. `None`: as its records say.
    pub max_ttl: Option<u32>,
}

impl PolicyZone {
    pub(super) fn acts(&self) -> bool {
        self.mode == Mode::Enforce && self.r#override != Override::Disabled
    }
}

/// All zones in order of precedence: the platform's, then the tenant's. Cloning shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy(Arc<[PolicyZone]>);

impl FromIterator<PolicyZone> for Policy {
    fn from_iter<I: IntoIterator<Item = PolicyZone>>(zones: I) -> Self {
        Self(zones.into_iter().collect())
    }
}

impl Policy {
    pub fn zones(&self) -> &[PolicyZone] {
        &self.0
    }
}

/// A rule that acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `metadata.name` of the PolicyZone. For the operator only: a client is told no rule.
    pub zone: Arc<str>,
    pub scope: Scope,
    pub trigger: Trigger,
    /// For the operator only.
    pub owner: RuleOwner,
    /// With the zone's override; as it came to act: PASSTHRU for TCP-Only over TCP.
    pub action: Action,
    /// What was asked for or led to, and met the rule.
    pub name: Name,
}

/// The owner of a rule, relative to its zone. Shown as it is written there: `*.example.com`, `32.1.2.0.192.rpz-ip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleOwner {
    Name(Trigger, Name),
    /// What stands below the name.
    Wildcard(Trigger, Name),
    Prefix(Trigger, IpNet),
}

impl fmt::Display for RuleOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trigger = match self {
            RuleOwner::Name(trigger, name) => {
                f.write_str(name.to_string().trim_end_matches('.'))?;
                trigger
            }
            RuleOwner::Wildcard(trigger, below) if below.is_root() => {
                f.write_str("*")?;
                trigger
            }
            RuleOwner::Wildcard(trigger, below) => {
                write!(f, "*.{}", below.to_string().trim_end_matches('.'))?;
                trigger
            }
            RuleOwner::Prefix(trigger, prefix) => {
                f.write_str(&trigger::encode(*prefix))?;
                trigger
            }
        };
        trigger.label().map_or(Ok(()), |label| write!(f, ".{label}"))
    }
}

impl Decision {
    /// The Extended DNS Error that tells a client of it (RFC 8914 §4.16 to §4.19): 18, Prohibited, for who it is; 15, Blocked, by the
    /// platform; 17, Filtered, by its own tenant. `None`: the answer is as it was, or none.
    pub fn extended_error(&self) -> Option<u16> {
        match (self.action, self.trigger, self.scope) {
            (Action::Passthru | Action::Drop | Action::TcpOnly, ..) => None,
            (_, Trigger::ClientIp, _) => Some(18),
            (.., Scope::Platform) => Some(15),
            (.., Scope::Tenant) => Some(17),
        }
    }
}

/// What to send in place of what upstream says, or would have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub decision: Decision,
    /// 0 (NOERROR), 3 (NXDOMAIN) or 6 (YXDOMAIN: the rule's own CNAME would be too long, as with a DNAME's, RFC 6672 §2.2).
    pub rcode: u8,
    /// Set TC, and come back over TCP.
    pub truncated: bool,
    /// The CNAMEs that led to the rule, then what the rule puts there.
    pub answer: Vec<Record>,
    /// Resolve this name for the type of the query, unfiltered, and append its answer; its RCODE is the answer's.
    ///
    /// No rule is asked about what a rule has made (draft-vixie-dnsop-dns-rpz-00 §6.1), as with BIND and PowerDNS.
    pub follow: Option<Name>,
    /// The zone's SOA record, for the additional section: it says which policy acted (draft-vixie-dnsop-dns-rpz-00 §6) and how long a
    /// negative answer holds.
    pub soa: Option<Record>,
}

const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;
const YXDOMAIN: u8 = 6;

/// A rule that matches, in its zone.
#[derive(Clone, Copy)]
pub(super) struct Hit<'p> {
    pub(super) zone: &'p PolicyZone,
    pub(super) trigger: Trigger,
    pub(super) matched: Match<'p>,
}

impl Hit<'_> {
    /// With the override.
    pub(super) fn action(&self) -> Action {
        match self.zone.r#override {
            Override::Given | Override::Disabled => self.matched.rule.action,
            Override::NxDomain => Action::NxDomain,
            Override::NoData => Action::NoData,
            Override::Passthru => Action::Passthru,
            Override::Drop => Action::Drop,
            Override::TcpOnly => Action::TcpOnly,
            Override::Cname(_) => Action::LocalData,
        }
    }

    /// `looked_up`: what the rule was found by, where that was a name; `name`: what is answered.
    pub(super) fn decision(&self, name: &Name, looked_up: &Name, action: Action) -> Decision {
        let owner = match self.matched.owner {
            MatchedOwner::Exact => RuleOwner::Name(self.trigger, looked_up.clone()),
            MatchedOwner::Wildcard(labels) => RuleOwner::Wildcard(self.trigger, looked_up.suffix(labels)),
            MatchedOwner::Prefix(prefix) => RuleOwner::Prefix(self.trigger, prefix),
        };
        Decision { zone: self.zone.name.clone(), scope: self.zone.scope, trigger: self.trigger, owner, action, name: name.clone() }
    }

    /// `led_here`: the CNAMEs from the query's name to the decision's. `of`: the query's type.
    pub(super) fn rewrite(&self, decision: Decision, led_here: Vec<Record>, of: u16) -> Rewrite {
        let soa = self.soa();
        let mut rewrite = Rewrite { decision, rcode: NOERROR, truncated: false, answer: led_here, follow: None, soa };
        match rewrite.decision.action {
            Action::NxDomain => rewrite.rcode = NXDOMAIN,
            Action::NoData | Action::Passthru | Action::Drop => {}
            Action::TcpOnly => {
                rewrite.truncated = true;
                rewrite.answer.clear();
            }
            Action::LocalData => self.local_data(&mut rewrite, of),
        }
        rewrite
    }

    fn local_data(&self, rewrite: &mut Rewrite, of: u16) {
        let owner = rewrite.decision.name.clone();
        let rule = self.matched.rule;
        if let Override::Cname(target) = &self.zone.r#override {
            return cname(rewrite, target, self.capped(rule.ttl), of);
        }
        for record in rule.records() {
            let ttl = self.capped(record.ttl);
            if record.rtype == rtype::CNAME {
                if let Some((target, _)) = Name::from_wire(record.rdata) {
                    cname(rewrite, &target, ttl, of);
                }
            } else if record.rtype == of || of == rtype::ANY {
                rewrite.answer.push(Record { owner: owner.clone(), rtype: record.rtype, ttl, rdata: record.rdata.to_vec() });
            }
        }
    }

    fn soa(&self) -> Option<Record> {
        let soa = self.zone.zone.soa()?;
        let ttl = self.capped(soa.ttl.min(soa.minimum));
        Some(Record { owner: self.zone.zone.origin().clone(), rtype: rtype::SOA, ttl, rdata: soa.rdata.clone() })
    }

    fn capped(&self, ttl: u32) -> u32 {
        ttl.min(self.zone.max_ttl.unwrap_or(ttl))
    }
}

/// A target `*.garden.example` stands for the whole name asked for, before `garden.example` (draft-vixie-dnsop-dns-rpz-00 §3.5).
fn cname(rewrite: &mut Rewrite, target: &Name, ttl: u32, of: u16) {
    let owner = &rewrite.decision.name;
    let target = match target.as_wire().starts_with(b"\x01*") {
        true => target.parent().and_then(|garden| owner.followed_by(&garden)),
        false => Some(target.clone()),
    };
    let Some(target) = target else {
        rewrite.rcode = YXDOMAIN;
        return;
    };
    rewrite.answer.push(Record { owner: owner.clone(), rtype: rtype::CNAME, ttl, rdata: target.as_wire().to_vec() });
    if !matches!(of, rtype::CNAME | rtype::ANY) {
        rewrite.follow = Some(target);
    }
}
