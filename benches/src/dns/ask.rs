//! One question: what a server says to it, and how long it takes until it says what is right.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use hickory_proto::{
    ProtoError,
    op::{Message, Query},
    rr::{Name, RecordType},
};

use crate::{Error, process::POLL};

pub(super) const NOERROR: u8 = 0;
pub(super) const NXDOMAIN: u8 = 3;
/// Where the header keeps the RCODE, in the lower half (RFC 1035 §4.1.1).
const RCODE: usize = 3;
pub(super) const HEADER: usize = 12;
pub(super) const MAX_ANSWER: usize = 4096;
/// After which a server that does not answer is asked again.
const PATIENCE: Duration = Duration::from_millis(10);

/// A query for an address, without EDNS, as a stub resolver sends it.
pub(super) fn question(name: &str) -> Result<Vec<u8>, Error> {
    let encode = || {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_str(&format!("{name}."))?, RecordType::A));
        query.to_vec()
    };
    encode().map_err(|error: ProtoError| Error::Unexpected(format!("{name}: {error}")))
}

pub(super) fn rcode(answer: &[u8]) -> u8 {
    answer.get(RCODE).map_or(u8::MAX, |octet| octet & 0x0f)
}

pub(super) fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    Ok(socket)
}

/// Asks until the server answers so; `every`: how often. Yields the time it took.
pub(super) fn until(server: SocketAddr, name: &str, wanted: u8, every: Duration, limit: Duration) -> Result<Duration, Error> {
    let question = question(name)?;
    let started = Instant::now();
    let mut said = None;
    while started.elapsed() < limit {
        // A server that is not there yet is told by the next operation on the socket.
        said = once(server, &question).ok().or(said);
        if said == Some(wanted) {
            return Ok(started.elapsed());
        }
        thread::sleep(every);
    }
    Err(Error::Unexpected(format!("{server} must answer {name} with RCODE {wanted}; after {limit:?} its last answer was {said:?}")))
}

fn once(server: SocketAddr, question: &[u8]) -> io::Result<u8> {
    let socket = connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(question)?;
    let mut answer = [0; MAX_ANSWER];
    let length = socket.recv(&mut answer)?;
    Ok(rcode(&answer[..length]))
}

/// `until`, as often as may be.
pub(super) fn first(server: SocketAddr, name: &str, wanted: u8, limit: Duration) -> Result<Duration, Error> {
    until(server, name, wanted, POLL, limit)
}
