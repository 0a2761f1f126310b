//! Both ends of the route for tests: a sidecar whose captured connections the test names the original destination of, a server, and a
//! resolver of a few names.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use ringfence_policy::{
    RuleRef, Snapshot,
    egress::{EgressPolicy, EgressRule, PlatformEgress, Protocol},
    ratelimit::{Mode, Per, Rate},
    tenant::{Capture, DnsPolicy, DnsTransport, DnsUpstream, OutboundPolicy, PlatformPolicy, ServedTenants, TenantPolicy, WorkloadPolicy},
};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::{LocalSet, spawn_local},
    time::timeout,
};

use super::super::{Outbound, connection, own::Own};
use crate::{
    config::{Current, learn::Learner},
    context::Contexts,
    data::Shared,
    dns::Dns,
    limiter::{Bounds, Limiter},
    listeners::{Drain, ListenerKey, Role},
    telemetry::{access_log::AccessLog, access_log::AccessLogWriter, metrics::Metrics, trace::Tracing},
};

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async { timeout(HANG, test).await.expect("the test hangs") }));
}

/// What a test writes of a tenant's egress: `hosts`, `cidrs` and a protocol; the port is the server's.
pub(super) struct Rule(pub(super) &'static [&'static str], pub(super) &'static [&'static str], pub(super) Protocol);

pub(super) fn policy(rules: &[Rule], port: u16) -> EgressPolicy {
    let rule = |(i, Rule(hosts, cidrs, protocol)): (usize, &Rule)| EgressRule {
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        ports: vec![port],
        protocol: *protocol,
        requests: Vec::new(),
        peer: None,
        rule: RuleRef::new(format!("Tenant/acme: egress.allow[{i}]")),
    };
    let rate = Rate { count: NonZeroU32::new(1000).unwrap(), per: Per::Second };
    EgressPolicy { rules: rules.iter().enumerate().map(rule).collect(), connection_rate: Some(rate), ..EgressPolicy::default() }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Sidecar {
    pub(super) outbound: Rc<Outbound>,
    resolver: SocketAddr,
    generation: std::cell::Cell<u64>,
    listener: TcpListener,
    _drain: watch::Sender<Option<crate::listeners::Stop>>,
    drain: Drain,
    lines: Lines,
    writer: AccessLogWriter,
}

impl Sidecar {
    /// Of tenant acme's dedicated workload; loopback may be reached.
    pub(super) async fn start(egress: EgressPolicy) -> Self {
        let lines = Lines::default();
        let metrics = Arc::new(Metrics::new());
        let (log, writer) = AccessLog::start(lines.clone(), "test".parse().unwrap(), &metrics).unwrap();
        let shared = Shared {
            current: Arc::new(Current::default()),
            used: Default::default(),
            limiter: Arc::new(Limiter::new(std::time::Instant::now(), Bounds::default())),
            learner: Learner::new().0,
            access_log: Some(log),
            metrics,
            tracing: Tracing::off(),
            ids: Default::default(),
            svid: watch::channel(None).1,
            resolvers: Arc::default(),
            own: Arc::new(Own::default()),
            contexts: Contexts::new().unwrap().into(),
            bindings: Default::default(),
        };
        let key = ListenerKey { role: Role::Outbound, listen: "127.0.0.1:0".parse().unwrap(), nth: 0 };
        let (_drain, draining) = watch::channel(None);
        let sidecar = Self {
            outbound: Rc::new(Outbound::new(key, Capture::Redirect, shared.clone(), Rc::new(Dns::new(shared)))),
            resolver: resolver().await,
            generation: Default::default(),
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            _drain,
            drain: Drain::new(draining),
            lines,
            writer,
        };
        sidecar.push(egress);
        sidecar
    }

    pub(super) fn push(&self, egress: EgressPolicy) {
        self.push_of(egress, ServedTenants::One("acme".parse().unwrap()));
    }

    pub(super) fn push_of(&self, egress: EgressPolicy, tenants: ServedTenants) {
        self.generation.update(|generation| generation + 1);
        let acme = TenantPolicy {
            peers: Default::default(),
            dns: Default::default(),
            id: "acme".parse().unwrap(),
            identities: Vec::new(),
            limits: Vec::new(),
            in_flight: None,
            inbound: Default::default(),
            egress,
        };
        let workload = WorkloadPolicy {
            name: "test".parse().unwrap(),
            tenants,
            issuers: Default::default(),
            inbound: Vec::new(),
            outbound: Some(OutboundPolicy { listen: "127.0.0.1:0".parse().unwrap(), capture: Capture::Redirect }),
            dns: Some(DnsPolicy {
                upstreams: vec![DnsUpstream { transport: DnsTransport::Udp, address: self.resolver }],
                ..Default::default()
            }),
        };
        let loopback = PlatformEgress { deny: Vec::new(), dangerous_allow_private: vec!["127.0.0.0/8".parse().unwrap()] };
        let snapshot = Snapshot {
            zones: Some(Default::default()),
            budget: Default::default(),
            generation: self.generation.get(),
            identity_generation: 1,
            workload: workload.into(),
            platform: PlatformPolicy { egress: loopback, ..PlatformPolicy::default() },
            trust: None,
            tenants: [(acme.id.clone(), Arc::new(acme))].into(),
            issuers: Vec::new(),
            versions: Vec::new(),
            bindings: Default::default(),
        };
        self.outbound.shared.current.swap(snapshot.into());
    }

    /// A connection that the kernel brought to the sidecar on its way to `original`.
    pub(super) async fn captured(&self, original: SocketAddr) -> TcpStream {
        let (client, accepted) = self.connect().await;
        self.spawn(connection::serve(accepted, Some(original), self.outbound.clone(), self.drain.clone()));
        client
    }

    /// Counts a connection as the listener does.
    pub(super) fn spawn(&self, connection: impl Future<Output = std::io::Result<()>> + 'static) {
        let open = self.outbound.shared.metrics.outbound_open();
        spawn_local(async move {
            let _open = open;
            connection.await
        });
    }

    pub(super) fn drain(&self) -> Drain {
        self.drain.clone()
    }

    pub(super) async fn connect(&self) -> (TcpStream, TcpStream) {
        let (client, accepted) = tokio::join!(TcpStream::connect(self.listener.local_addr().unwrap()), self.listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    /// Resolves when every connection has ended.
    pub(super) async fn until_idle(&self) {
        while !self.outbound.shared.metrics.render().unwrap().contains("\nringfence_outbound_open 0\n") {
            tokio::task::yield_now().await;
        }
    }

    /// What the access log says of the one connection that there was, once it has ended.
    pub(super) async fn only_line(self) -> serde_json::Value {
        self.until_idle().await;
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// What the access log says. To be asked when all connections have ended.
    pub(super) fn lines(self) -> Vec<serde_json::Value> {
        self.writer.close(HANG).unwrap();
        let text = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Where the allowed connections go.
pub(super) struct Server(TcpListener);

impl Server {
    pub(super) async fn bind() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self(listener), address)
    }

    pub(super) async fn accept(&self) -> TcpStream {
        self.0.accept().await.unwrap().0
    }

    /// Whether nobody has connected.
    pub(super) fn is_untouched(&self) -> bool {
        self.0.accept().now_or_never().is_none()
    }
}

/// A real ClientHello, with the name or without any.
pub(super) fn client_hello(name: Option<&str>) -> Vec<u8> {
    let mut config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.enable_sni = name.is_some();
    let name = name.unwrap_or("hidden.test").to_owned().try_into().unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(config.into(), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

pub(super) async fn read_some(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    stream.read_exact(&mut octets).await.unwrap();
    octets
}

/// All until the end; a reset ends too.
pub(super) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut octets = Vec::new();
    let _ = stream.read_to_end(&mut octets).await;
    octets
}

/// Answers for `api.test` and `other.test` (loopback), `inside.test` (a private address) and for no other name.
async fn resolver() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    spawn_local(async move {
        let mut buffer = [0; 1024];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
            let query = answer.queries[0].clone();
            let found = match query.name().to_ascii().to_ascii_lowercase().as_str() {
                "api.test." | "other.test." => Some(Ipv4Addr::LOCALHOST),
                "inside.test." => Some(Ipv4Addr::new(10, 1, 2, 3)),
                _ => None,
            };
            match found {
                Some(found) if query.query_type() == RecordType::A => {
                    answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A(found))));
                }
                Some(_) => {}
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
        }
    });
    address
}

pub(super) fn shadow(policy: EgressPolicy) -> EgressPolicy {
    EgressPolicy { mode: Mode::Shadow, ..policy }
}
