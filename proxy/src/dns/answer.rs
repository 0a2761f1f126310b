//! Takes a reply; yields the octets of the answer to one query. Never knows where the reply came from.

mod records;

use std::{cell::Cell, net::IpAddr};

use hickory_proto::{
    ProtoError,
    op::{Message, ResponseCode},
};
use ringfence_policy::{budget::is_free_form, rpz::Name};
use smallvec::SmallVec;

use super::{
    ede::Ede,
    limits::UDP_ANSWER,
    query::{AD, CD, HEADER, NoQuery, QR, Query, RA, RD, TC, skip_name, u16_at},
};

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// Octets of an OPT record without options.
const OPT: usize = 11;

/// Where the TTLs of a message stand. Those of most answers are few.
type Ttls = SmallVec<[u16; 8]>;

/// What a question is answered with, for whoever asks it: a message in wire form, without OPT.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Header, question and records.
    wire: Box<[u8]>,
    ttls: Ttls,
    pub rcode: ResponseCode,
    /// Seconds.
    pub lifetime: u32,
    pub ede: Option<Ede>,
    /// Where its aliases lead, if that is still to be asked for.
    pub next: Option<Box<Name>>,
    /// The egress decision knows of its addresses.
    pub bound: Cell<bool>,
    /// Its free-form octets are paid for.
    pub counted: Cell<bool>,
    /// The generation of the policy none of whose rules has to do with it, whoever asks.
    pub passed: Cell<Option<u64>>,
}

/// How the TTLs of a reply are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Less these seconds.
    Seconds(u32),
    /// All as this, since the reply has expired.
    Stale(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }
}

/// The rcodes that this server gives, by their mnemonics (IANA's DNS RCODEs).
pub const RCODES: [(ResponseCode, &str); 8] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::NotImp, "NOTIMP"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::YXDomain, "YXDOMAIN"),
    (ResponseCode::BADVERS, "BADVERS"),
];

impl Reply {
    /// `message`: with its question, none of whose records an answer would not have; its OPT is left out. `lifetime`: seconds.
    pub fn new(mut message: Message, lifetime: u32, ede: Option<Ede>) -> Result<Self, ProtoError> {
        message.edns = None;
        let rcode = message.metadata.response_code;
        // Its upper bits stand in the OPT record of each answer.
        message.metadata.response_code = ResponseCode::from_low(rcode.low());
        let wire = message.to_vec()?;
        let ttls = ttls(&wire).ok_or(ProtoError::Message("a message that was just written cannot be read"))?;
        Ok(Self::written(wire, ttls, rcode, lifetime, ede))
    }

    /// The question and nothing else.
    pub fn bare(query: &Query, rcode: ResponseCode, lifetime: u32, ede: Option<Ede>) -> Self {
        let mut wire = Vec::with_capacity(HEADER + question_len(query));
        wire.extend_from_slice(&[0, 0, QR, rcode.low(), 0, 1, 0, 0, 0, 0, 0, 0]);
        push_question(query, &mut wire);
        Self::written(wire, Ttls::new(), rcode, lifetime, ede)
    }

    /// As it stands in `wire`; nothing has been done with it yet.
    fn written(wire: Vec<u8>, ttls: Ttls, rcode: ResponseCode, lifetime: u32, ede: Option<Ede>) -> Self {
        Self {
            wire: wire.into(),
            ttls,
            rcode,
            lifetime,
            ede,
            next: None,
            bound: Cell::default(),
            counted: Cell::default(),
            passed: Cell::default(),
        }
    }

    /// The addresses in it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.data().filter_map(|(rtype, data)| match (rtype, data.len()) {
            (TYPE_A, 4) => data.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
            (TYPE_AAAA, 16) => data.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
            _ => None,
        })
    }

    /// Octets of its records that hold whatever their owner likes.
    pub fn free_form(&self) -> u32 {
        // A message has less than 64 KiB.
        self.data().filter(|(rtype, _)| is_free_form(*rtype)).map(|(_, data)| data.len() as u32).sum()
    }

    /// Octets without the additional section.
    fn required(&self) -> usize {
        let additionals = u16_at(&self.wire, 10).unwrap_or(0);
        let required = self.ttls.len().saturating_sub(additionals.into());
        match self.ttls[..required].last() {
            Some(&at) => usize::from(at) + 6 + usize::from(u16_at(&self.wire, usize::from(at) + 4).unwrap_or(0)),
            None => self.wire.get(HEADER..).and_then(skip_name).map_or(HEADER, |length| HEADER + length + 4),
        }
    }

    /// Type and data of each record.
    fn data(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.ttls.iter().filter_map(|at| {
            let at = usize::from(*at);
            let length = u16_at(&self.wire, at + 4)?;
            Some((u16_at(&self.wire, at.checked_sub(4)?)?, self.wire.get(at + 6..at + 6 + usize::from(length))?))
        })
    }

    /// Octets that it takes in memory.
    pub fn size(&self) -> usize {
        let ttls = if self.ttls.spilled() { size_of::<u16>() * self.ttls.capacity() } else { 0 };
        size_of::<Self>() + self.wire.len() + ttls
    }
}

/// Appends the answer to `query`. `ede` goes before what the reply has to say.
pub fn write(query: &Query, reply: &Reply, age: Age, ede: Option<&Ede>, transport: Transport, out: &mut Vec<u8>) {
    let start = out.len();
    let room = match transport {
        Transport::Udp => query.udp_answer(),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let ede = ede.or(reply.ede.as_ref()).filter(|_| query.edns.is_some());
    let opt = if query.edns.is_some() { OPT } else { 0 };
    // What comes besides the answer is left out before the answer is cut (RFC 2181 §9).
    let is_short = reply.wire.len() + opt > room;
    let wire = if is_short { &reply.wire[..reply.required()] } else { &reply.wire };
    out.extend_from_slice(wire);
    let question_end = HEADER + question_len(query);
    // An explanation must not cost the answer.
    let ede = ede.filter(|ede| wire.len() + opt + ede.len() <= room);
    let is_cut = wire.len() + opt > room;
    let message = &mut out[start..];
    if is_cut {
        message[6..HEADER].fill(0);
    } else {
        if is_short {
            message[10..HEADER].fill(0);
        }
        tell_ttls(message, &reply.ttls, age);
    }
    message[..2].copy_from_slice(&query.id.to_be_bytes());
    message[2] = QR | message[2] & TC | if query.recursion_desired() { RD } else { 0 } | if is_cut { TC } else { 0 };
    let authentic = if query.wants_authentic_data() { message[3] & AD } else { 0 };
    message[3] = RA | authentic | if query.checking_disabled() { CD } else { 0 } | reply.rcode.low();
    // As it was asked: what is the same in lower case has the same length.
    if let Some(name) = message.get_mut(HEADER..HEADER + query.spelled().len()) {
        name.copy_from_slice(query.spelled());
    }
    if is_cut {
        out.truncate(start + question_end);
    }
    if query.edns.is_some() {
        write_opt(query, reply.rcode, ede, start, out);
    }
}

/// Appends the answer to what is no query; nothing where none is due.
pub fn write_no_query(no_query: NoQuery, out: &mut Vec<u8>) {
    if let NoQuery::Reply { id, flags, rcode } = no_query {
        let [high, low] = id.to_be_bytes();
        out.extend_from_slice(&[high, low, QR | flags, RA | rcode.low(), 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

fn question_len(query: &Query) -> usize {
    query.spelled().len() + 4
}

fn push_question(query: &Query, out: &mut Vec<u8>) {
    out.extend_from_slice(query.spelled());
    out.extend_from_slice(&u16::from(query.qtype).to_be_bytes());
    out.extend_from_slice(&query.class().to_be_bytes());
}

/// RFC 6891 §6.1.2. Options that the client sent are not for this server and not given back.
fn write_opt(query: &Query, rcode: ResponseCode, ede: Option<&Ede>, start: usize, out: &mut Vec<u8>) {
    let [size_high, size_low] = UDP_ANSWER.to_be_bytes();
    let dnssec_ok = if query.dnssec_ok() { 0x80 } else { 0 };
    let [length_high, length_low] = (ede.map_or(0, Ede::len) as u16).to_be_bytes();
    // Root, type 41, the payload that we take, the rcode's upper bits, version 0, flags.
    out.extend_from_slice(&[0, 0, 41, size_high, size_low, rcode.high(), 0, dnssec_ok, 0, length_high, length_low]);
    if let Some(ede) = ede {
        ede.write(out);
    }
    let additionals = u16_at(&out[start..], 10).unwrap_or(0) + 1;
    out[start + 10..start + HEADER].copy_from_slice(&additionals.to_be_bytes());
}

fn tell_ttls(message: &mut [u8], ttls: &[u16], age: Age) {
    for &at in ttls {
        let at = usize::from(at);
        let Some(field) = message.get_mut(at..at + 4).and_then(|field| field.first_chunk_mut::<4>()) else { continue };
        let told = match age {
            Age::Seconds(seconds) => u32::from_be_bytes(*field).saturating_sub(seconds),
            Age::Stale(ttl) => ttl,
        };
        *field = told.to_be_bytes();
    }
}

fn ttls(wire: &[u8]) -> Option<Ttls> {
    let records: usize = [6, 8, 10].into_iter().map(|at| u16_at(wire, at).map(usize::from)).sum::<Option<_>>()?;
    let mut at = HEADER + skip_name(wire.get(HEADER..)?)? + 4;
    // A record has eleven octets at least.
    let mut ttls = Ttls::with_capacity(records.min(wire.len() / 11));
    for _ in 0..records {
        at += skip_name(wire.get(at..)?)? + 4;
        ttls.push(u16::try_from(at).ok()?);
        at += 6 + usize::from(u16_at(wire, at + 4)?);
    }
    (at == wire.len()).then_some(ttls)
}

#[cfg(test)]
mod tests;
