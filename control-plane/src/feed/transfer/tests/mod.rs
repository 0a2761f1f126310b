//! A primary of our own: sockets that speak the protocol, and say what a test tells them to, well or badly.

mod fetches;
mod notifications;
mod transfers;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        self, Name, RData, RecordType,
        rdata::{
            A, SOA, TSIG,
            tsig::{TsigAlgorithm, TsigError, make_tsig_record},
        },
    },
    serialize::binary::{BinEncodable, BinEncoder},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::{Algorithm, Primary, TsigKey, connection::now, message::Parts};

const SECRET: &[u8] = b"a secret of thirty-two octets ..";
const ZONE: &str = "rpz.test.";

fn key(secret: &[u8]) -> TsigKey {
    TsigKey::new(&"key.test".parse().unwrap(), Algorithm::HmacSha256, secret).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn soa(serial: u32) -> rr::Record {
    let data = SOA::new(name("ns.rpz.test."), name("root.rpz.test."), serial, 3600, 600, 86400, 60);
    rr::Record::from_rdata(name(ZONE), 60, RData::SOA(data))
}

fn a(owner: &str) -> rr::Record {
    let owner = if owner.ends_with('.') { owner.to_owned() } else { format!("{owner}.{ZONE}") };
    rr::Record::from_rdata(name(&owner), 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))))
}

/// Records in short: `7` is an SOA record with that serial, `bad` an address of `bad.rpz.test`; `|` begins another message.
fn messages(text: &str) -> Vec<Vec<rr::Record>> {
    let records = |part: &str| part.split_whitespace().map(|word| word.parse().map_or_else(|_| a(word), soa)).collect();
    text.split('|').map(records).collect()
}

/// What is said to a question.
#[derive(Clone)]
struct Reply {
    messages: Vec<Vec<rr::Record>>,
    sign: Sign,
    twist: Twist,
}

#[derive(Clone, Copy)]
enum Sign {
    No,
    Each,
    /// The messages of these numbers.
    Only(&'static [usize]),
    With(&'static [u8]),
    /// Seconds from now.
    At(i64),
    Error(TsigError),
}

#[derive(Clone, Copy)]
enum Twist {
    None,
    OtherId,
    OtherQuestion,
    Rcode(ResponseCode),
    /// Ends in the middle of the last message.
    Cut,
    /// Says no more, and holds on.
    Hold,
    /// The last message again and again.
    Endless,
    Garbage,
}

impl Reply {
    fn new(text: &str) -> Self {
        Self { messages: messages(text), sign: Sign::No, twist: Twist::None }
    }

    fn signed(self, sign: Sign) -> Self {
        Self { sign, ..self }
    }

    fn twisted(self, twist: Twist) -> Self {
        Self { twist, ..self }
    }
}

#[derive(Default)]
struct Script {
    replies: HashMap<RecordType, Reply>,
    asked: Vec<(RecordType, bool)>,
}

/// The primary.
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: AbortHandle,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Arc::<Mutex<Script>>::default());
        let shared = script.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, script, task: task.abort_handle() }
    }

    fn says(&self, rtype: RecordType, reply: Reply) {
        self.script.lock().unwrap().replies.insert(rtype, reply);
    }

    /// What was asked for since the last time, and whether it was signed.
    fn asked(&self) -> Vec<(RecordType, bool)> {
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }

    fn primary(&self, tsig: Option<TsigKey>) -> Arc<Primary> {
        Arc::new(Primary::new(&self.address.to_string(), ZONE.parse().unwrap(), tsig, None).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) -> Option<()> {
    let mut query = vec![0; stream.read_u16().await.ok()?.into()];
    stream.read_exact(&mut query).await.ok()?;
    let signature = Parts::read(&query).unwrap().signature.map(|signature| signature.data.mac);
    let query = Message::from_vec(&query).unwrap();
    let question = query.queries[0].clone();
    let reply = {
        let mut script = script.lock().unwrap();
        script.asked.push((question.query_type(), signature.is_some()));
        script.replies.get(&question.query_type())?.clone()
    };
    let mut digest = signature.map(|mac| after(SECRET, &mac));
    let last = reply.messages.len() - 1;
    for (number, records) in reply.messages.iter().enumerate() {
        let octets = reply.message(&query, &question, number, records, &mut digest);
        let framed = [&(octets.len() as u16).to_be_bytes()[..], &octets].concat();
        let sent = match reply.twist {
            Twist::Cut if number == last => &framed[..framed.len() / 2],
            _ => &framed,
        };
        stream.write_all(sent).await.ok()?;
        if matches!(reply.twist, Twist::Endless) && number == last {
            loop {
                stream.write_all(sent).await.ok()?;
            }
        }
    }
    if matches!(reply.twist, Twist::Hold) {
        std::future::pending::<()>().await;
    }
    Some(())
}

impl Reply {
    fn message(
        &self,
        query: &Message,
        question: &Query,
        number: usize,
        records: &[rr::Record],
        digest: &mut Option<hmac::Context>,
    ) -> Vec<u8> {
        let mut message = Message::response(query.metadata.id, query.metadata.op_code);
        let mut question = question.clone();
        match self.twist {
            Twist::OtherId => message.metadata.id = message.metadata.id.wrapping_add(1),
            Twist::OtherQuestion => drop(question.set_query_type(RecordType::TXT)),
            Twist::Rcode(rcode) => message.metadata.response_code = rcode,
            Twist::Garbage => return vec![0xff; 40],
            _ => {}
        }
        if number == 0 {
            message.add_query(question);
        }
        message.insert_answers(records.to_vec());
        let mut octets = message.to_vec().unwrap();
        let Some(signed) = digest else { return octets };
        let (secret, time, error) = match self.sign {
            Sign::No => return octets,
            Sign::Only(numbers) if !numbers.contains(&number) => {
                signed.update(&octets);
                return octets;
            }
            Sign::Each | Sign::Only(_) => (SECRET, now(), None),
            Sign::With(secret) => (secret, now(), None),
            Sign::At(seconds) => (SECRET, now().saturating_add_signed(seconds), None),
            Sign::Error(error) => (SECRET, now(), Some(error)),
        };
        let data = TSIG::new(TsigAlgorithm::HmacSha256, time, 300, Vec::new(), query.metadata.id, error, Vec::new());
        signed.update(&octets);
        if number == 0 {
            let mut variables = Vec::new();
            data.emit_tsig_for_mac(&mut BinEncoder::new(&mut variables), &name("key.test.")).unwrap();
            signed.update(&variables);
        } else {
            signed.update(&[&time.to_be_bytes()[2..], &300u16.to_be_bytes()].concat());
        }
        let used = std::mem::replace(signed, hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret)));
        let mut mac = used.sign().as_ref().to_vec();
        if secret != SECRET {
            mac[0] ^= 1;
        }
        *signed = after(SECRET, &mac);
        octets.extend(make_tsig_record(name("key.test."), data.set_mac(mac)).to_bytes().unwrap());
        octets[11] += 1;
        octets
    }
}

/// A digest that begins with a signature.
fn after(secret: &[u8], mac: &[u8]) -> hmac::Context {
    let mut digest = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    digest.update(&[&(mac.len() as u16).to_be_bytes()[..], mac].concat());
    digest
}

/// Nothing of a test's own takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
