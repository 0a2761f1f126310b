//! Upstreams that answer as a test says, and the route that asks them.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, Query as Question, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA},
    },
};
use ringfence_policy::{
    Snapshot,
    budget::{Budget, Limit},
    rpz::Policy,
    tenant::{DnsPolicy, DnsTransport, DnsUpstream, ServedTenants, WorkloadPolicy},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::{LocalSet, spawn_local},
    time::timeout,
};

use crate::{
    config::{Current, learn::Learner},
    context::Contexts,
    data::Shared,
    dns::{Dns, Step, answer::Transport, exchange::Exchange, listener},
    limiter::{Bounds, Limiter},
    telemetry::trace::Tracing,
};

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async { timeout(HANG, test).await.expect("the test hangs") }));
}

/// The same with tokio's clock standing still, but for jumps to the next timer when nobody has anything to do.
pub(super) fn run_paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test));
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

pub(super) fn aaaa(owner: &str, ttl: u32, last: u16) -> Record {
    Record::from_rdata(name(owner), ttl, RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)))
}

pub(super) fn cname(owner: &str, ttl: u32, to: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(to))))
}

pub(super) fn soa(owner: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::SOA(SOA::new(name("ns."), name("host."), 1, 2, 3, 4, ttl)))
}

/// The answer to `query` with these records; the SOA among them is its proof that there is nothing.
pub(super) fn reply(query: &Message, rcode: ResponseCode, records: Vec<Record>) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.response_code = rcode;
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.queries = query.queries.clone();
    let (proofs, answers) = records.into_iter().partition(|record| record.record_type() == RecordType::SOA);
    (message.authorities, message.answers) = (proofs, answers);
    if query.edns.is_some() {
        message.set_edns(Edns::new());
    }
    message
}

/// What an upstream is asked, and over what.
pub(super) struct Asked<'a> {
    pub(super) query: &'a Message,
    pub(super) transport: Transport,
    /// Of all that it was asked, from 1.
    pub(super) count: usize,
}

impl Asked<'_> {
    pub(super) fn name(&self) -> String {
        self.query.queries[0].name.to_lowercase().to_string()
    }

    pub(super) fn answer(&self, records: Vec<Record>) -> Option<Vec<u8>> {
        Some(reply(self.query, ResponseCode::NoError, records).to_vec().unwrap())
    }

    pub(super) fn rcode(&self, rcode: ResponseCode, records: Vec<Record>) -> Option<Vec<u8>> {
        Some(reply(self.query, rcode, records).to_vec().unwrap())
    }
}

/// The packet that answers another, or none.
type Script = dyn Fn(&[u8], Transport) -> Option<Vec<u8>>;

/// One upstream, over UDP and TCP.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    pub(super) asked: Rc<Cell<usize>>,
}

impl Stub {
    /// `script`: `None` is silence.
    pub(super) fn start(script: impl Fn(&Asked<'_>) -> Option<Vec<u8>> + 'static) -> Self {
        let (udp, tcp) = listener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = udp.local_addr().unwrap();
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let script: Rc<Script> = Rc::new(move |packet, transport| {
            count.update(|count| count + 1);
            script(&Asked { query: &Message::from_vec(packet).unwrap(), transport, count: count.get() })
        });
        let over_tcp = script.clone();
        spawn_local(async move {
            let socket = UdpSocket::from_std(udp).unwrap();
            let mut packet = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                if let Some(answer) = script(&packet[..length], Transport::Udp) {
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        spawn_local(async move {
            let listener = TcpListener::from_std(tcp).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                let script = over_tcp.clone();
                spawn_local(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut packet = vec![0; length.into()];
                        stream.read_exact(&mut packet).await.unwrap();
                        if let Some(answer) = script(&packet, Transport::Tcp) {
                            stream.write_u16(answer.len() as u16).await.unwrap();
                            stream.write_all(&answer).await.unwrap();
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub(super) fn upstream(&self) -> DnsUpstream {
        DnsUpstream { transport: DnsTransport::Udp, address: self.address }
    }
}

/// The route of one thread.
#[derive(Clone)]
pub(super) struct Rig {
    pub(super) dns: Rc<Dns>,
    pub(super) shared: Shared,
    /// Who asks.
    pub(super) client: Rc<Cell<IpAddr>>,
    pushed: Rc<RefCell<Pushed>>,
}

/// What is in force.
#[derive(Clone, Default)]
struct Pushed {
    generation: u64,
    upstreams: Option<Vec<DnsUpstream>>,
    upstream_ca: Vec<Arc<[u8]>>,
    zones: Option<Policy>,
    budget: Budget,
    serve_stale: Option<Duration>,
}

impl Rig {
    pub(super) fn new(upstreams: Vec<DnsUpstream>) -> Self {
        let shared = Shared {
            current: Default::default(),
            used: Default::default(),
            limiter: Arc::new(Limiter::new(Instant::now(), Bounds::default())),
            learner: Learner::new().0,
            access_log: None,
            metrics: Default::default(),
            tracing: Tracing::off(),
            svid: tokio::sync::watch::channel(None).1,
            resolvers: Arc::default(),
            own: Default::default(),
            ids: Default::default(),
            bindings: Default::default(),
            contexts: Contexts::new().unwrap().into(),
        };
        let rig = Self {
            dns: Rc::new(Dns::new(shared.clone())),
            shared,
            client: Rc::new(Cell::new([127, 0, 0, 1].into())),
            pushed: Rc::default(),
        };
        rig.pushed.borrow_mut().zones = Some(Policy::default());
        rig.push(Some(upstreams));
        rig
    }

    /// As a bootstrap that names `resolvers`.
    pub(super) fn resolving_by(mut self, resolvers: &[SocketAddr]) -> Self {
        self.shared.resolvers = resolvers.into();
        self.dns = Rc::new(Dns::new(self.shared.clone()));
        self
    }

    /// Puts other upstreams in force.
    pub(super) fn push(&self, upstreams: Option<Vec<DnsUpstream>>) {
        self.pushed.borrow_mut().upstreams = upstreams;
        self.swap();
    }

    /// Trusts these authorities, in DER, for upstreams over TLS and HTTPS.
    pub(super) fn trust(&self, upstream_ca: Vec<Arc<[u8]>>) {
        self.pushed.borrow_mut().upstream_ca = upstream_ca;
        self.swap();
    }

    /// Puts other policy zones in force.
    pub(super) fn filter(&self, zones: Option<Policy>) {
        self.pushed.borrow_mut().zones = zones;
        self.swap();
    }

    /// Puts other limits in force.
    pub(super) fn limit(&self, limits: impl IntoIterator<Item = Limit>) {
        self.pushed.borrow_mut().budget = limits.into_iter().map(Arc::new).collect();
        self.swap();
    }

    pub(super) fn serve_stale(&self, serve_stale: Duration) {
        self.pushed.borrow_mut().serve_stale = Some(serve_stale);
        self.swap();
    }

    fn swap(&self) {
        let mut pushed = self.pushed.borrow_mut();
        pushed.generation += 1;
        let Pushed { generation, upstreams, upstream_ca, zones, budget, serve_stale } = pushed.clone();
        let workload = WorkloadPolicy {
            name: "test".parse().unwrap(),
            tenants: ServedTenants::Any,
            issuers: Default::default(),
            inbound: vec![],
            outbound: None,
            dns: upstreams.map(|upstreams| DnsPolicy {
                listen: "127.0.0.1:0".parse().ok(),
                upstreams,
                upstream_ca,
                serve_stale,
                zones: Default::default(),
            }),
        };
        let snapshot = Snapshot {
            generation,
            identity_generation: 1,
            workload: Arc::new(workload),
            platform: Default::default(),
            trust: None,
            tenants: Default::default(),
            issuers: Vec::new(),
            versions: Vec::new(),
            bindings: Default::default(),
            zones,
            budget,
        };
        let current: &Current = &self.shared.current;
        current.swap(snapshot.into());
    }

    /// One query, whatever it takes to answer it.
    pub(super) async fn send(&self, packet: &[u8], transport: Transport, now: Instant) -> Vec<u8> {
        let mut answer = Vec::new();
        let exchange = Exchange { listener: "127.0.0.1:0".parse().unwrap(), client: self.client.get(), transport, begun: now };
        if let Step::Wait(pending) = self.dns.begin(packet, exchange, &mut answer) {
            self.dns.finish(*pending, &mut answer).await;
        }
        answer
    }

    pub(super) async fn ask(&self, query: &Message) -> Message {
        Message::from_vec(&self.send(&query.to_vec().unwrap(), Transport::Udp, Instant::now()).await).unwrap()
    }

    /// Asked as a stub resolver does, with EDNS.
    pub(super) async fn look_up(&self, text: &str, qtype: RecordType) -> Message {
        self.ask(&query(text, qtype)).await
    }
}

pub(super) fn query(text: &str, qtype: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name(text), qtype));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

/// Rcode, records of the answer and authorities with their TTLs, and the extended error.
pub(super) fn told(message: &Message) -> String {
    let records = |records: &[Record]| -> Vec<String> {
        records.iter().map(|record| format!("{} {} {} {}", record.name, record.ttl, record.record_type(), data(&record.data))).collect()
    };
    let mut parts = vec![format!("{:?}", message.metadata.response_code)];
    parts.extend(records(&message.answers));
    parts.extend(records(&message.authorities).into_iter().map(|record| format!("! {record}")));
    if let Some(ede) = message.edns.as_ref().and_then(crate::dns::ede::Ede::of) {
        parts.push(format!("EDE {}", ede.code));
    }
    parts.join("; ")
}

fn data(data: &RData) -> String {
    match data {
        RData::SOA(_) => "…".to_owned(),
        RData::Unknown { rdata, .. } => format!("{:?}", rdata.anything),
        data => data.to_string(),
    }
}
