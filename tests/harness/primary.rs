//! A primary whose zone a test may change: SOA, AXFR and IXFR over TCP, without signatures.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    DEADLINE,
    http::{RUNTIME, block_on},
};

pub const ZONE: &str = "rpz.test.";

/// Ended when it is dropped.
pub struct Primary {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Zone {
    /// The names that do not exist, in each version; the first has serial 1.
    versions: Vec<Vec<String>>,
    asked: Vec<RecordType>,
}

impl Primary {
    /// With a zone by which these names do not exist.
    pub fn start(names: &[&str]) -> Self {
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let mut tasks = JoinSet::new();
        let shared = zone.clone();
        let serve = async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(answer(stream, shared.clone()));
            }
        };
        tasks.spawn_on(serve, RUNTIME.handle());
        let primary = Self { address, zone, _tasks: tasks };
        primary.edit(names);
        primary
    }

    /// The next version.
    pub fn edit(&self, names: &[&str]) {
        self.zone.lock().unwrap().versions.push(names.iter().map(ToString::to_string).collect());
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<RecordType> {
        self.zone.lock().unwrap().asked.clone()
    }

    /// Tells a listener that the zone has changed (RFC 1996); yields what it says to that.
    #[track_caller]
    pub fn notify(&self, listener: SocketAddr) -> ResponseCode {
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Notify;
        message.add_query(Query::query(Name::from_ascii(ZONE).unwrap(), RecordType::SOA));
        let socket = UdpSocket::bind((self.address.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send_to(&message.to_vec().unwrap(), listener).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).expect("an answer in time");
        Message::from_vec(&answer[..length]).unwrap().metadata.response_code
    }
}

impl Zone {
    fn answer(&mut self, question: &Query) -> Vec<Record> {
        self.asked.push(question.query_type());
        let last = self.versions.len();
        let rules = |version: usize| self.versions[version - 1].iter().map(|name| rule(name));
        let mut records = vec![soa(last)];
        match question.query_type() {
            RecordType::SOA => return records,
            RecordType::IXFR => {
                for version in 1..last {
                    records.push(soa(version));
                    records.extend(rules(version));
                    records.push(soa(version + 1));
                    records.extend(rules(version + 1));
                }
            }
            _ => records.extend(rules(last)),
        }
        records.push(soa(last));
        records
    }
}

fn rule(name: &str) -> Record {
    Record::from_rdata(Name::from_ascii(format!("{name}.{ZONE}")).unwrap(), 60, RData::CNAME(CNAME(Name::root())))
}

fn soa(version: usize) -> Record {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let data = SOA::new(name("ns.rpz.test."), name("root.rpz.test."), version as u32, 3600, 600, 86400, 60);
    Record::from_rdata(name(ZONE), 60, RData::SOA(data))
}

/// One question (RFC 1035 §4.2.2).
async fn answer(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) -> Option<()> {
    let mut query = vec![0; stream.read_u16().await.ok()?.into()];
    stream.read_exact(&mut query).await.ok()?;
    let mut message = Message::from_vec(&query).ok()?.into_response();
    let question = message.queries.first()?.clone();
    message.authorities.clear();
    message.insert_answers(zone.lock().unwrap().answer(&question));
    let octets = message.to_vec().unwrap();
    stream.write_all(&[&(octets.len() as u16).to_be_bytes()[..], &octets].concat()).await.ok()
}
