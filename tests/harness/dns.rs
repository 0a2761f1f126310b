//! A DNS server whose answers a test may change: UDP and TCP on one port. It keeps what it was asked.
//!
//! Nothing that it says may be remembered (TTL 0), so that each question is answered from what holds then.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

pub use hickory_proto::rr::RecordType;
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    DEADLINE,
    http::{RUNTIME, block_on},
    tls,
};

pub struct Dns {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Zone {
    /// What each name leads to: the first time, the second, and from the last on always.
    names: HashMap<String, Vec<Vec<IpAddr>>>,
    /// Lower case, without the dot at the end.
    asked: Vec<(String, RecordType)>,
}

impl Default for Dns {
    fn default() -> Self {
        Self::start()
    }
}

impl Dns {
    /// On loopback, at a port of the system's choice.
    pub fn start() -> Self {
        let (udp, tcp) = bound();
        Self::serve(udp, tcp)
    }

    /// On sockets that are bound already, wherever that is.
    pub fn serve(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> Self {
        let address = udp.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (udp, tcp) = block_on(async { (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap()) });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(datagrams(udp, zone.clone()), RUNTIME.handle());
        tasks.spawn_on(connections(tcp, zone.clone()), RUNTIME.handle());
        Self { address, zone, _tasks: tasks }
    }

    /// Over TLS alone (RFC 7858), as one who is `name`.
    pub fn over_tls(name: &str) -> Self {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        tcp.set_nonblocking(true).unwrap();
        let tcp = block_on(async { TcpListener::from_std(tcp).unwrap() });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(secured(tcp, tls::server_of(&[name], &[b"dot"]).into(), zone.clone()), RUNTIME.handle());
        Self { address, zone, _tasks: tasks }
    }

    /// What `name` leads to from now on. Other names do not exist.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        self.set_in_turn(name, &[addresses]);
    }

    /// What `name` leads to the first time that it is asked for, the second, and so on; addresses of each family have turns of their own.
    pub fn set_in_turn(&self, name: &str, turns: &[&[&str]]) {
        let turns = turns.iter().map(|turn| turn.iter().map(|address| address.parse().unwrap()).collect()).collect();
        let mut zone = self.zone.lock().unwrap();
        zone.asked.retain(|(asked, _)| asked != name);
        zone.names.insert(name.to_owned(), turns);
    }

    /// How often anybody asked for `name`, whatever they wanted to know of it.
    pub fn count(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.iter().filter(|(asked, _)| asked == name).count()
    }
}

impl Zone {
    fn answer(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let mut answer = Message::from_vec(query).ok()?.into_response();
        let question = answer.queries.first()?.clone();
        let name = question.name().to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned();
        let turn = self.asked.iter().filter(|(asked, kind)| *asked == name && *kind == question.query_type()).count();
        self.asked.push((name.clone(), question.query_type()));
        let Some(turns) = self.names.get(&name) else {
            answer.metadata.response_code = ResponseCode::NXDomain;
            return answer.to_vec().ok();
        };
        for address in turns.get(turn).or(turns.last()).into_iter().flatten() {
            let data = match (address, question.query_type()) {
                (IpAddr::V4(address), RecordType::A) => RData::A(A(*address)),
                (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(*address)),
                _ => continue,
            };
            answer.add_answer(Record::from_rdata(question.name().clone(), 0, data));
        }
        answer.to_vec().ok()
    }
}

/// UDP and TCP on one port of loopback.
pub(crate) fn bound() -> (std::net::UdpSocket, std::net::TcpListener) {
    loop {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        // Another process may have the same port of TCP.
        if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

/// What the server at port 53 of an address says that a name leads to, asked from the caller's namespace and as its user.
#[track_caller]
pub fn ask(server: IpAddr, name: &str, kind: RecordType) -> Vec<IpAddr> {
    addresses(&answer((server, 53).into(), name, kind))
}

/// All that a server answers.
#[track_caller]
pub fn answer(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send(&query(name, kind)).unwrap();
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer).expect("an answer in time, from who was asked");
    Message::from_vec(&answer[..length]).unwrap()
}

/// The same over TCP.
#[track_caller]
pub fn ask_over_tcp(server: IpAddr, name: &str, kind: RecordType) -> Vec<IpAddr> {
    let mut stream = std::net::TcpStream::connect_timeout(&(server, 53).into(), DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let query = query(name, kind);
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    addresses(&Message::from_vec(&answer).unwrap())
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

async fn datagrams(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut query = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut query).await {
        let answer = zone.lock().unwrap().answer(&query[..length]);
        if let Some(answer) = answer {
            // A client that is gone needs no answer.
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn connections(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        open.spawn(queries(stream, zone.clone()));
    }
}

async fn secured(listener: TcpListener, acceptor: TlsAcceptor, zone: Arc<Mutex<Zone>>) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, zone) = (acceptor.clone(), zone.clone());
        open.spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                queries(stream, zone).await;
            }
        });
    }
}

/// Each message behind its length (RFC 1035 §4.2.2).
async fn queries(mut stream: impl AsyncRead + AsyncWrite + Unpin, zone: Arc<Mutex<Zone>>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; length.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(answer) = zone.lock().unwrap().answer(&query) else { return };
        let mut octets = (answer.len() as u16).to_be_bytes().to_vec();
        octets.extend(answer);
        if stream.write_all(&octets).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
