//! The DNS listener withstands whoever asks and whoever answers: each gets the RCODE that is due, or silence; the next good query has its
//! answer; memory does not grow.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
        rdata::{A, CNAME, SOA},
    },
};
use ringfence_tests::{
    DEADLINE, Liar, Site, Up,
    liar::{Asked, Says, framed},
    site::object,
};
use rustix::net::sockopt;

mod aliases;
mod clients;
mod floods;
mod lies;
mod malformed;
mod slow;

/// Refused by the platform's zone, with all below it: answered at once, and no upstream hears of it.
const REFUSED: &str = "refused.test";
/// Octets of UDP answers that the sidecar takes part in (RFC 9715).
const UDP_ANSWER: usize = 1232;

/// A sidecar that asks upstreams that lie.
struct World {
    up: Up,
    server: SocketAddr,
    liar: Liar,
    _site: Site,
}

impl World {
    fn new(script: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Self {
        Self::with(&[], script)
    }

    /// `others`: asked after the liar.
    fn with(others: &[SocketAddr], script: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Self {
        let (site, liar) = (Site::new(), Liar::start(script));
        site.write("own.rpz", &format!("@ SOA ns host 1 3600 900 86400 60\n{REFUSED} CNAME .\n*.{REFUSED} CNAME .\n"));
        site.write("own.yaml", &object("PolicyZone", "own", "{ file: own.rpz }"));
        site.tenant("acme", "dns: { zones: [own] }");
        let upstreams: Vec<String> = [liar.address].iter().chain(others).map(|address| format!("\"udp://{address}\"")).collect();
        let dns = format!("{{ listen: 127.0.0.1:0, upstreams: [{}] }}", upstreams.join(", "));
        site.write("job.yaml", &object("Workload", "job", &format!("{{ tenant: acme, dns: {dns} }}")));
        let up = Up::start(&site.dir());
        let server = up.admin("job").listener("dns");
        Self { up, server, liar, _site: site }
    }

    fn pid(&self) -> u32 {
        self.up.sidecar_pid("job").expect("the sidecar runs")
    }

    /// What comes of a question of a client of its own.
    #[track_caller]
    fn ask(&self, name: &str, rtype: RecordType) -> Told {
        Client::new(self.server).ask(name, rtype)
    }
}

/// What a client was told.
#[derive(Debug)]
struct Told {
    rcode: ResponseCode,
    /// EDE (RFC 8914): its number.
    error: Option<u16>,
    /// What addresses and texts there are, in their order.
    data: Vec<String>,
    message: Message,
}

impl Told {
    fn of(octets: &[u8]) -> Self {
        let message = Message::from_vec(octets).expect("an answer is a message");
        let error = message.edns.as_ref().and_then(|edns| match edns.option(EdnsCode::Unknown(15))? {
            EdnsOption::Unknown(_, data) => data.first_chunk().copied().map(u16::from_be_bytes),
            _ => None,
        });
        let data = message.answers.iter().filter(|record| record.record_type() != RecordType::CNAME);
        let data = data.map(|record| record.data.to_string()).collect();
        Self { rcode: message.metadata.response_code, error, data, message }
    }

    /// In short: the RCODE, or the data where there are any.
    fn short(&self) -> String {
        if self.data.is_empty() { format!("{:?}", self.rcode) } else { self.data.join(" ") }
    }
}

/// For the answers that have come and are not read yet, in octets: those of a flood are given up at once, and what comes then and finds no
/// room is lost, the answer that a test waits for with it.
const ROOM: usize = 8 * 1024 * 1024;

/// A client of its own port: the sidecar's thread that serves it stays the same.
struct Client {
    socket: UdpSocket,
    id: u16,
}

impl Client {
    fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // Root gets what it asks for, others what the system allows.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, ROOM).or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, ROOM));
        Self { socket, id: 0 }
    }

    #[track_caller]
    fn ask(&mut self, name: &str, rtype: RecordType) -> Told {
        let id = self.send(name, rtype);
        Told::of(&self.answers_until(id).pop().expect("the last is the one waited for"))
    }

    /// The id that it is sent with.
    fn send(&mut self, name: &str, rtype: RecordType) -> u16 {
        self.id = self.id.wrapping_add(1);
        // The kernel has no room: as good as lost on the way.
        let _ = self.socket.send(&query(self.id, name, rtype));
        self.id
    }

    /// The answers that come up to the one with this id.
    #[track_caller]
    fn answers_until(&self, id: u16) -> Vec<Vec<u8>> {
        let (mut answers, mut octets) = (Vec::new(), [0; 4096]);
        loop {
            let length = self.socket.recv(&mut octets).expect("an answer in time");
            answers.push(octets[..length].to_vec());
            if octets[..2] == id.to_be_bytes() {
                return answers;
            }
        }
    }
}

/// A connection of a client, many queries long.
struct Stream(TcpStream);

impl Stream {
    #[track_caller]
    fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&server, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    #[track_caller]
    fn send(&mut self, octets: &[u8]) {
        self.0.write_all(octets).unwrap();
    }

    /// The next message. `None`: the connection has ended.
    #[track_caller]
    fn message(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 2];
        if let Err(error) = self.0.read_exact(&mut length) {
            assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "neither an answer nor an end");
            return None;
        }
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        self.0.read_exact(&mut message).unwrap();
        Some(message)
    }

    #[track_caller]
    fn ask(&mut self, name: &str, rtype: RecordType) -> Told {
        self.send(&framed(&query(7, name, rtype)));
        Told::of(&self.message().expect("an answer"))
    }
}

/// With EDNS.
fn query(id: u16, name: &str, rtype: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(self::name(name), rtype));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_ANSWER as u16);
    message.edns = Some(edns);
    message.to_vec().unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn cname(owner: &str, to: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(to))))
}

fn soa(owner: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::SOA(SOA::new(name("ns.test"), name("host.test"), 1, 2, 3, 4, 60)))
}

/// A good answer: an address.
fn good(asked: &Asked) -> Says {
    asked.answer(ResponseCode::NoError, [a(&asked.name(), 600, 1)]).into()
}

/// What `good` comes to.
const GOOD: &str = "192.0.2.1";

/// From a question to its answer, all upstreams together (`limits::DEADLINE`).
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);
