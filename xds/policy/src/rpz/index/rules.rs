//! The rule table: what rules do that is more than a simple action at the zone's usual TTL. Rules that do the same share a row.
//!
//! Section `offsets`: u32 LE, one for each row. Section `rows`: `action: u8, ttl: u32, count: u16`, then of each record
//! `type: u16, ttl: u32, length: u16, rdata`, all LE but for the rdata. The action is 1 to 5, with no records, or 6, Local-Data.

use std::collections::HashMap;

use super::{Code, FIRST_RULE, IndexError, u16_at, u32_at};
use crate::rpz::{Action, record::is_sound};

const ACTIONS: [Action; 6] = [Action::NxDomain, Action::NoData, Action::Passthru, Action::Drop, Action::TcpOnly, Action::LocalData];

/// Octets of the records of one rule, at most: what a message has room for. A query gets a copy of them.
pub(in crate::rpz) const MAX_OCTETS: usize = 65_000;

/// The code of an action: 1 to 6.
pub(in crate::rpz) fn code(action: Action) -> Code {
    (1..).zip(ACTIONS).find(|(_, of)| *of == action).map_or(super::NOTHING, |(code, _)| code)
}

pub(in crate::rpz) fn action(code: Code) -> Option<Action> {
    ACTIONS.get(usize::try_from(code.checked_sub(1)?).ok()?).copied()
}

/// A record of a rule; its owner is whatever the rule is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::rpz) struct LocalRecord<'a> {
    pub(in crate::rpz) rtype: u16,
    pub(in crate::rpz) ttl: u32,
    pub(in crate::rpz) rdata: &'a [u8],
}

/// Octets of a record with that much data.
pub(in crate::rpz) const fn octets(rdata: usize) -> usize {
    8 + rdata
}

#[derive(Default)]
pub(in crate::rpz) struct Builder {
    pub(in crate::rpz) offsets: Vec<u8>,
    pub(in crate::rpz) rows: Vec<u8>,
    known: HashMap<Box<[u8]>, Code>,
    row: Vec<u8>,
}

impl Builder {
    pub(in crate::rpz) fn push<'a>(&mut self, action: Action, ttl: u32, records: impl Iterator<Item = LocalRecord<'a>>) -> Code {
        self.row.clear();
        self.row.push(code(action) as u8);
        self.row.extend(ttl.to_le_bytes());
        self.row.extend([0, 0]);
        let mut count = 0u16;
        for record in records {
            self.row.extend(record.rtype.to_le_bytes());
            self.row.extend(record.ttl.to_le_bytes());
            self.row.extend((record.rdata.len() as u16).to_le_bytes());
            self.row.extend(record.rdata);
            count += 1;
        }
        self.row[5..7].copy_from_slice(&count.to_le_bytes());
        if let Some(code) = self.known.get(&*self.row) {
            return *code;
        }
        let code = FIRST_RULE + (self.offsets.len() / 4) as u32;
        self.offsets.extend((self.rows.len() as u32).to_le_bytes());
        self.rows.extend(&self.row);
        self.known.insert(self.row.as_slice().into(), code);
        code
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(in crate::rpz) struct Rule<'a> {
    pub(in crate::rpz) action: Action,
    pub(in crate::rpz) ttl: u32,
    count: u16,
    records: &'a [u8],
}

impl<'a> Rule<'a> {
    pub(in crate::rpz) fn simple(action: Action, ttl: u32) -> Self {
        Self { action, ttl, count: 0, records: &[] }
    }

    pub(in crate::rpz) fn records(self) -> impl Iterator<Item = LocalRecord<'a>> {
        let mut at = 0;
        (0..self.count).map_while(move |_| {
            let (record, next) = record_at(self.records, at)?;
            at = next;
            Some(record)
        })
    }
}

fn record_at(bytes: &[u8], at: usize) -> Option<(LocalRecord<'_>, usize)> {
    let length = usize::from(u16_at(bytes, at + 6)?);
    let rdata = bytes.get(at + 8..at + octets(length))?;
    Some((LocalRecord { rtype: u16_at(bytes, at)?, ttl: u32_at(bytes, at + 2)?, rdata }, at + octets(length)))
}

#[derive(Clone, Copy)]
pub(in crate::rpz) struct Rules<'a> {
    pub(in crate::rpz) offsets: &'a [u8],
    pub(in crate::rpz) rows: &'a [u8],
}

impl<'a> Rules<'a> {
    pub(in crate::rpz) fn len(self) -> u32 {
        (self.offsets.len() / 4) as u32
    }

    /// Walks all of it.
    pub(in crate::rpz) fn check(self) -> Result<(), IndexError> {
        if !self.offsets.len().is_multiple_of(4) {
            return Err(IndexError::Blocks);
        }
        let mut at = 0;
        for row in 0..self.len() {
            if u32_at(self.offsets, row as usize * 4) != u32::try_from(at).ok() {
                return Err(IndexError::Blocks);
            }
            let rule = self.row(row).ok_or(IndexError::CutOff)?;
            let mut length = 0;
            for _ in 0..rule.count {
                let (record, next) = record_at(rule.records, length).ok_or(IndexError::CutOff)?;
                if !is_sound(record.rtype, record.rdata) {
                    return Err(IndexError::Rule);
                }
                length = next;
            }
            if (rule.count > 0) != (rule.action == Action::LocalData) || length > MAX_OCTETS {
                return Err(IndexError::Rule);
            }
            at += 7 + length;
        }
        if at == self.rows.len() { Ok(()) } else { Err(IndexError::Blocks) }
    }

    /// The rule that a code means. `ttl`: the zone's usual one.
    pub(in crate::rpz) fn rule(self, code: Code, ttl: u32) -> Option<Rule<'a>> {
        match code.checked_sub(FIRST_RULE) {
            None => action(code).map(|action| Rule::simple(action, ttl)),
            Some(row) => self.row(row),
        }
    }

    fn row(self, row: u32) -> Option<Rule<'a>> {
        let row = self.rows.get(u32_at(self.offsets, row as usize * 4)? as usize..)?;
        let action = action(u32::from(*row.first()?))?;
        Some(Rule { action, ttl: u32_at(row, 1)?, count: u16_at(row, 5)?, records: &row[7..] })
    }
}
