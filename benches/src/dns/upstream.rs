//! The server that all others forward to: it knows one address for every name.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    thread,
};

use hickory_proto::{
    ProtoError,
    op::Message,
    rr::{Name, RData, Record, RecordType, rdata::A},
};

/// Of every name (RFC 5737).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Names below may be remembered for longer than any run, in seconds.
const KEPT: &str = "kept.bench.example.";
const TTL: u32 = 86_400;
const MAX_QUERY: usize = 4096;

/// Answers over UDP at a port of the system's choice, which it tells on standard output, until standard input ends.
pub(crate) fn run() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", socket.local_addr()?);
    // Ends with the process.
    thread::spawn(move || {
        let mut query = [0; MAX_QUERY];
        while let Ok((length, peer)) = socket.recv_from(&mut query) {
            if let Ok(answer) = answer(&query[..length]) {
                // Whoever has gone by then has no use for it.
                let _ = socket.send_to(&answer, peer);
            }
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn answer(query: &[u8]) -> Result<Vec<u8>, ProtoError> {
    let (query, kept) = (Message::from_vec(query)?, Name::from_ascii(KEPT)?);
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    for question in &query.queries {
        let name = question.name();
        // What a server says of the others before it knows its rules must not stand in for what it says then.
        let ttl = if kept.zone_of(name) { TTL } else { 0 };
        if question.query_type() == RecordType::A {
            answer.add_answer(Record::from_rdata(name.clone(), ttl, RData::A(A(ADDRESS))));
        }
        answer.add_query(question.clone());
    }
    answer.to_vec()
}
