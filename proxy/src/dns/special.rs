//! Takes a query that policy has let through; yields the reply to names that no upstream is asked about.
//!
//! `localhost` and `invalid` (RFC 6761 §6.3, §6.4), `onion` (RFC 7686), `resolver.arpa`, which would tell a workload how to reach the
//! upstreams past this server (RFC 9462 §6.4). All else is the upstreams' to know: names of private addresses, those below `local`, which
//! clusters use (`cluster.local`) whatever RFC 6762 says, and how much to tell those who ask for everything at once (RFC 8482).

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    ProtoError,
    op::{Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA},
    },
};

use super::{
    answer::Reply,
    query::{Query, labels},
};

/// Seconds.
const TTL: u32 = 3600;

/// `None`: the name is an ordinary one.
pub(super) fn reply(query: &Query) -> Option<Result<Reply, ProtoError>> {
    let (mut last, mut before): (&[u8], &[u8]) = (b"", b"");
    for label in labels(query.name()) {
        (before, last) = (last, label);
    }
    match (before, last) {
        (_, b"localhost") => Some(localhost(query)),
        (_, b"invalid" | b"onion") => Some(nothing(query, ResponseCode::NXDomain, &[last])),
        (b"resolver", b"arpa") => Some(nothing(query, ResponseCode::NoError, &[before, last])),
        _ => None,
    }
}

fn localhost(query: &Query) -> Result<Reply, ProtoError> {
    match query.qtype {
        RecordType::A => records(query, [RData::A(A(Ipv4Addr::LOCALHOST))]),
        RecordType::AAAA => records(query, [RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))]),
        _ => nothing(query, ResponseCode::NoError, &[b"localhost"]),
    }
}

fn records(query: &Query, data: impl IntoIterator<Item = RData>) -> Result<Reply, ProtoError> {
    let mut message = message(query, ResponseCode::NoError);
    let name = query.to_name();
    message.add_answers(data.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)));
    Reply::new(message, TTL, None)
}

/// NXDOMAIN or NODATA, with the SOA that lets a client remember it (RFC 2308 §3).
fn nothing(query: &Query, rcode: ResponseCode, zone: &[&[u8]]) -> Result<Reply, ProtoError> {
    let mut message = message(query, rcode);
    let zone = Name::from_labels(zone.iter().copied())?;
    let soa = SOA::new(zone.clone(), Name::from_ascii("nobody.invalid.")?, 1, 3600, 1200, 604_800, TTL);
    message.add_authority(Record::from_rdata(zone, TTL, RData::SOA(soa)));
    Reply::new(message, TTL, None)
}

fn message(query: &Query, rcode: ResponseCode) -> Message {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.response_code = rcode;
    message.add_query(Question::query(query.to_name(), query.qtype));
    message
}
