//! A compiled zone: bytes that the control plane made once, and that every sidecar reads in place.
//!
//! ```text
//! 0    magic "RFRPZ\0", format u16
//! 8    SHA-256 of all that follows
//! 40   usual TTL of simple actions u32, serial u32, TTL of the SOA record u32
//! 52   length of the SOA record's data u16 (0: the zone had none), length of the origin u8, 0 u8
//! 56   SECTIONS times: offset u32, length u32
//! 152  the origin, the SOA record's data, the sections, without gaps
//! ```
//!
//! Numbers are little-endian. The bytes are checked whole when they are opened, as if an enemy had made them: the checksum tells damage, and
//! not who wrote it.

use std::{fmt, net::IpAddr};

use bytes::Bytes;
use ipnet::IpNet;

use super::{
    Trigger,
    compile::address_slot,
    index::{
        Code, IndexError,
        names::{Names, Summary},
        prefixes::{Prefixes, Row},
        rules::{Rule, Rules},
        u16_at, u32_at,
    },
    name::Name,
    record::{Record, rtype},
    trigger::{canonical, net, specificity},
};

const MAGIC: &[u8; 6] = b"RFRPZ\0";
/// Changes whenever bytes of before would be read otherwise.
const FORMAT: u16 = 1;
const CHECKSUM: std::ops::Range<usize> = 8..40;
/// QNAME entries and blocks, NSDNAME entries and blocks, IPv4 prefixes (CLIENT-IP, IP, NSIP), IPv6 prefixes, rows and offsets of the rule table.
pub(super) const SECTIONS: usize = 12;
const HEADER: usize = 56 + 8 * SECTIONS;

/// What stands in the header.
pub(super) struct Header {
    pub(super) origin: Name,
    pub(super) soa: Option<Soa>,
    pub(super) usual_ttl: u32,
}

/// The zone's own SOA record.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Soa {
    pub(super) ttl: u32,
    pub(super) rdata: Vec<u8>,
    serial: u32,
    /// What negative answers may be kept for (RFC 2308 §4).
    pub(super) minimum: u32,
}

impl Soa {
    pub(super) fn of(record: &Record) -> Option<Self> {
        Self::new(record.ttl, &record.rdata)
    }

    fn new(ttl: u32, rdata: &[u8]) -> Option<Self> {
        let (_, primary) = Name::from_wire(rdata)?;
        let (_, mailbox) = Name::from_wire(rdata.get(primary..)?)?;
        let numbers: &[u8; 20] = rdata.get(primary + mailbox..)?.try_into().ok()?;
        let [serial, .., minimum] = numbers.as_chunks::<4>().0 else { return None };
        Some(Self { ttl, rdata: rdata.to_vec(), serial: u32::from_be_bytes(*serial), minimum: u32::from_be_bytes(*minimum) })
    }
}

/// Why bytes are no compiled zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    #[error("is no compiled policy zone")]
    Magic,
    #[error("is of format {0}; this version reads format {FORMAT}")]
    Format(u16),
    #[error("is damaged: the checksum is another")]
    Checksum,
    #[error("the header is cut off or contradicts itself")]
    Header,
    #[error("{section}: {error}")]
    Section { section: &'static str, error: IndexError },
}

pub(super) fn write<D: AsRef<[u8]>>(header: &Header, sections: &[Vec<u8>; SECTIONS], digest: impl Fn(&[u8]) -> D) -> Vec<u8> {
    let (origin, soa) = (header.origin.as_wire(), header.soa.as_ref());
    let soa_rdata = soa.map_or(&[][..], |soa| &soa.rdata);
    let mut bytes = Vec::with_capacity(HEADER + origin.len() + soa_rdata.len() + sections.iter().map(Vec::len).sum::<usize>());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend([0; 32]);
    bytes.extend(header.usual_ttl.to_le_bytes());
    bytes.extend(soa.map_or(0, |soa| soa.serial).to_le_bytes());
    bytes.extend(soa.map_or(0, |soa| soa.ttl).to_le_bytes());
    bytes.extend((soa_rdata.len() as u16).to_le_bytes());
    bytes.extend([origin.len() as u8, 0]);
    let mut at = HEADER + origin.len() + soa_rdata.len();
    for section in sections {
        bytes.extend((at as u32).to_le_bytes());
        bytes.extend((section.len() as u32).to_le_bytes());
        at += section.len();
    }
    bytes.extend(origin);
    bytes.extend(soa_rdata);
    sections.iter().for_each(|section| bytes.extend(section));
    let checksum = digest(&bytes[CHECKSUM.end..]);
    bytes[CHECKSUM].copy_from_slice(checksum.as_ref());
    bytes
}

/// A policy zone that can be asked. Cloning shares it.
#[derive(Clone)]
pub struct Zone {
    bytes: Bytes,
    origin: Name,
    soa: Option<Soa>,
    usual_ttl: u32,
    sections: [(usize, usize); SECTIONS],
    qnames: Summary,
    nsdnames: Summary,
    /// Prefixes: CLIENT-IP, IP, NSIP; of IPv4 and IPv6.
    prefixes: [[u32; 2]; 3],
}

/// A rule that matches, before the zone's override.
#[derive(Clone, Copy)]
pub(super) struct Match<'a> {
    pub(super) owner: MatchedOwner,
    pub(super) rule: Rule<'a>,
}

/// What of a rule's owner name the question does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatchedOwner {
    /// The name itself.
    Exact,
    /// A wildcard below the name's rightmost labels, that many.
    Wildcard(usize),
    Prefix(IpNet),
}

impl Zone {
    /// Checks the bytes whole, which takes some 20 ms for a million rules. Nothing that is read later can fail.
    pub fn open(bytes: Bytes) -> Result<Self, ZoneError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ZoneError::Magic);
        }
        let format = u16_at(&bytes, MAGIC.len()).ok_or(ZoneError::Header)?;
        if format != FORMAT {
            return Err(ZoneError::Format(format));
        }
        let body = bytes.get(CHECKSUM.end..).ok_or(ZoneError::Header)?;
        if aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body).as_ref() != &bytes[CHECKSUM] {
            return Err(ZoneError::Checksum);
        }
        Self::parse(bytes.clone()).ok_or(ZoneError::Header)?.checked()
    }

    fn parse(bytes: Bytes) -> Option<Self> {
        let soa_length = usize::from(u16_at(&bytes, 52)?);
        let &[origin_length, 0] = bytes.get(54..56)? else { return None };
        let origin_end = HEADER + usize::from(origin_length);
        let (origin, _) = Name::from_wire(bytes.get(HEADER..origin_end)?).filter(|(_, length)| *length == usize::from(origin_length))?;
        let mut at = origin_end + soa_length;
        let rdata = bytes.get(origin_end..at)?;
        let soa = if rdata.is_empty() { None } else { Some(Soa::new(u32_at(&bytes, 48)?, rdata)?) };
        if soa.as_ref().map_or(0, |soa| soa.serial) != u32_at(&bytes, 44)? {
            return None;
        }
        let mut sections = [(0, 0); SECTIONS];
        for (index, section) in sections.iter_mut().enumerate() {
            let start = u32_at(&bytes, 56 + 8 * index)? as usize;
            let end = start.checked_add(u32_at(&bytes, 60 + 8 * index)? as usize)?;
            if start != at || end > bytes.len() {
                return None;
            }
            *section = (start, end);
            at = end;
        }
        let whole = at == bytes.len();
        let usual_ttl = u32_at(&bytes, 40)?;
        let (qnames, nsdnames) = Default::default();
        whole.then_some(Self { bytes, origin, soa, usual_ttl, sections, qnames, nsdnames, prefixes: Default::default() })
    }

    fn checked(mut self) -> Result<Self, ZoneError> {
        let within = |section| move |error| ZoneError::Section { section, error };
        self.rules().check().map_err(within("rule table"))?;
        let rows = self.rules().len();
        self.qnames = self.names(Trigger::Qname).check(rows).map_err(within("QNAME"))?;
        self.nsdnames = self.names(Trigger::NsDname).check(rows).map_err(within("NSDNAME"))?;
        for (slot, section) in ["CLIENT-IP", "IP", "NSIP"].into_iter().enumerate() {
            let v4 = self.v4(slot).check(rows).map_err(within(section))?;
            let v6 = self.v6(slot).check(rows).map_err(within(section))?;
            self.prefixes[slot] = [v4, v6];
        }
        Ok(self)
    }

    /// The zone's name.
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// Of the zone's SOA record, where it had one.
    pub fn serial(&self) -> Option<u32> {
        self.soa.as_ref().map(|soa| soa.serial)
    }

    /// SHA-256 of the zone's content. Two zones with the same rules have the same.
    pub fn checksum(&self) -> &[u8] {
        &self.bytes[CHECKSUM]
    }

    /// The compiled form.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many rules of a kind there are.
    pub fn rule_count(&self, trigger: Trigger) -> u32 {
        match trigger {
            Trigger::Qname => self.qnames.exact + self.qnames.wildcard,
            Trigger::NsDname => self.nsdnames.exact + self.nsdnames.wildcard,
            address => self.prefixes[address_slot(address)].iter().sum(),
        }
    }

    pub(super) fn soa(&self) -> Option<&Soa> {
        self.soa.as_ref()
    }

    /// Whether any IP rule is for an address that a record of `rtype` could tell.
    pub(super) fn looks_into_answers_of(&self, of: u16) -> bool {
        let [v4, v6] = self.prefixes[address_slot(Trigger::Ip)];
        match of {
            rtype::A => v4 > 0,
            rtype::AAAA => v6 > 0,
            rtype::SVCB | rtype::HTTPS | rtype::ANY => v4 > 0 || v6 > 0,
            _ => false,
        }
    }

    /// The rule for a name, by QNAME or NSDNAME: exact before wildcard, the longest wildcard first.
    pub(super) fn by_name(&self, trigger: Trigger, name: &Name) -> Option<Match<'_>> {
        let summary = if trigger == Trigger::Qname { self.qnames } else { self.nsdnames };
        let (code, wildcard) = self.names(trigger).rule_for(name.key().as_bytes(), summary)?;
        self.matched(code, wildcard.map_or(MatchedOwner::Exact, MatchedOwner::Wildcard))
    }

    /// The rule for addresses, by CLIENT-IP, IP or NSIP: the longest prefix first, then the smallest address.
    pub(super) fn by_address(&self, trigger: Trigger, addresses: &[IpAddr]) -> Option<Match<'_>> {
        let slot = address_slot(trigger);
        if self.prefixes[slot] == [0, 0] {
            return None;
        }
        let found = addresses.iter().filter_map(|address| match canonical(*address) {
            IpAddr::V4(address) => with_net(self.v4(slot).longest(u128::from(address.to_bits()))?, true),
            IpAddr::V6(address) => with_net(self.v6(slot).longest(address.to_bits())?, false),
        });
        let (prefix, code) = found.max_by_key(|(prefix, _)| specificity(*prefix))?;
        self.matched(code, MatchedOwner::Prefix(prefix))
    }

    fn matched(&self, code: Code, owner: MatchedOwner) -> Option<Match<'_>> {
        self.rules().rule(code, self.usual_ttl).map(|rule| Match { owner, rule })
    }

    fn section(&self, index: usize) -> &[u8] {
        let (start, end) = self.sections[index];
        &self.bytes[start..end]
    }

    fn names(&self, trigger: Trigger) -> Names<'_> {
        let first = if trigger == Trigger::Qname { 0 } else { 2 };
        Names { entries: self.section(first), blocks: self.section(first + 1) }
    }

    fn v4(&self, slot: usize) -> Prefixes<'_, 4> {
        Prefixes(self.section(4 + slot))
    }

    fn v6(&self, slot: usize) -> Prefixes<'_, 16> {
        Prefixes(self.section(7 + slot))
    }

    fn rules(&self) -> Rules<'_> {
        Rules { rows: self.section(10), offsets: self.section(11) }
    }
}

fn with_net(row: Row, is_v4: bool) -> Option<(IpNet, Code)> {
    net(row.address, row.length, is_v4).map(|prefix| (prefix, row.code))
}

/// The same rules.
impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.checksum() == other.checksum()
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zone").field("origin", &self.origin).field("serial", &self.serial()).field("bytes", &self.bytes.len()).finish()
    }
}
