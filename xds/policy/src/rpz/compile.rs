//! Records of a policy zone into the bytes that a [`Zone`](super::Zone) opens.

use std::collections::{BTreeMap, btree_map::Entry};

use aws_lc_rs::digest;

use super::{
    Fault, Trigger,
    action::Action,
    index::{Code, NOTHING, names, prefixes, rules},
    name::Name,
    record::{Record, is_sound, rtype},
    trigger::{self, Pattern},
    zone::{self, Header, SECTIONS, Soa},
};

/// Faults that are kept word for word; of the rest, the number is.
const MAX_FAULTS: usize = 100;
/// Records of one rule: what an answer can hold.
const MAX_RECORDS: usize = 1000;

/// Records of a zone, at most: twice what the largest compiled zone holds. Each takes some hundred octets until they are compiled.
const MAX_RULES: usize = 12_000_000;

/// Collects the rules of a zone, in any order.
pub struct Compiler {
    origin: Name,
    soa: Option<Soa>,
    rules: Vec<RawRule>,
    /// Their keys, one after the other.
    keys: Vec<u8>,
    local: Vec<(u16, u32, Box<[u8]>)>,
    outcome: Outcome,
}

/// What compiling has told besides the zone.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Records that became rules, with those that say what another has said.
    pub used: u32,
    /// Records that are no rules and no faults: SOA and NS of the zone itself, DNAME, DNSSEC.
    pub ignored: u32,
    pub faults: Vec<Fault>,
    /// Besides those in `faults`.
    pub more_faults: u32,
}

impl Outcome {
    pub(super) fn fault(&mut self, fault: Fault) {
        if self.faults.len() < MAX_FAULTS { self.faults.push(fault) } else { self.more_faults += 1 }
    }
}

/// One record, to be sorted by `space`, key and then by its number, which is its place in the zone.
struct RawRule {
    /// The key's first octets, for comparing.
    head: u64,
    start: u32,
    number: u32,
    line: u32,
    what: What,
    length: u8,
    space: Space,
    wildcard: bool,
}

/// Which index a rule goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Names(Trigger),
    V4(Trigger),
    V6(Trigger),
}

#[derive(Clone, Copy)]
enum What {
    Simple(Action, u32),
    /// Place in `local`.
    Local(u32),
}

impl Compiler {
    /// `origin`: the zone's name, which the owners of its rules end in.
    pub fn new(origin: Name) -> Self {
        Self { origin, soa: None, rules: Vec::new(), keys: Vec::new(), local: Vec::new(), outcome: Outcome::default() }
    }

    pub(super) fn outcome(&mut self) -> &mut Outcome {
        &mut self.outcome
    }

    /// Whether there are so many rules that no further one is taken.
    pub fn is_full(&self) -> bool {
        self.rules.len() >= MAX_RULES
    }

    /// Takes a record; what is wrong with it is noted. `line`: where it stands, for telling.
    pub fn add(&mut self, record: &Record, line: u32) {
        if let Err(message) = self.try_add(record, line) {
            self.outcome.fault(Fault { line, owner: Some(record.owner.to_string()), message, fatal: false });
        }
    }

    fn try_add(&mut self, record: &Record, line: u32) -> Result<(), String> {
        let Some(owner) = record.owner.before(&self.origin).map(<[u8]>::to_vec) else {
            return Err(format!("is outside of the zone {}", self.origin));
        };
        if owner.is_empty() && record.rtype == rtype::SOA && self.soa.is_none() {
            self.soa = Some(Soa::of(record).ok_or("is no SOA record")?);
        }
        if is_ignored(record.rtype, owner.is_empty()) {
            self.outcome.ignored += 1;
            return Ok(());
        }
        if owner.is_empty() {
            return Err("a rule's owner must stand below the zone's origin".to_owned());
        }
        let (trigger, pattern) = trigger::parse(&owner).map_err(|error| error.to_string())?;
        let what = self.what(record, &owner, trigger)?;
        self.push(trigger, &pattern, what, line)?;
        self.outcome.used += 1;
        Ok(())
    }

    fn what(&mut self, record: &Record, owner: &[u8], trigger: Trigger) -> Result<What, String> {
        if record.rtype == rtype::CNAME {
            let target = record.target().ok_or("is no CNAME record")?;
            let about = trigger.label().map_or(owner, |label| &owner[..owner.len() - label.len() - 1]);
            let action = match Action::of_target(&target) {
                // The old spelling of PASSTHRU: a CNAME to what the rule is about.
                Some(Action::LocalData) if target.before(&Name::root()) == Some(about) => Some(Action::Passthru),
                action => action,
            };
            match action {
                None => {
                    return Err(format!("`CNAME {target}` is no action; known are ., *., rpz-passthru., rpz-drop. and rpz-tcp-only."));
                }
                Some(Action::LocalData) => {}
                Some(action) => return Ok(What::Simple(action, record.ttl)),
            }
        }
        if !is_sound(record.rtype, &record.rdata) {
            return Err("has data that are not of its type, or more than 65535 octets".to_owned());
        }
        if rules::octets(record.rdata.len()) > rules::MAX_OCTETS {
            return Err(TOO_MUCH.to_owned());
        }
        let at = u32::try_from(self.local.len()).map_err(|_| "is one record too many")?;
        self.local.push((record.rtype, record.ttl, record.rdata.as_slice().into()));
        Ok(What::Local(at))
    }

    fn push(&mut self, trigger: Trigger, pattern: &Pattern, what: What, line: u32) -> Result<(), String> {
        let too_many = "is one record too many";
        if self.is_full() {
            return Err(too_many.to_owned());
        }
        let start = u32::try_from(self.keys.len()).map_err(|_| too_many)?;
        let number = u32::try_from(self.rules.len()).map_err(|_| too_many)?;
        let (space, wildcard) = match pattern {
            Pattern::Name { key, wildcard } => {
                self.keys.extend(key.as_bytes());
                (Space::Names(trigger), *wildcard)
            }
            Pattern::Prefix(ipnet::IpNet::V4(net)) => {
                self.keys.extend(net.addr().octets());
                self.keys.push(net.prefix_len());
                (Space::V4(trigger), false)
            }
            Pattern::Prefix(ipnet::IpNet::V6(net)) => {
                self.keys.extend(net.addr().octets());
                self.keys.push(net.prefix_len());
                (Space::V6(trigger), false)
            }
        };
        let key = &self.keys[start as usize..];
        let mut head = [0; 8];
        let shown = key.len().min(8);
        head[..shown].copy_from_slice(&key[..shown]);
        let head = u64::from_be_bytes(head);
        self.rules.push(RawRule { head, start, number, line, what, length: key.len() as u8, space, wildcard });
        Ok(())
    }

    /// The compiled zone. The same rules make the same bytes.
    pub fn finish(mut self) -> (Vec<u8>, Outcome) {
        let keys = std::mem::take(&mut self.keys);
        let mut sorted = std::mem::take(&mut self.rules);
        let key = |rule: &RawRule| &keys[rule.start as usize..][..usize::from(rule.length)];
        sorted.sort_unstable_by(|a, b| {
            let by_key = || a.head.cmp(&b.head).then_with(|| key(a).cmp(key(b)));
            a.space.cmp(&b.space).then_with(by_key).then_with(|| (a.wildcard, a.number).cmp(&(b.wildcard, b.number)))
        });

        let usual_ttl = usual_ttl(&sorted);
        let mut table = rules::Builder::default();
        let mut indexes: [names::Builder; 2] = Default::default();
        let mut addresses: [[Vec<prefixes::Row>; 3]; 2] = Default::default();
        // The wildcard of a name follows the name itself.
        let mut exact: Option<(Space, &[u8], Code)> = None;
        for group in sorted.chunk_by(|a, b| a.space == b.space && a.wildcard == b.wildcard && key(a) == key(b)) {
            let Some(first) = group.first() else { continue };
            let code = self.merge(group, usual_ttl, &mut table);
            let key = key(first);
            let mut flush = |entry: Option<(Space, &[u8], Code)>, wildcard: Code| {
                if let Some((Space::Names(trigger), key, exact)) = entry {
                    indexes[usize::from(trigger != Trigger::Qname)].push(key, exact, wildcard);
                }
            };
            match first.space {
                Space::Names(_) if first.wildcard => {
                    let same = exact.take_if(|(space, name, _)| *space == first.space && *name == key);
                    flush(exact.take(), NOTHING);
                    flush(Some(same.unwrap_or((first.space, key, NOTHING))), code);
                }
                Space::Names(_) => flush(exact.replace((first.space, key, code)), NOTHING),
                Space::V4(trigger) | Space::V6(trigger) => {
                    let (length, address) = key.split_last().map_or((0, key), |(length, address)| (*length, address));
                    let address = address.iter().fold(0, |all, octet| all << 8 | u128::from(*octet));
                    addresses[usize::from(matches!(first.space, Space::V6(_)))][address_slot(trigger)].push(prefixes::Row {
                        address,
                        length,
                        code,
                    });
                }
            }
        }
        if let Some((Space::Names(trigger), key, code)) = exact {
            indexes[usize::from(trigger != Trigger::Qname)].push(key, code, NOTHING);
        }

        let [qname, nsdname] = indexes;
        let [v4, v6] = addresses;
        let [v4a, v4b, v4c] = v4.map(prefixes::build::<4>);
        let [v6a, v6b, v6c] = v6.map(prefixes::build::<16>);
        let sections: [Vec<u8>; SECTIONS] =
            [qname.entries, qname.blocks, nsdname.entries, nsdname.blocks, v4a, v4b, v4c, v6a, v6b, v6c, table.rows, table.offsets];
        let header = Header { origin: self.origin, soa: self.soa, usual_ttl };
        let bytes = zone::write(&header, &sections, |bytes| digest::digest(&digest::SHA256, bytes));
        (bytes, self.outcome)
    }

    /// One rule of all records of one trigger. The first decides what it does; another kind of action is a fault.
    fn merge(&mut self, group: &[RawRule], usual_ttl: u32, table: &mut rules::Builder) -> Code {
        let Some((first, others)) = group.split_first() else { return NOTHING };
        match first.what {
            What::Simple(action, ttl) => {
                for other in others {
                    if !matches!(other.what, What::Simple(same, _) if same == action) {
                        self.leave_out(other, conflict(first));
                    }
                }
                if ttl == usual_ttl { rules::code(action) } else { table.push(action, ttl, std::iter::empty()) }
            }
            What::Local(at) => self.merge_local(group, at as usize, table),
        }
    }

    /// `first`: of the group, its place in `local`.
    fn merge_local(&mut self, group: &[RawRule], first: usize, table: &mut rules::Builder) -> Code {
        let (mut kept, mut octets) = (BTreeMap::new(), 0);
        let mut left_out = Vec::new();
        let (first_rtype, _, first_rdata) = &self.local[first];
        for rule in group {
            let What::Local(at) = rule.what else {
                left_out.push((rule, conflict(&group[0])));
                continue;
            };
            let (rtype, ttl, rdata) = &self.local[at as usize];
            let says_the_same = (rtype, rdata) == (first_rtype, first_rdata);
            // A CNAME has no company (RFC 1034 §3.6.2).
            if !says_the_same && (*rtype == rtype::CNAME || *first_rtype == rtype::CNAME) {
                left_out.push((rule, conflict(&group[0])));
            } else if kept.len() == MAX_RECORDS {
                left_out.push((rule, format!("is one record too many: a rule has at most {MAX_RECORDS}")));
            } else if let Entry::Vacant(entry) = kept.entry((*rtype, &**rdata)) {
                octets += rules::octets(rdata.len());
                if octets > rules::MAX_OCTETS {
                    left_out.push((rule, TOO_MUCH.to_owned()));
                    octets -= rules::octets(rdata.len());
                } else {
                    entry.insert(*ttl);
                }
            }
        }
        let ttl = kept.values().min().copied().unwrap_or_default();
        let records = kept.iter().map(|((rtype, rdata), ttl)| rules::LocalRecord { rtype: *rtype, ttl: *ttl, rdata });
        let code = table.push(Action::LocalData, ttl, records);
        for (rule, message) in left_out {
            self.leave_out(rule, message);
        }
        code
    }

    fn leave_out(&mut self, rule: &RawRule, message: String) {
        self.outcome.used -= 1;
        self.outcome.fault(Fault { line: rule.line, owner: None, message, fatal: false });
    }
}

const TOO_MUCH: &str = "is more than an answer has room for, with the other records of its rule";

fn conflict(first: &RawRule) -> String {
    format!("does not go with line {}, which has the same trigger and stays", first.line)
}

/// The place of an address trigger among its kind.
pub(super) fn address_slot(trigger: Trigger) -> usize {
    match trigger {
        Trigger::ClientIp => 0,
        Trigger::Ip | Trigger::Qname => 1,
        Trigger::NsIp | Trigger::NsDname => 2,
    }
}

/// Records that are in every zone or that cannot be rules (draft-vixie-dnsop-dns-rpz-00 §3.6).
fn is_ignored(of: u16, at_apex: bool) -> bool {
    use rtype::{CDNSKEY, CDS, DNAME, DNSKEY, DS, KEY, NS, NSEC, NSEC3, NSEC3PARAM, NXT, RRSIG, SIG, SOA, ZONEMD};
    match of {
        NS => at_apex,
        SOA | DNAME | DS | RRSIG | NSEC | DNSKEY | NSEC3 | NSEC3PARAM | CDS | CDNSKEY | KEY | SIG | NXT | ZONEMD => true,
        _ => false,
    }
}

/// The TTL of most of the simple actions; of equally many, the smallest.
fn usual_ttl(rules: &[RawRule]) -> u32 {
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for rule in rules {
        if let What::Simple(_, ttl) = rule.what {
            *counts.entry(ttl).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(ttl, count)| (*count, std::cmp::Reverse(*ttl))).map_or(0, |(ttl, _)| ttl)
}
