//! The server that all others forward to: it knows one address for every name.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    thread,
};

use hickory_proto::{
    ProtoError,
    op::Message,
    rr::{RData, Record, RecordType, rdata::A},
};

/// Of every name (RFC 5737).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Seconds: longer than any run.
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
    let query = Message::from_vec(query)?;
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    for question in &query.queries {
        if question.query_type() == RecordType::A {
            answer.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::A(A(ADDRESS))));
        }
        answer.add_query(question.clone());
    }
    answer.to_vec()
}
