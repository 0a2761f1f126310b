//! Takes what an upstream answers; yields the records that answer the question, in the order of its aliases.
//!
//! What nobody asked for is dropped: a record is kept if its owner is the name in question or what the aliases before have led to
//! (RFC 2181 §5.4.1, RFC 5452 §6).

use hickory_proto::{
    ProtoError,
    op::{Message, MessageType, OpCode, Query as DnsQuestion, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
    serialize::binary::BinEncodable,
};
use ringfence_policy::rpz;

use super::ech;
use crate::dns::{
    answer::Reply,
    ede::Ede,
    limits::{MAX_CHAIN, MAX_NEGATIVE_TTL, MAX_TTL},
};

/// What is asked of the upstreams.
#[derive(Clone, Debug)]
pub struct Question {
    /// In lower case.
    pub name: Name,
    pub qtype: RecordType,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

/// What an upstream knows of it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The question; the aliases in their order, then what they lead to; for an answer that there is nothing, the SOA that says so.
    pub message: Message,
    /// Seconds that it may be remembered.
    pub lifetime: u32,
    /// What the upstream has to say of it.
    pub ede: Option<Ede>,
    /// Where the aliases lead, if the upstream stopped there.
    pub next: Option<Name>,
}

impl Resolved {
    pub fn into_reply(self) -> Result<Reply, ProtoError> {
        let next = self.next.map(|name| name.to_bytes()).transpose()?;
        let next = next.and_then(|wire| rpz::Name::from_wire(&wire)).map(|(name, _)| Box::new(name));
        let mut reply = Reply::new(self.message, self.lifetime, self.ede)?;
        reply.next = next;
        Ok(reply)
    }
}

/// The aliases so far.
struct Chain<'a> {
    question: &'a Question,
    /// Where they lead.
    target: Name,
    links: usize,
    answers: Vec<Record>,
}

/// An answer that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    #[error("the answer is to another question")]
    OtherQuestion,
    #[error("more than {MAX_CHAIN} aliases, or a loop of them")]
    EndlessChain,
    #[error("a referral instead of an answer")]
    Referral,
}

/// Follows the aliases in `message`, which answers `question`. Its rcode is NOERROR or NXDOMAIN.
pub fn follow(question: &Question, mut message: Message) -> Result<Resolved, Lie> {
    // Within an update, records without data would have been read too.
    let is_answer = message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && matches!(message.queries.as_slice(), [asked] if asked.name == question.name && asked.query_type == question.qtype);
    if !is_answer {
        return Err(Lie::OtherQuestion);
    }
    message.answers.retain(|record| record.dns_class == DNSClass::IN);
    message.authorities.retain(|record| record.dns_class == DNSClass::IN);
    let mut chain = Chain { target: question.name.clone(), question, links: 0, answers: Vec::new() };
    while !chain.take_answer(&message.answers) {
        match chain.take_alias(&message.answers) {
            None => return chain.end(message),
            Some(_) if chain.links == MAX_CHAIN => return Err(Lie::EndlessChain),
            Some(target) => {
                chain.links += 1;
                chain.target = target;
            }
        }
    }
    Ok(chain.answer(message))
}

impl Chain<'_> {
    /// Takes what is asked for and belongs to the target; whether there is any.
    fn take_answer(&mut self, records: &[Record]) -> bool {
        let qtype = self.question.qtype;
        let before = self.answers.len();
        let of_target = |record: &&Record| record.name == self.target;
        let is_asked = |record: &&Record| qtype == RecordType::ANY || record.record_type() == qtype;
        self.answers.extend(records.iter().filter(of_target).filter(is_asked).cloned());
        let found = self.answers.len() > before;
        if found && qtype != RecordType::RRSIG {
            let target = self.target.clone();
            self.take_signatures(&target, records);
        }
        found
    }

    /// Takes the target's CNAME, with the DNAME that it was made of (RFC 6672 §3.1), and gives where it leads.
    fn take_alias(&mut self, records: &[Record]) -> Option<Name> {
        let target = self.target.clone();
        let (alias, to) = records.iter().filter(|record| record.name == target).find_map(|record| match &record.data {
            RData::CNAME(to) => Some((record, to.0.clone())),
            _ => None,
        })?;
        let dname = records
            .iter()
            .find(|record| record.record_type() == RecordType::DNAME && record.name != target && record.name.zone_of(&target));
        if let Some(dname) = dname {
            self.answers.push(dname.clone());
            self.take_signatures(&dname.name, records);
        }
        self.answers.push(alias.clone());
        self.take_signatures(&target, records);
        Some(to)
    }

    fn take_signatures(&mut self, owner: &Name, records: &[Record]) {
        if self.question.dnssec_ok {
            let signatures = records.iter().filter(|record| record.record_type() == RecordType::RRSIG && record.name == *owner);
            self.answers.extend(signatures.cloned());
        }
    }

    /// They lead to what was asked for.
    fn answer(self, told: Message) -> Resolved {
        let dnssec_ok = self.question.dnssec_ok;
        let mut resolved = self.resolved(&told, ResponseCode::NoError);
        if dnssec_ok {
            // A wildcard's answer comes with the proof that there is nothing closer.
            resolved.message.authorities = told.authorities.into_iter().filter(is_proof).collect();
            for record in &mut resolved.message.authorities {
                record.ttl = ttl(record.ttl);
            }
        }
        resolved
    }

    /// They lead to nothing in the message.
    fn end(mut self, told: Message) -> Result<Resolved, Lie> {
        let has = |rtype| told.authorities.iter().any(|record| record.record_type() == rtype);
        let is_proven = told.metadata.response_code == ResponseCode::NXDomain || has(RecordType::SOA);
        if !is_proven && self.links > 0 {
            let next = std::mem::take(&mut self.target);
            return Ok(Resolved { next: Some(next), ..self.resolved(&told, ResponseCode::NoError) });
        }
        if !is_proven && has(RecordType::NS) && !told.metadata.authoritative {
            return Err(Lie::Referral);
        }
        let (holds, proof) = negative(&told.authorities, &self.target, self.question.dnssec_ok);
        let mut resolved = self.resolved(&told, told.metadata.response_code);
        resolved.lifetime = resolved.lifetime.min(holds);
        resolved.message.authorities = proof;
        Ok(resolved)
    }

    fn resolved(self, told: &Message, rcode: ResponseCode) -> Resolved {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.metadata.response_code = rcode;
        message.metadata.authentic_data = told.metadata.authentic_data;
        message.add_query(DnsQuestion::query(self.question.name.clone(), self.question.qtype));
        message.answers = self.answers;
        if ech::strip(&mut message.answers) {
            // What the upstream validated is another.
            message.metadata.authentic_data = false;
        }
        for record in &mut message.answers {
            record.ttl = ttl(record.ttl);
        }
        let lifetime = message.answers.iter().map(|record| record.ttl).min().unwrap_or(MAX_TTL);
        Resolved { message, lifetime, ede: told.edns.as_ref().and_then(Ede::of), next: None }
    }
}

/// What proves that there is nothing, and how long that holds: the lesser of the SOA's TTL and its last field, by which its TTL is told
/// too (RFC 2308 §5). Without an SOA it must not be remembered.
fn negative(authorities: &[Record], target: &Name, dnssec_ok: bool) -> (u32, Vec<Record>) {
    let mut holds = None;
    let mut proof = Vec::new();
    for record in authorities {
        let ttl = ttl(record.ttl).min(MAX_NEGATIVE_TTL);
        match &record.data {
            RData::SOA(soa) if holds.is_none() && record.name.zone_of(target) => {
                let ttl = ttl.min(self::ttl(soa.minimum));
                holds = Some(ttl);
                proof.insert(0, with_ttl(record, ttl));
            }
            _ if dnssec_ok && is_proof(record) => {
                proof.push(with_ttl(record, ttl));
            }
            _ => {}
        }
    }
    (holds.unwrap_or(0), proof)
}

fn with_ttl(record: &Record, ttl: u32) -> Record {
    let mut record = record.clone();
    record.ttl = ttl;
    record
}

fn is_proof(record: &Record) -> bool {
    matches!(record.record_type(), RecordType::NSEC | RecordType::NSEC3 | RecordType::RRSIG)
}

/// With its highest bit set a TTL is 0 (RFC 2181 §8).
fn ttl(told: u32) -> u32 {
    if told > i32::MAX as u32 { 0 } else { told.min(MAX_TTL) }
}

#[cfg(test)]
mod tests;
