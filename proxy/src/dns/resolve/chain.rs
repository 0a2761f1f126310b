//! Takes what upstreams answer; yields the records that answer the question, in the order of its aliases, or whom to ask next.
//!
//! What nobody asked for is dropped: a record is kept if its owner is the name in question or what the aliases before have led to
//! (RFC 2181 §5.4.1, RFC 5452 §6).

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query as DnsQuestion, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use crate::dns::{
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

/// What the upstreams know of it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The question; the aliases in their order, then what they lead to; for an answer that there is nothing, the SOA that says so.
    pub message: Message,
    /// Seconds that it may be remembered.
    pub lifetime: u32,
    /// What the upstream has to say of it.
    pub ede: Option<Ede>,
}

/// The aliases so far.
pub(super) struct Chain {
    question: Question,
    /// Where they lead.
    target: Name,
    links: usize,
    answers: Vec<Record>,
    authentic: bool,
    ede: Option<Ede>,
}

pub(super) enum Step {
    Complete(Resolved),
    /// The upstream answered with aliases and stopped at this name.
    Ask(Question),
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

impl Chain {
    pub(super) fn new(question: Question) -> Self {
        Self { target: question.name.clone(), question, links: 0, answers: Vec::new(), authentic: true, ede: None }
    }

    /// Follows the aliases in `message`, which answers the question that was last to be asked. Its rcode is NOERROR or NXDOMAIN.
    pub(super) fn follow(&mut self, mut message: Message) -> Result<Step, Lie> {
        let is_answer = message.metadata.message_type == MessageType::Response
            && matches!(message.queries.as_slice(), [asked] if asked.name == self.target && asked.query_type == self.question.qtype);
        if !is_answer {
            return Err(Lie::OtherQuestion);
        }
        message.answers.retain(|record| record.dns_class == DNSClass::IN);
        message.authorities.retain(|record| record.dns_class == DNSClass::IN);
        self.authentic &= message.metadata.authentic_data;
        self.ede = message.edns.as_ref().and_then(Ede::of).or(self.ede.take());
        let links = self.links;
        while !self.take_answer(&message.answers) {
            match self.take_alias(&message.answers) {
                None => return self.end(message, links),
                Some(_) if self.links == MAX_CHAIN => return Err(Lie::EndlessChain),
                Some(target) => {
                    self.links += 1;
                    self.target = target;
                }
            }
        }
        Ok(Step::Complete(self.complete(ResponseCode::NoError, message.authorities)))
    }

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

    /// The aliases of this message lead to nothing in it. `links`: before it.
    fn end(&mut self, message: Message, links: usize) -> Result<Step, Lie> {
        let has = |rtype| message.authorities.iter().any(|record| record.record_type() == rtype);
        let is_nothing = message.metadata.response_code == ResponseCode::NXDomain || has(RecordType::SOA);
        if is_nothing {
            return Ok(Step::Complete(self.complete(message.metadata.response_code, message.authorities)));
        }
        if self.links > links {
            return Ok(Step::Ask(Question { name: self.target.clone(), ..self.question.clone() }));
        }
        if has(RecordType::NS) && !message.metadata.authoritative {
            return Err(Lie::Referral);
        }
        Ok(Step::Complete(self.complete(ResponseCode::NoError, Vec::new())))
    }

    fn complete(&mut self, rcode: ResponseCode, authorities: Vec<Record>) -> Resolved {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.metadata.response_code = rcode;
        message.metadata.authentic_data = self.authentic;
        message.add_query(DnsQuestion::query(self.question.name.clone(), self.question.qtype));
        message.answers = std::mem::take(&mut self.answers);
        for record in &mut message.answers {
            record.ttl = ttl(record.ttl);
        }
        let is_nothing = rcode == ResponseCode::NXDomain || !message.answers.iter().any(|record| is_of(record, self.question.qtype));
        let mut lifetime = message.answers.iter().map(|record| record.ttl).min().unwrap_or(MAX_TTL);
        if is_nothing {
            let (negative, proof) = negative(authorities, &self.target, self.question.dnssec_ok);
            lifetime = lifetime.min(negative);
            message.authorities = proof;
        } else if self.question.dnssec_ok {
            // A wildcard's answer comes with the proof that there is nothing closer.
            message.authorities = authorities.into_iter().filter(is_proof).collect();
            for record in &mut message.authorities {
                record.ttl = ttl(record.ttl);
            }
        }
        Resolved { message, lifetime, ede: self.ede.take() }
    }
}

fn is_of(record: &Record, qtype: RecordType) -> bool {
    qtype == RecordType::ANY || record.record_type() == qtype
}

/// What proves that there is nothing, and how long that holds: the lesser of the SOA's TTL and its last field, by which its TTL is told
/// too (RFC 2308 §5). Without an SOA it must not be remembered.
fn negative(authorities: Vec<Record>, target: &Name, dnssec_ok: bool) -> (u32, Vec<Record>) {
    let mut holds = None;
    let mut proof = Vec::new();
    for mut record in authorities {
        match &record.data {
            RData::SOA(soa) if holds.is_none() && record.name.zone_of(target) => {
                record.ttl = ttl(record.ttl).min(ttl(soa.minimum)).min(MAX_NEGATIVE_TTL);
                holds = Some(record.ttl);
                proof.insert(0, record);
            }
            _ if dnssec_ok && is_proof(&record) => {
                record.ttl = ttl(record.ttl).min(MAX_NEGATIVE_TTL);
                proof.push(record);
            }
            _ => {}
        }
    }
    (holds.unwrap_or(0), proof)
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
