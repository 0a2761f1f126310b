//! Questions to a primary, and the messages that it answers with.

use hickory_proto::{
    ProtoError,
    op::{Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{self, DNSClass, Name, RData, RecordType, rdata::SOA},
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder, DecodeError},
};
use ringfence_policy::rpz::{self, Record};

use super::tsig::Signature;

#[derive(Debug, thiserror::Error)]
pub(super) enum MessageFault {
    #[error("is no DNS message: {0}")]
    Malformed(#[from] DecodeError),
    #[error("has {0} octets behind its last record")]
    Trailing(usize),
    #[error("has a signature that is not its last record")]
    SignatureWithin,
    #[error("is no answer to what was asked: {0}")]
    Mismatch(&'static str),
    #[error("says {0}")]
    Refused(ResponseCode),
    #[error("has a record that cannot be written down: {0}")]
    Record(#[from] ProtoError),
    #[error("has a record of class {0}: a policy's is IN")]
    Class(DNSClass),
    #[error("has a name that is too long")]
    Name,
}

/// A message, taken apart.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) header: Metadata,
    pub(super) questions: Vec<Query>,
    pub(super) answers: Vec<rr::Record>,
    pub(super) signature: Option<Signature>,
}

impl Parts {
    pub(super) fn read(message: &[u8]) -> Result<Self, MessageFault> {
        let mut decoder = BinDecoder::new(message);
        let Header { metadata: header, counts } = Header::read(&mut decoder)?;
        let questions = (0..counts.queries).map(|_| Query::read(&mut decoder)).collect::<Result<Vec<_>, _>>()?;
        let (answers, ..) = Message::read_records(&mut decoder, counts.answers.into(), false, header.op_code)?;
        Message::read_records(&mut decoder, counts.authorities.into(), false, header.op_code)?;
        let mut signature = None;
        for _ in 0..counts.additionals {
            if signature.is_some() {
                return Err(MessageFault::SignatureWithin);
            }
            let at = decoder.index();
            let record = rr::Record::read(&mut decoder)?;
            if let RData::TSIG(data) = record.data {
                signature = Some(Signature { at, key: record.name, data });
            }
        }
        match decoder.len() {
            0 => Ok(Self { header, questions, answers, signature }),
            trailing => Err(MessageFault::Trailing(trailing)),
        }
    }

    /// Whether this belongs to what was asked (RFC 5936 §2.2.1).
    pub(super) fn check(&self, question: &Question, first: bool) -> Result<(), MessageFault> {
        let mismatch = |what| Err(MessageFault::Mismatch(what));
        let Metadata { id, message_type, op_code, truncation, response_code, .. } = self.header;
        if id != question.id {
            return mismatch("it has another ID");
        }
        if message_type != MessageType::Response || op_code != OpCode::Query {
            return mismatch("it is another kind of message");
        }
        if response_code != ResponseCode::NoError {
            return Err(MessageFault::Refused(response_code));
        }
        if truncation {
            return mismatch("it is cut off");
        }
        match &*self.questions {
            [] if !first => Ok(()),
            [query] if *query.name() == question.name && query.query_type() == question.rtype && query.query_class() == DNSClass::IN => {
                Ok(())
            }
            _ => mismatch("it repeats another question"),
        }
    }
}

/// What a primary is asked.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: u16,
    name: Name,
    rtype: RecordType,
}

impl Question {
    /// `held`: the SOA record of the zone that there is, for IXFR (RFC 1995 §3).
    pub(super) fn write(zone: &rpz::Name, rtype: RecordType, held: Option<&Record>) -> Result<(Self, Vec<u8>), ProtoError> {
        let name = name(zone)?;
        // With an ID that nobody can guess.
        let mut message = Message::query();
        message.metadata.recursion_desired = false;
        message.add_query(Query::query(name.clone(), rtype));
        if let Some(held) = held {
            let soa = SOA::read(&mut BinDecoder::new(&held.rdata))?;
            message.add_authority(rr::Record::from_rdata(name.clone(), held.ttl, RData::SOA(soa)));
        }
        Ok((Self { id: message.metadata.id, name, rtype }, message.to_vec()?))
    }
}

/// In lower case, as keys are signed with.
pub(super) fn name(name: &rpz::Name) -> Result<Name, ProtoError> {
    Ok(Name::read(&mut BinDecoder::new(name.as_wire()))?)
}

/// Names in the data are not compressed, and in lower case where DNSSEC has them so (RFC 4034 §6.2): the same record is the same octets.
pub(super) fn policy_record(record: &rr::Record) -> Result<Record, MessageFault> {
    if record.dns_class != DNSClass::IN {
        return Err(MessageFault::Class(record.dns_class));
    }
    let (owner, _) = rpz::Name::from_wire(&record.name.to_bytes()?).ok_or(MessageFault::Name)?;
    let mut rdata = Vec::new();
    let mut encoder = BinEncoder::new(&mut rdata);
    encoder.set_canonical_form(true);
    record.data.emit(&mut encoder)?;
    // RFC 2181 §8
    let ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
    Ok(Record { owner, rtype: record.record_type().into(), ttl, rdata })
}
