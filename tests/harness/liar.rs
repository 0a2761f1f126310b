//! A DNS server that says whatever a test wants, octet by octet, over UDP and TCP on one port. It keeps what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
};

use crate::{
    dns::bound,
    http::{RUNTIME, block_on},
};

pub struct Liar {
    pub address: SocketAddr,
    state: Arc<State>,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

/// What is said to each question.
type Script = dyn Fn(&Asked) -> Says + Send + Sync;

struct State {
    script: Box<Script>,
    asked: Mutex<Vec<(String, RecordType, bool)>>,
    released: watch::Sender<bool>,
}

/// A question that has come.
pub struct Asked {
    pub query: Message,
    pub over_tcp: bool,
}

pub enum Says {
    /// Nothing; a connection stays open.
    Nothing,
    /// These messages, one after another.
    Messages(Vec<Vec<u8>>),
    /// The message, once the test has called [`Liar::release`].
    Held(Vec<u8>),
    /// The message, from another port. UDP only.
    FromElsewhere(Vec<u8>),
    /// These octets as they are, and nothing more, on a connection that stays open. TCP only.
    Octets(Vec<u8>),
    /// The connection ends.
    Closes,
}

impl Asked {
    /// In lower case, without the dot at the end.
    pub fn name(&self) -> String {
        self.query.queries[0].name().to_ascii().to_ascii_lowercase().trim_end_matches('.').to_owned()
    }

    pub fn rtype(&self) -> RecordType {
        self.query.queries[0].query_type()
    }

    /// With these records in its answer section.
    pub fn answer(&self, rcode: ResponseCode, answers: impl IntoIterator<Item = Record>) -> Message {
        let mut answer = self.query.clone().into_response();
        answer.metadata.response_code = rcode;
        answer.metadata.recursion_available = true;
        answer.add_answers(answers);
        answer
    }
}

impl From<Message> for Says {
    fn from(message: Message) -> Self {
        Says::Messages(vec![message.to_vec().expect("it can be written")])
    }
}

impl Liar {
    /// On loopback, at a port of the system's choice.
    pub fn start(script: impl Fn(&Asked) -> Says + Send + Sync + 'static) -> Self {
        let (udp, tcp) = bound();
        let address = udp.local_addr().unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (udp, tcp) = block_on(async { (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap()) });
        let state = Arc::new(State { script: Box::new(script), asked: Mutex::default(), released: watch::Sender::new(false) });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(datagrams(Arc::new(udp), state.clone()), RUNTIME.handle());
        tasks.spawn_on(connections(tcp, state.clone()), RUNTIME.handle());
        Self { address, state, _tasks: tasks }
    }

    /// Says what was held back, from now on at once.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// What was asked so far: name, type, and whether over TCP.
    pub fn asked(&self) -> Vec<(String, RecordType, bool)> {
        self.state.asked.lock().unwrap().clone()
    }

    /// How often anybody asked for `name`.
    pub fn count(&self, name: &str) -> usize {
        self.state.asked.lock().unwrap().iter().filter(|(asked, ..)| asked == name).count()
    }
}

impl State {
    fn says(&self, query: &[u8], over_tcp: bool) -> Says {
        let Ok(query) = Message::from_vec(query) else { return Says::Nothing };
        let asked = Asked { query, over_tcp };
        self.asked.lock().unwrap().push((asked.name(), asked.rtype(), over_tcp));
        (self.script)(&asked)
    }

    async fn released(&self) {
        // Fails only where the state is gone, and it is here.
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }
}

async fn datagrams(socket: Arc<UdpSocket>, state: Arc<State>) {
    let mut query = [0; 4096];
    let mut held = JoinSet::new();
    while let Ok((length, peer)) = socket.recv_from(&mut query).await {
        // A client that is gone needs no answer: nor does a failed send matter below.
        match state.says(&query[..length], false) {
            Says::Messages(messages) => {
                for message in messages {
                    let _ = socket.send_to(&message, peer).await;
                }
            }
            Says::Held(message) => {
                let (socket, state) = (socket.clone(), state.clone());
                held.spawn(async move {
                    state.released().await;
                    let _ = socket.send_to(&message, peer).await;
                });
            }
            Says::FromElsewhere(message) => {
                let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let _ = elsewhere.send_to(&message, peer).await;
            }
            Says::Nothing | Says::Octets(_) | Says::Closes => {}
        }
    }
}

async fn connections(listener: TcpListener, state: Arc<State>) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        open.spawn(queries(stream, state.clone()));
    }
}

/// Each message behind its length (RFC 1035 §4.2.2).
async fn queries(mut stream: TcpStream, state: Arc<State>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; length.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let octets = match state.says(&query, true) {
            Says::Messages(messages) => messages.iter().flat_map(|message| framed(message)).collect(),
            Says::Held(message) => {
                state.released().await;
                framed(&message)
            }
            Says::Octets(octets) => {
                let _ = stream.write_all(&octets).await;
                return std::future::pending().await;
            }
            Says::Nothing | Says::FromElsewhere(_) => continue,
            Says::Closes => return,
        };
        if stream.write_all(&octets).await.is_err() {
            return;
        }
    }
}

/// A message behind its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("a message is that long at most").to_be_bytes()[..], message].concat()
}
