//! Both ends of the route for tests: a sidecar without policy, and raw peers that the test plays itself.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ringfence_policy::{
    Snapshot,
    tenant::{InboundPolicy, ServedTenants, WorkloadPolicy},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, timeout},
};

use crate::{
    config::{Current, learn::Learner},
    context::Contexts,
    data::Shared,
    hop::{Timeouts, Upstream},
    inbound::{Enforce, Inbound, listener},
    limiter::{Bounds, Limiter},
    listeners::{Drain, ListenerKey, Role, Stop, accept},
    telemetry::trace::Tracing,
};

/// A test that takes longer hangs.
const HANG: Duration = Duration::from_secs(30);

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async { timeout(HANG, test).await.expect("the test hangs") }));
}

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
        let upstream_address = upstream;
        let upstream = Rc::new(Upstream::new(upstream, timeouts.connect));
        let mut inbound = Inbound { key, upstream, upstream_address, tls: None, forward_token: false, timeouts, enforce };
        change(&mut inbound);
        let listener = accept::bind(key.listen, false).unwrap();
        let address = listener.local_addr().unwrap();
        let (drain, begun) = watch::channel(None);
        let served = spawn_local(listener::serve(listener, Rc::new(inbound), Drain::new(begun)));
        Self { address, drain, served }
    }

    pub(super) async fn client(&self) -> Peer<TcpStream> {
        Peer::new(TcpStream::connect(self.address).await.unwrap())
    }

    pub(super) fn drain_within(&self, limit: Duration) {
        self.drain.send(Some(Stop::within(Instant::now() + limit))).unwrap();
    }
}

/// A workload whose every connection the test answers by hand.
pub(super) struct Origin(TcpListener);

impl Origin {
    pub(super) async fn bind() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self(listener), address)
    }

    pub(super) async fn accept(&self) -> Peer<TcpStream> {
        Peer::new(self.0.accept().await.unwrap().0)
    }

    pub(super) fn into_listener(self) -> TcpListener {
        self.0
    }
}

/// One end of a connection.
pub(super) struct Peer<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(super) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Up to and with `end`.
    pub(super) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                return String::from_utf8(self.read.drain(..at + end.len()).collect()).unwrap();
            }
            let read = self.stream.read_buf(&mut self.read).await.unwrap();
            assert_ne!(read, 0, "the connection ended behind {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// A head, in lower case, with its empty line.
    pub(super) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_lowercase()
    }

    /// Whatever comes until the end of the connection, be it orderly or not.
    pub(super) async fn rest(&mut self) -> String {
        let _ = self.stream.read_to_end(&mut self.read).await;
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}

/// Policy that asks for no token: these tests are about what comes before and after.
fn public(key: ListenerKey, upstream: SocketAddr) -> Shared {
    let workload = WorkloadPolicy {
        name: "test".parse().unwrap(),
        tenants: ServedTenants::Any,
        issuers: Default::default(),
        inbound: vec![InboundPolicy {
            listen: key.listen,
            upstream,
            public: vec!["/**".parse().unwrap()],
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
        tenants: Default::default(),
        issuers: Vec::new(),
        versions: Vec::new(),
        zones: Some(Default::default()),
        bindings: Default::default(),
    };
    let current = Arc::new(Current::default());
    current.swap(snapshot.into());
    Shared {
        current,
        used: Default::default(),
        limiter: Arc::new(Limiter::new(std::time::Instant::now(), Bounds::default())),
        learner: Learner::new().0,
        access_log: None,
        metrics: Default::default(),
        tracing: Tracing::off(),
        resolvers: Default::default(),
        own: Default::default(),
        ids: Default::default(),
        contexts: Contexts::new().unwrap().into(),
    }
}
