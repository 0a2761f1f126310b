//! Takes the octets of a packet; yields the query in it, or how to answer what is none. Never knows what a name means.
//!
//! A query is a header, one question and perhaps an OPT record (RFC 1035 §4.1, RFC 6891): all that the hit path needs is read here, in wire
//! form and without allocating. Messages of any other shape are what hickory-proto is for.

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use ringfence_policy::rpz;

use super::{
    ede::Ede,
    limits::{UDP_ANSWER, UDP_ANSWER_PLAIN},
};

/// Octets of a name in wire form, the root's among them (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;
pub(super) const HEADER: usize = 12;

const CLASS_IN: u16 = 1;
const TYPE_OPT: u16 = 41;

/// Bits of the header's second and third octet.
pub(super) const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
pub(super) const TC: u8 = 0x02;
pub(super) const RD: u8 = 0x01;
pub(super) const RA: u8 = 0x80;
pub(super) const AD: u8 = 0x20;
pub(super) const CD: u8 = 0x10;

/// One question, as asked.
#[derive(Clone)]
pub struct Query {
    pub id: u16,
    pub qtype: RecordType,
    pub edns: Option<ClientEdns>,
    /// The sidecar's own question, which is answered by the host's file of names too.
    pub is_own: bool,
    class: u16,
    recursion_desired: bool,
    authentic_data: bool,
    checking_disabled: bool,
    name_len: u8,
    /// The name as the client spells it, which may be how it knows its answer (0x20).
    spelled: [u8; MAX_NAME],
    /// The name in lower case, then type and flags: what makes two questions the same.
    key: [u8; MAX_NAME + 3],
}

/// What a client says in its OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEdns {
    /// Octets of a UDP answer that it takes.
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// What is no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoQuery {
    /// Too short to have an id, or a response: two servers that answered those would go on for ever.
    Silence,
    /// To be answered with a header and nothing else. `flags`: the header's third octet, of which opcode and RD are given back.
    Reply { id: u16, flags: u8, rcode: ResponseCode },
}

impl Query {
    pub fn parse(packet: &[u8]) -> Result<Self, NoQuery> {
        let Some(header) = packet.first_chunk::<HEADER>() else { return Err(NoQuery::Silence) };
        let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (id, flags) = (field(0), header[2]);
        if flags & QR != 0 {
            return Err(NoQuery::Silence);
        }
        let reply = |rcode| NoQuery::Reply { id, flags: flags & (OPCODE | RD), rcode };
        if flags & OPCODE != 0 {
            return Err(reply(ResponseCode::NotImp));
        }
        // RFC 9619 §4: a query has one question. Answers have no place in one, but for IXFR's SOA, which is refused by its type.
        if field(4) != 1 || field(6) != 0 {
            return Err(reply(ResponseCode::FormErr));
        }
        let mut query = Self {
            id,
            qtype: RecordType::ZERO,
            edns: None,
            is_own: false,
            class: 0,
            recursion_desired: flags & RD != 0,
            authentic_data: header[3] & AD != 0,
            checking_disabled: header[3] & CD != 0,
            name_len: 0,
            spelled: [0; MAX_NAME],
            key: [0; MAX_NAME + 3],
        };
        match query.read(&packet[HEADER..], field(8), field(10)) {
            Some(()) => Ok(query),
            None => Err(reply(ResponseCode::FormErr)),
        }
    }

    /// A question of the sidecar's own.
    pub fn own(name: &rpz::Name, qtype: RecordType) -> Self {
        let mut query = Self {
            id: 0,
            qtype,
            edns: None,
            is_own: true,
            class: CLASS_IN,
            recursion_desired: true,
            authentic_data: false,
            checking_disabled: false,
            name_len: 1,
            spelled: [0; MAX_NAME],
            key: [0; MAX_NAME + 3],
        };
        query.ask_for(name, qtype, 0);
        query
    }

    fn read(&mut self, body: &[u8], authorities: u16, additionals: u16) -> Option<()> {
        let name = plain_name(body)?;
        let len = name.len();
        self.name_len = u8::try_from(len).ok()?;
        self.spelled[..len].copy_from_slice(name);
        self.key[..len].copy_from_slice(name);
        // The lengths of labels are below 'A' and stay what they are.
        self.key[..len].make_ascii_lowercase();
        let (qtype, class) = (u16_at(body, len)?, u16_at(body, len + 2)?);
        self.qtype = RecordType::from(qtype);
        self.class = class;
        let mut rest = &body[len + 4..];
        for _ in 0..authorities {
            rest = self.read_record(rest)?;
        }
        // OPT is an additional record (RFC 6891 §6.1.1).
        if self.edns.is_some() {
            return None;
        }
        for _ in 0..additionals {
            rest = self.read_record(rest)?;
        }
        if !rest.is_empty() {
            return None;
        }
        let flags = u8::from(self.dnssec_ok()) << 1 | u8::from(self.checking_disabled);
        self.key[len..len + 2].copy_from_slice(&qtype.to_be_bytes());
        self.key[len + 2] = flags;
        Some(())
    }

    /// Reads one record behind the question and gives what follows it. Only OPT means anything here; signatures (TSIG) are passed over.
    fn read_record<'a>(&mut self, record: &'a [u8]) -> Option<&'a [u8]> {
        let owner = skip_name(record)?;
        let (rtype, payload) = (u16_at(record, owner)?, u16_at(record, owner + 2)?);
        let (version, flags) = (*record.get(owner + 5)?, *record.get(owner + 6)?);
        let length = u16_at(record, owner + 8)? as usize;
        let (data, rest) = record.get(owner + 10..)?.split_at_checked(length)?;
        if rtype == TYPE_OPT {
            if self.edns.is_some() || record[0] != 0 || !are_options(data) {
                return None;
            }
            self.edns = Some(ClientEdns { payload, version, dnssec_ok: flags & 0x80 != 0 });
        }
        Some(rest)
    }

    /// Why a question that is well-formed is not looked into.
    pub fn refusal(&self) -> Option<(ResponseCode, Option<Ede>)> {
        let not_supported = |text| Some((ResponseCode::Refused, Some(Ede::new(Ede::NOT_SUPPORTED, text))));
        if self.edns.is_some_and(|edns| edns.version > 0) {
            return Some((ResponseCode::BADVERS, None));
        }
        match u16::from(self.qtype) {
            // OPT and TSIG are parts of messages; 0 is nobody's.
            0 | TYPE_OPT | 250 => return Some((ResponseCode::FormErr, None)),
            251 | 252 => return not_supported("no zone transfers"),
            // TKEY, MAILB, MAILA.
            249 | 253 | 254 => return Some((ResponseCode::NotImp, None)),
            _ => {}
        }
        if self.class != CLASS_IN {
            return not_supported("class IN only");
        }
        // This server knows nothing by itself (RFC 1035 §4.1.1).
        if !self.recursion_desired {
            return Some((ResponseCode::Refused, Some(Ede::new(Ede::NOT_AUTHORITATIVE, "recursion only"))));
        }
        None
    }

    /// Another question of the same client, flags and all.
    pub fn also(&self, name: &rpz::Name, qtype: RecordType) -> Self {
        let mut query = self.clone();
        query.ask_for(name, qtype, self.key[self.name_len as usize + 2]);
        query
    }

    fn ask_for(&mut self, name: &rpz::Name, qtype: RecordType, flags: u8) {
        let wire = name.as_wire();
        let len = wire.len();
        (self.qtype, self.name_len) = (qtype, len as u8);
        self.spelled[..len].copy_from_slice(wire);
        self.key[..len].copy_from_slice(wire);
        self.key[len..len + 2].copy_from_slice(&u16::from(qtype).to_be_bytes());
        self.key[len + 2] = flags;
    }

    /// In wire form, as spelled.
    pub fn spelled(&self) -> &[u8] {
        &self.spelled[..self.name_len as usize]
    }

    /// In wire form, in lower case.
    pub fn name(&self) -> &[u8] {
        &self.key[..self.name_len as usize]
    }

    /// Name in lower case, type, and the flags that change what upstreams answer.
    pub fn key(&self) -> &[u8] {
        &self.key[..self.name_len as usize + 3]
    }

    /// The name in lower case.
    pub fn to_name(&self) -> Name {
        let mut name = Name::root();
        for label in labels(self.name()) {
            // Cannot fail: lengths were checked when the query was read.
            name = name.clone().append_label(label).unwrap_or(name);
        }
        name
    }

    pub fn class(&self) -> u16 {
        self.class
    }

    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    pub fn checking_disabled(&self) -> bool {
        self.checking_disabled
    }

    /// Whether the client wants to know if an answer was validated (RFC 6840 §5.7).
    pub fn wants_authentic_data(&self) -> bool {
        self.authentic_data || self.dnssec_ok()
    }

    pub fn recursion_desired(&self) -> bool {
        self.recursion_desired
    }

    /// Octets that an answer over UDP may have.
    pub fn udp_answer(&self) -> usize {
        let payload = self.edns.map_or(UDP_ANSWER_PLAIN, |edns| edns.payload.clamp(UDP_ANSWER_PLAIN, UDP_ANSWER));
        payload.into()
    }
}

/// The labels of a name in wire form, without the root's.
pub fn labels(mut name: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = name.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(length.into())?;
        name = rest;
        Some(label)
    })
}

/// A name in wire form at the beginning of `octets`, without compression, which has nothing to point to there.
fn plain_name(octets: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let length = *octets.get(at)? as usize;
        at += 1 + length;
        if length > MAX_LABEL || at > MAX_NAME {
            return None;
        }
        if length == 0 {
            return octets.get(..at);
        }
    }
}

/// Octets of a name that may end in a pointer, which is not followed.
pub(super) fn skip_name(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = *octets.get(at)? as usize;
        match length {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            1..=MAX_LABEL => at += 1 + length,
            _ => return None,
        }
        if at > MAX_NAME {
            return None;
        }
    }
}

pub(super) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// Whether EDNS options are each as long as they say (RFC 6891 §6.1.2).
fn are_options(mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let Some(next) = u16_at(data, 2).and_then(|length| data.get(4 + length as usize..)) else { return false };
        data = next;
    }
    true
}

#[cfg(test)]
mod tests;
