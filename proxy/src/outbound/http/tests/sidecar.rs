//! A sidecar under a policy of the test's making, and a DNS server for it.

use std::{
    cell::RefCell,
    io,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use ringfence_policy::{
    RuleRef, Snapshot, TrustBundle,
    egress::{EgressPolicy, EgressRule, PlatformEgress, Protocol},
    ratelimit::Mode,
    scope::RequestMatch,
    tenant::{Capture, DnsPolicy, DnsTransport, DnsUpstream, OutboundPolicy, PlatformPolicy, ServedTenants, TenantPolicy, WorkloadPolicy},
};
use ringfence_xds::trust::Svid;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::{JoinHandle, spawn_local},
};

use crate::{
    config::{Current, learn::Learner},
    context::Contexts,
    data::Shared,
    dns::Dns,
    hop::peers::Peer,
    limiter::{Bounds, Limiter},
    listeners::{Drain, ListenerKey, Role, Stop},
    outbound::{Origin, Outbound},
    telemetry::{access_log::AccessLog, trace::Tracing},
};

/// Answers `NAME.test` with 127.0.0.1, `metadata.test` with 169.254.169.254 and anything else with NXDOMAIN.
async fn dns() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    spawn_local(async move {
        let mut buffer = [0; 1500];
        while let Ok((octets, peer)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..octets]).unwrap();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            let question = query.queries[0].clone();
            let name = question.name().to_ascii().to_ascii_lowercase();
            if !name.ends_with(".test.") {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if question.query_type() == RecordType::A {
                let address = if name == "metadata.test." { Ipv4Addr::new(169, 254, 169, 254) } else { Ipv4Addr::LOCALHOST };
                answer.add_answer(Record::from_rdata(question.name().clone(), 60, RData::A(A(address))));
            }
            answer.add_query(question);
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    address
}

/// One `allow` entry: `hosts` are names or prefixes, `paths` of plain HTTP.
pub(super) fn rule(hosts: &[&str], port: u16, protocol: Protocol, paths: &[&str]) -> EgressRule {
    let (cidrs, hosts): (Vec<&str>, Vec<&str>) = hosts.iter().partition(|host| host.contains('/'));
    let requests = if paths.is_empty() {
        Vec::new()
    } else {
        vec![RequestMatch { methods: Vec::new(), paths: paths.iter().map(|path| path.parse().unwrap()).collect() }]
    };
    EgressRule {
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        cidrs: cidrs.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        ports: vec![port],
        protocol,
        requests,
        peer: None,
        rule: RuleRef::new(format!("Tenant/acme: egress.allow[{port}]")),
    }
}

/// Any plain HTTP to these.
pub(super) fn http(hosts: &[&str], port: u16) -> EgressRule {
    rule(hosts, port, Protocol::Http, &[])
}

pub(super) struct Sidecar {
    pub(super) outbound: Rc<Outbound>,
    current: Arc<Current>,
    pub(super) contexts: Arc<Contexts>,
    dns: SocketAddr,
    tenants: ServedTenants,
    generation: u64,
    /// Of the policies to be pushed.
    pub(super) trust: Option<Arc<TrustBundle>>,
    pub(super) shadow: bool,
    pub(super) svid: watch::Sender<Option<Arc<Svid>>>,
    drain: Drain,
    _stop: watch::Sender<Option<Stop>>,
    connections: RefCell<Vec<JoinHandle<io::Result<()>>>>,
}

impl Sidecar {
    /// Dedicated to `acme`.
    pub(super) async fn start(rules: Vec<EgressRule>) -> Self {
        Self::serving(ServedTenants::One("acme".parse().unwrap()), vec![("acme", rules)]).await
    }

    pub(super) async fn serving(tenants: ServedTenants, rules: Vec<(&str, Vec<EgressRule>)>) -> Self {
        Self::telling(None, tenants, rules).await
    }

    pub(super) async fn telling(access_log: Option<AccessLog>, tenants: ServedTenants, rules: Vec<(&str, Vec<EgressRule>)>) -> Self {
        let current = Arc::new(Current::default());
        let contexts = Arc::new(Contexts::new().unwrap());
        let (svid, current_svid) = watch::channel(None);
        let shared = Shared {
            current: current.clone(),
            used: Default::default(),
            limiter: Arc::new(Limiter::new(std::time::Instant::now(), Bounds::default())),
            learner: Learner::new().0,
            access_log,
            metrics: Default::default(),
            tracing: Tracing::off(),
            ids: Default::default(),
            contexts: contexts.clone(),
            resolvers: Arc::default(),
            bindings: Default::default(),
            svid: current_svid,
            own: Default::default(),
        };
        let key = ListenerKey { listen: "127.0.0.1:0".parse().unwrap(), nth: 0, role: Role::Outbound };
        let (stop, stopping) = watch::channel(None);
        let mut sidecar = Self {
            outbound: Rc::new(Outbound::new(key, Capture::None, shared.clone(), Rc::new(Dns::new(shared)))),
            current,
            contexts,
            dns: dns().await,
            tenants,
            generation: 0,
            trust: None,
            shadow: false,
            svid,
            drain: Drain::new(stopping),
            _stop: stop,
            connections: RefCell::default(),
        };
        sidecar.push(rules);
        sidecar
    }

    /// Puts a policy in force.
    pub(super) fn push(&mut self, rules: Vec<(&str, Vec<EgressRule>)>) {
        self.generation += 1;
        let workload = WorkloadPolicy {
            name: "test".parse().unwrap(),
            tenants: self.tenants.clone(),
            issuers: Default::default(),
            inbound: Vec::new(),
            outbound: Some(OutboundPolicy { listen: "127.0.0.1:0".parse().unwrap(), capture: Capture::None }),
            dns: Some(DnsPolicy { upstreams: vec![DnsUpstream { transport: DnsTransport::Udp, address: self.dns }], ..Default::default() }),
        };
        let mode = if self.shadow { Mode::Shadow } else { Mode::Enforce };
        let tenant = |(name, rules): (&str, Vec<EgressRule>)| {
            let id: ringfence_policy::TenantId = name.parse().unwrap();
            let policy = TenantPolicy {
                dns: Default::default(),
                id: id.clone(),
                identities: Vec::new(),
                limits: Vec::new(),
                in_flight: None,
                inbound: Default::default(),
                peers: Default::default(),
                egress: EgressPolicy { mode, rules: rules.into(), ..EgressPolicy::default() },
            };
            (id, policy.into())
        };
        let egress = PlatformEgress { deny: Vec::new(), dangerous_allow_private: vec!["127.0.0.0/8".parse().unwrap()] };
        let snapshot = Snapshot {
            zones: Some(Default::default()),
            budget: Default::default(),
            generation: self.generation,
            identity_generation: 1,
            workload: workload.into(),
            platform: PlatformPolicy { egress, ..PlatformPolicy::default() },
            trust: self.trust.clone(),
            tenants: rules.into_iter().map(tenant).collect(),
            issuers: Vec::new(),
            versions: Vec::new(),
            bindings: Default::default(),
        };
        self.current.swap(snapshot.into());
    }

    /// A connection of the workload's that came as `origin` says.
    pub(super) async fn stream(&self, origin: Origin) -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let served = super::super::serve(stream.into(), Vec::new(), origin, self.outbound.clone(), self.drain.clone());
        self.connections.borrow_mut().push(spawn_local(served));
        client
    }

    /// When all connections have ended.
    pub(super) async fn drained(&self) {
        for connection in self.connections.take() {
            let _ = connection.await;
        }
    }

    pub(super) async fn client(&self) -> Peer<TcpStream> {
        Peer::new(self.stream(Origin::Explicit).await)
    }

    pub(super) async fn captured(&self, original: SocketAddr) -> Peer<TcpStream> {
        Peer::new(self.stream(Origin::Captured(original)).await)
    }
}
