//! Both ends of the route for tests: a sidecar without policy, and raw peers.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ringfence_policy::{
    Snapshot,
    tenant::{InboundPolicy, ServedTenants, WorkloadPolicy},
};

use tokio::{
    net::TcpStream,
    sync::watch,
    task::{JoinHandle, spawn_local},
    time::Instant,
};

pub(super) use crate::hop::peers::{Origin, Peer, run};

use crate::{
    config::Current,
    data::Shared,
    hop::Timeouts,
    inbound::{Enforce, Inbound, Transport, listener},
    listeners::{Drain, ListenerKey, Role, Stop, accept},
};

pub(super) struct Sidecar {
    pub(super) address: SocketAddr,
    pub(super) drain: watch::Sender<Option<Stop>>,
    pub(super) served: JoinHandle<std::io::Result<()>>,
}

impl Sidecar {
    pub(super) fn start(upstream: SocketAddr) -> Self {
        Self::with(upstream, |_| {})
    }

    pub(super) fn with(upstream: SocketAddr, change: impl FnOnce(&mut Inbound)) -> Self {
        let timeouts = Timeouts::default();
        let key = ListenerKey { listen: "127.0.0.1:0".parse().unwrap(), role: Role::Inbound, nth: 0 };
        let enforce = Rc::new(Enforce::new(public(key, upstream)));
        let mut inbound = Inbound { key, transport: Transport::Tcp, workload: RefCell::default(), timeouts, enforce };
        change(&mut inbound);
        let listener = accept::bind(key.listen, false).unwrap();
        let address = listener.local_addr().unwrap();
        let (drain, begun) = watch::channel(None);
        let served = spawn_local(listener::serve(listener, Rc::new(inbound), Drain::new(begun)));
        Self { address, drain, served }
    }

    /// One that gives what is under way at a workload's old address no time; and what puts another address in force.
    pub(super) fn hasty(upstream: SocketAddr) -> (Self, impl Fn(SocketAddr)) {
        let mut listener = None;
        let sidecar = Self::with(upstream, |inbound| {
            let shared = Shared { drain_for: Duration::ZERO, ..public(inbound.key, upstream) };
            listener = Some((inbound.key, shared.current.clone()));
            inbound.enforce = Rc::new(Enforce::new(shared));
        });
        let (key, current) = listener.unwrap();
        (sidecar, move |upstream| current.swap(public(key, upstream).current.pin().unwrap()))
    }

    pub(super) async fn client(&self) -> Peer<TcpStream> {
        Peer::new(TcpStream::connect(self.address).await.unwrap())
    }

    pub(super) fn drain_within(&self, limit: Duration) {
        self.drain.send(Some(Stop::within(Instant::now() + limit))).unwrap();
    }
}

/// Policy that asks for no token: these tests are about what comes before and after.
pub(super) fn public(key: ListenerKey, upstream: SocketAddr) -> Shared {
    let workload = WorkloadPolicy {
        name: "test".parse().unwrap(),
        tenants: ServedTenants::Any,
        issuers: Default::default(),
        inbound: vec![InboundPolicy {
            listen: key.listen,
            upstream,
            public: vec!["/**".parse().unwrap()],
            mtls: false,
            tls: None,
            forward_token: false,
        }],
        outbound: None,
        dns: None,
    };
    let snapshot = Snapshot {
        generation: 1,
        identity_generation: 1,
        workload: workload.into(),
        platform: Default::default(),
        trust: None,
        tenants: Default::default(),
        issuers: Vec::new(),
        versions: Vec::new(),
        zones: Some(Default::default()),
        budget: Default::default(),
        bindings: Default::default(),
    };
    let current = Arc::new(Current::default());
    current.swap(snapshot.into());
    Shared { current, ..Shared::untold() }
}
