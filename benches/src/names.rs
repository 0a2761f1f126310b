//! The names that egress is allowed to, and a DNS server for them: all lead to loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use hickory_proto::{
    op::Message,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};

use crate::{Error, process::until_stdin_ends};

/// How long an answer may be kept, seconds: longer than a run.
const TTL: u32 = 3600;
const DOMAIN: &str = "egress.example";
const LARGEST: usize = 4096;

/// So many names.
pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("host-{number}.{DOMAIN}")).collect()
}

/// In no list.
pub(crate) fn unlisted() -> String {
    format!("unlisted.{DOMAIN}")
}

/// Answers over UDP, at a port that it tells on standard output, until standard input ends.
pub(crate) fn run() -> Result<(), Error> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("DNS"))?;
    println!("{}", socket.local_addr().map_err(Error::io("DNS"))?);
    std::thread::spawn(move || {
        let mut query = [0; LARGEST];
        while let Ok((length, peer)) = socket.recv_from(&mut query) {
            answer(&socket, &query[..length], peer);
        }
    });
    until_stdin_ends();
    Ok(())
}

fn answer(socket: &UdpSocket, query: &[u8], peer: SocketAddr) {
    let Some(answer) = Message::from_vec(query).ok().and_then(|query| reply(query)?.to_vec().ok()) else { return };
    // Who is gone needs no answer.
    let _ = socket.send_to(&answer, peer);
}

/// 127.0.0.1 whatever the name is, listed or not; no other address (RFC 2308: an SOA says how long that holds).
fn reply(query: Message) -> Option<Message> {
    let mut reply = query.into_response();
    let question = reply.queries.first()?.clone();
    if question.query_type() == RecordType::A {
        reply.add_answer(Record::from_rdata(question.name().clone(), TTL, RData::A(A(Ipv4Addr::LOCALHOST))));
    } else {
        let zone = Name::from_ascii(DOMAIN).ok()?;
        let second = i32::try_from(TTL).ok()?;
        let soa = SOA::new(zone.clone(), zone.clone(), 1, second, second, second, TTL);
        reply.add_authority(Record::from_rdata(zone, TTL, RData::SOA(soa)));
    }
    Some(reply)
}
