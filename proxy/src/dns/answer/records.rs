//! A reply's records as policy looks at them, and replies made of what policy says.

use hickory_proto::{
    ProtoError,
    op::{Message, ResponseCode},
};
use ringfence_policy::rpz::{Name, Record, Rewrite, rtype};

use super::{
    super::{
        ede::Ede,
        query::{HEADER, QR, Query, TC, skip_name, u16_at},
    },
    Age, Reply, Ttls, push_question, question_len, tell_ttls,
};

const CLASS_IN: u16 = 1;
/// Points to the name that is asked for (RFC 1035 §4.1.4).
const QUESTION: &[u8] = &[0xc0, HEADER as u8];
/// Octets of a record between its owner and its data.
const RECORD: usize = 10;

impl Reply {
    /// Of the answer section, those that policy looks into: addresses, aliases, servers, service bindings.
    pub fn records(&self) -> Vec<Record> {
        let count = u16_at(&self.wire, 6).unwrap_or(0);
        let mut records = Vec::with_capacity(count.into());
        let question_end = self.wire.get(HEADER..).and_then(skip_name).map(|length| HEADER + length + 4);
        let mut at = question_end.unwrap_or(self.wire.len());
        for _ in 0..count {
            // Cannot fail: the message was written here.
            let Some((record, end)) = record_at(&self.wire, at) else { break };
            records.extend(record);
            at = end;
        }
        records
    }

    /// What a rule answers. `None`: more than a message can hold.
    pub fn made<'a>(query: &Query, rewrite: &'a Rewrite) -> Option<Self> {
        let ede = rewrite.decision.extended_error().map(Ede::of_policy);
        let rcode = ResponseCode::from_low(rewrite.rcode);
        let lifetime = rewrite.answer.iter().map(|record| record.ttl).min().unwrap_or(0);
        let [answers_high, answers_low] = u16::try_from(rewrite.answer.len()).ok()?.to_be_bytes();
        let flags = QR | if rewrite.truncated { TC } else { 0 };
        let records = || rewrite.answer.iter().chain(&rewrite.soa);
        let owner = |record: &'a Record| match record.owner.as_wire() {
            owner if owner == query.name() => QUESTION,
            owner => owner,
        };
        let room: usize = records().map(|record| owner(record).len() + RECORD + record.rdata.len()).sum();
        let mut wire = Vec::with_capacity(HEADER + question_len(query) + room);
        wire.extend_from_slice(&[0, 0, flags, rcode.low(), 0, 1, answers_high, answers_low, 0, 0, 0, rewrite.soa.is_some().into()]);
        push_question(query, &mut wire);
        let mut ttls = Ttls::with_capacity(records().count());
        for record in records() {
            wire.extend_from_slice(owner(record));
            wire.extend_from_slice(&record.rtype.to_be_bytes());
            wire.extend_from_slice(&CLASS_IN.to_be_bytes());
            ttls.push(u16::try_from(wire.len()).ok()?);
            wire.extend_from_slice(&record.ttl.to_be_bytes());
            wire.extend_from_slice(&u16::try_from(record.rdata.len()).ok()?.to_be_bytes());
            wire.extend_from_slice(&record.rdata);
        }
        Some(Self::written(wire, ttls, rcode, lifetime, ede))
    }

    /// `self`, whose aliases lead to what `rest` answers.
    pub fn followed_by(&self, age: Age, rest: &Reply, age_of_rest: Age) -> Result<Self, ProtoError> {
        let (mut whole, mut end) = (self.message(age)?, rest.message(age_of_rest)?);
        whole.metadata.response_code = end.metadata.response_code;
        whole.metadata.authentic_data &= end.metadata.authentic_data;
        whole.answers.append(&mut end.answers);
        whole.authorities = end.authorities;
        let lifetime = self.remains(age).min(rest.remains(age_of_rest));
        let ede = self.ede.clone().or_else(|| rest.ede.clone());
        Ok(Self { next: rest.next.clone(), ..Self::new(whole, lifetime, ede)? })
    }

    /// Seconds that it still holds.
    pub fn remains(&self, age: Age) -> u32 {
        match age {
            Age::Seconds(seconds) => self.lifetime.saturating_sub(seconds),
            Age::Stale(ttl) => ttl,
        }
    }

    fn message(&self, age: Age) -> Result<Message, ProtoError> {
        let mut wire = self.wire.to_vec();
        tell_ttls(&mut wire, &self.ttls, age);
        Ok(Message::from_vec(&wire)?)
    }
}

/// The record at `at`, if policy looks into its type, and where the next one begins.
fn record_at(wire: &[u8], at: usize) -> Option<(Option<Record>, usize)> {
    let head = at + skip_name(wire.get(at..)?)?;
    let (rtype, length) = (u16_at(wire, head)?, u16_at(wire, head + 8)?);
    let data = head + 10;
    let end = data + usize::from(length);
    let rdata = match rtype {
        rtype::CNAME | rtype::NS => name_at(wire, data)?.as_wire().to_vec(),
        // No name in them may be compressed (RFC 9460 §2.2).
        rtype::A | rtype::AAAA | rtype::SVCB | rtype::HTTPS => wire.get(data..end)?.to_vec(),
        _ => return Some((None, end)),
    };
    let ttl = wire.get(head + 4..)?.first_chunk().copied().map(u32::from_be_bytes)?;
    Some((Some(Record { owner: name_at(wire, at)?, rtype, ttl, rdata }), end))
}

/// The name at `at`, its pointers followed.
fn name_at(wire: &[u8], mut at: usize) -> Option<Name> {
    let (mut name, mut length) = ([0; Name::MAX], 0);
    loop {
        let label = usize::from(*wire.get(at)?);
        if label >= 0xc0 {
            let target = usize::from(u16_at(wire, at)? & 0x3fff);
            // Only backwards, so that it ends.
            at = Some(target).filter(|target| *target < at)?;
            continue;
        }
        let octets = wire.get(at..=at + label)?;
        name.get_mut(length..length + octets.len())?.copy_from_slice(octets);
        (at, length) = (at + octets.len(), length + octets.len());
        if label == 0 {
            return Name::from_wire(&name[..length]).map(|(name, _)| name);
        }
    }
}
