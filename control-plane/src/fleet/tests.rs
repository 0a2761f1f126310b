//! The service through real sockets, with the generated client: what the state machines' own tests leave to the transport. Among them the
//! cases of the shared protocol corpus that are about it (xds-server-026, 053, 054, 055).

use std::{
    future::Future,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use ringfence_xds::{
    generated::{
        discovery::{Node, Status as RpcStatus, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient},
        resource as proto,
    },
    resource::Resource,
};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

use super::*;

mod tls;

/// A test that waits for longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Waits until the fleet is as it should be. The server's tasks run in between.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn tenant(name: &str, in_flight: u32) -> Resource {
    let identity = vec![proto::Identity { issuer: "sso".into(), values: vec![name.into()] }];
    Resource::new(name, &proto::Tenant { identity, in_flight, ..proto::Tenant::default() })
}

fn workload(name: &str, tenants: &[&str]) -> Resource {
    let tenants = tenants.iter().map(|tenant| (*tenant).into()).collect();
    Resource::new(name, &proto::Workload { tenants, ..proto::Workload::default() })
}

fn upserts(upserts: Vec<Resource>) -> Delta {
    Delta { upserts, removed: Vec::new() }
}

struct Served {
    fleet: Arc<Fleet>,
    events: mpsc::Receiver<FleetEvent>,
    dir: tempfile::TempDir,
}

impl Served {
    /// Workloads `api` and `other`, which serve any tenant, and each on its socket.
    fn new(tenants: Vec<Resource>) -> Self {
        let (fleet, events) = Fleet::new();
        let dir = tempfile::tempdir().unwrap();
        for name in ["api", "other"] {
            fleet.publish(upserts(vec![workload(name, &["*"])]));
            tokio::spawn(ads::serve_unix(fleet.clone(), name, &dir.path().join(name)).unwrap());
        }
        fleet.publish(upserts(tenants));
        Self { fleet, events, dir }
    }

    fn socket(&self, workload: &str) -> PathBuf {
        self.dir.path().join(workload)
    }
}

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let open = move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    soon("a connection", Endpoint::from_static("http://x").connect_with_connector(tower::service_fn(open))).await.unwrap()
}

struct Sidecar {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

fn request(node: &str, kind: Kind, subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: node.into(), ..Node::default() }),
        type_url: kind.type_url().into(),
        resource_names_subscribe: subscribe.iter().map(|name| (*name).into()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

impl Sidecar {
    async fn open(channel: &Channel, first: DeltaDiscoveryRequest) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
        let responses = soon("a stream", client.delta_aggregated_resources(ReceiverStream::new(receiver))).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn response(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        soon("a response", self.responses.message()).await
    }

    /// `name=inFlight` of the next response's resources, which is acknowledged.
    async fn told(&mut self) -> Vec<(String, u32)> {
        let response = self.response().await.unwrap().unwrap();
        let in_flight = |resource: &ringfence_xds::generated::discovery::Resource| {
            let body = resource.resource.as_ref().unwrap();
            (resource.name.clone(), <proto::Tenant as prost::Message>::decode(body.value.as_slice()).unwrap().in_flight)
        };
        let told = response.resources.iter().map(in_flight).collect();
        self.answer(&response, None).await;
        told
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        let error_detail = refusal.map(|message| RpcStatus { code: 3, message: message.into(), details: Vec::new() });
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(answer).await.unwrap();
    }
}

/// xds-server-026.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_every_stream_is_ended_and_the_next_control_plane_sends_nothing_again() {
    const CONNECTIONS: usize = 250;
    const STREAMS: usize = 4;
    let set = || upserts(vec![workload("api", &["acme"]), tenant("acme", 1)]);
    let serve = async || {
        let (fleet, _) = Fleet::new();
        fleet.publish(set());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(ads::serve_dangerous_plaintext(fleet.clone(), listener).unwrap());
        (fleet, address)
    };
    let connect = async |address| {
        let open = move |_: Uri| async move { TcpStream::connect(address).await.map(TokioIo::new) };
        soon("a connection", Endpoint::from_static("http://x").connect_with_connector(tower::service_fn(open))).await.unwrap()
    };
    let (fleet, address) = serve().await;
    let mut sidecars = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = connect(address).await;
        for _ in 0..STREAMS {
            sidecars.push(Sidecar::open(&channel, request("api", Kind::Tenant, &["acme"])).await);
        }
    }
    for sidecar in &mut sidecars {
        assert_eq!(sidecar.told().await, [("acme".into(), 1)]);
    }
    assert_eq!(fleet.status().len(), CONNECTIONS * STREAMS);
    soon("the end", fleet.close()).await;
    assert_eq!(fleet.status().len(), 0);
    for mut sidecar in sidecars {
        assert_eq!(sidecar.response().await.unwrap_err().code(), Code::Unavailable);
    }
    let mut late = Sidecar::open(&connect(address).await, request("api", Kind::Tenant, &["acme"])).await;
    assert_eq!(late.response().await.unwrap_err().code(), Code::Unavailable);

    let (fleet, address) = serve().await;
    let version = tenant("acme", 1).version.to_string();
    let mut first = request("api", Kind::Tenant, &["acme"]);
    first.initial_resource_versions.insert("acme".into(), version);
    let mut changes = fleet.changes();
    let mut sidecar = Sidecar::open(&connect(address).await, first).await;
    // It holds what is published: nothing is sent, and who waits for it hears of it all the same.
    let resumed = |_: &u64| fleet.status().first().is_some_and(|node| node.acknowledged == 1);
    soon("the stream is resumed", changes.wait_for(resumed)).await.unwrap();
    fleet.publish(upserts(vec![tenant("acme", 2)]));
    assert_eq!(sidecar.told().await, [("acme".into(), 2)], "and nothing before it");
}

/// xds-server-053.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_given_up_leaves_nothing() {
    let served = Served::new(vec![tenant("acme", 1)]);
    let before = Arc::strong_count(&served.fleet);
    let channel = connect(&served.socket("api")).await;
    for _ in 0..2_000 {
        // The streams of one connection are few: the next waits until one before it is gone.
        let mut sidecar = Sidecar::open(&channel, request("api", Kind::Tenant, &["acme"])).await;
        sidecar.response().await.unwrap();
    }
    until("the sessions are gone", || served.fleet.status().is_empty()).await;
    drop(channel);
    until("so are the tasks", || Arc::strong_count(&served.fleet) == before).await;
}

/// xds-server-054.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_watchers_end_with_the_last_state() {
    const EACH: u32 = 50;
    const LAST: u32 = 20;
    let served = Served::new(Vec::new());
    let names: Vec<String> = (0..EACH).map(|i| format!("t{i}")).collect();
    let mut watchers = Vec::new();
    for i in 0..EACH as usize {
        let channel = if i % 4 == 0 { Some(connect(&served.socket("api")).await) } else { None };
        watchers.push((channel, i));
    }
    let mut channel = None;
    let mut tasks = Vec::new();
    for (new, i) in watchers {
        channel = new.or(channel);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut sidecar = Sidecar::open(channel.as_ref().unwrap(), request(&format!("api/{i}"), Kind::Tenant, &names)).await;
        tasks.push(tokio::spawn(async move {
            let mut held = BTreeMap::new();
            while held.len() < EACH as usize || held.values().any(|in_flight| *in_flight != LAST) {
                let response = sidecar.response().await.unwrap().unwrap();
                for resource in &response.resources {
                    let body = resource.resource.as_ref().unwrap();
                    let tenant = <proto::Tenant as prost::Message>::decode(body.value.as_slice()).unwrap();
                    let before = held.insert(resource.name.clone(), tenant.in_flight);
                    assert!(before.is_none_or(|before| before <= tenant.in_flight), "{} goes back", resource.name);
                }
                sidecar.answer(&response, None).await;
            }
        }));
    }
    let writers = names.into_iter().map(|name| {
        let fleet = served.fleet.clone();
        tokio::task::spawn_blocking(move || (1..=LAST).for_each(|version| fleet.publish(upserts(vec![tenant(&name, version)]))))
    });
    for task in writers.collect::<Vec<_>>().into_iter().chain(tasks) {
        soon("a writer or watcher", task).await.unwrap();
    }
}

/// xds-server-055, and a client that reads nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_while_it_is_sent_to_ends_alone() {
    // More than any socket's buffer and flow-control window hold.
    let big = |i: usize| {
        let identity = vec![proto::Identity { issuer: "sso".into(), values: vec!["x".repeat(500_000)] }];
        Resource::new(format!("t{i:02}"), &proto::Tenant { identity, in_flight: 1, ..proto::Tenant::default() })
    };
    let served = Served::new((0..40).map(big).collect());
    let broken = std::os::unix::net::UnixStream::connect(served.socket("api")).unwrap();
    let handle = broken.try_clone().unwrap();
    broken.set_nonblocking(true).unwrap();
    let mut stream = Some(UnixStream::from_std(broken).unwrap());
    let open = move |_: Uri| {
        let stream = stream.take();
        async move { stream.map(TokioIo::new).ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    };
    let channel = Endpoint::from_static("http://x").connect_with_connector(tower::service_fn(open)).await.unwrap();
    let silent = Sidecar::open(&channel, request("api", Kind::Tenant, &["*"])).await;
    until("it is being sent to", || served.fleet.status().len() == 1).await;
    // Asks and asks, and reads nothing.
    let flood = async {
        while silent.requests.send(request("api", Kind::Tenant, &["t00"])).await.is_ok() {}
        std::future::pending().await
    };
    tokio::select! {
        () = flood => {}
        () = async {
            // Meanwhile another is served.
            let mut sidecar = Sidecar::open(&connect(&served.socket("other")).await, request("other", Kind::Tenant, &["acme"])).await;
            let absent = sidecar.response().await.unwrap().unwrap();
            assert_eq!(absent.removed_resources, ["acme"]);
            sidecar.answer(&absent, None).await;
            served.fleet.publish(upserts(vec![tenant("acme", 1)]));
            assert_eq!(sidecar.told().await, [("acme".into(), 1)]);
            handle.shutdown(std::net::Shutdown::Both).unwrap();
            until("the broken one is gone", || served.fleet.status().len() == 1).await;
            served.fleet.publish(upserts(vec![tenant("acme", 2)]));
            assert_eq!(sidecar.told().await, [("acme".into(), 2)]);
        } => {}
    }
}

#[tokio::test]
async fn what_no_sidecar_sends_ends_the_stream_with_a_reason_that_tells_nothing() {
    let served = Served::new(vec![tenant("acme", 1)]);
    let ours = "node.id must be <workload> or <workload>/<instance>, at most 512 bytes";
    let foreign = "this connection belongs to another workload";
    let no_type = DeltaDiscoveryRequest { type_url: String::new(), ..request("api", Kind::Tenant, &[]) };
    let no_node = DeltaDiscoveryRequest { node: None, ..request("api", Kind::Tenant, &[]) };
    let huge_name = "x".repeat(513);
    for (what, first, code, message) in [
        ("another's", request("other", Kind::Tenant, &["acme"]), Code::PermissionDenied, foreign),
        ("nobody's", request("missing", Kind::Tenant, &["acme"]), Code::PermissionDenied, foreign),
        ("another's instance", request("other/api", Kind::Tenant, &["acme"]), Code::PermissionDenied, foreign),
        ("a long node", request(&format!("api/{}", "x".repeat(600)), Kind::Tenant, &[]), Code::InvalidArgument, ours),
        ("a node in two lines", request("api/1\n2", Kind::Tenant, &[]), Code::InvalidArgument, ours),
        ("no node", no_node, Code::InvalidArgument, "the first request of a stream must name its node"),
        ("no type", no_type, Code::InvalidArgument, "type_url is empty"),
        (
            "a long name",
            request("api", Kind::Tenant, &[&huge_name]),
            Code::InvalidArgument,
            "at most 65536 names of at most 512 bytes may be subscribed to",
        ),
    ] {
        let mut sidecar = Sidecar::open(&connect(&served.socket("api")).await, first).await;
        let status = sidecar.response().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message), "{what}");
    }
    let mut huge = request("api", Kind::Tenant, &[]);
    huge.resource_names_subscribe = vec!["x".repeat(5 * 1024 * 1024)];
    let mut sidecar = Sidecar::open(&connect(&served.socket("api")).await, huge).await;
    assert_eq!(sidecar.response().await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(served.fleet.status().len(), 0);
}

#[tokio::test]
async fn one_workloads_connections_are_bounded_and_cost_the_others_nothing() {
    let served = Served::new(vec![tenant("acme", 1)]);
    let mut open = Vec::new();
    for _ in 0..16 {
        let channel = connect(&served.socket("api")).await;
        let mut sidecar = Sidecar::open(&channel, request("api", Kind::Tenant, &["acme"])).await;
        sidecar.told().await;
        open.push((channel, sidecar));
    }
    // The next connects to the kernel alone.
    let channel = connect(&served.socket("api")).await;
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let (_requests, receiver) = mpsc::channel(1);
    let mut waiting = Box::pin(client.delta_aggregated_resources(ReceiverStream::new(receiver)));
    let mut other = Sidecar::open(&connect(&served.socket("other")).await, request("other", Kind::Tenant, &["acme"])).await;
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("a connection too many"),
        told = other.told() => assert_eq!(told, [("acme".into(), 1)]),
    }
    open.pop();
    soon("its turn", waiting).await.unwrap();
}

#[tokio::test]
async fn what_is_refused_of_what_there_is_not_is_not_kept() {
    let served = Served::new(vec![tenant("acme", 1)]);
    let mut sidecar = Sidecar::open(&connect(&served.socket("api")).await, request("api", Kind::Tenant, &["nobody"])).await;
    for i in 0..10 {
        let response = sidecar.response().await.unwrap().unwrap();
        assert_eq!(response.removed_resources.len(), 1);
        sidecar.answer(&response, Some("no")).await;
        sidecar.requests.send(request("api", Kind::Tenant, &[&format!("nobody-{i}")])).await.unwrap();
    }
    sidecar.requests.send(request("api", Kind::Tenant, &["acme"])).await.unwrap();
    let mut response = sidecar.response().await.unwrap().unwrap();
    while response.resources.is_empty() {
        response = sidecar.response().await.unwrap().unwrap();
    }
    sidecar.answer(&response, Some("no")).await;
    until("what there is is told", || !served.fleet.status()[0].rejections.is_empty()).await;
    assert_eq!(served.fleet.status()[0].rejections.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_once() {
    let mut served = Served::new(vec![tenant("acme", 1)]);
    let mut sidecar = Sidecar::open(&connect(&served.socket("api")).await, request("api", Kind::Tenant, &["acme"])).await;
    for _ in 0..10 {
        let response = sidecar.response().await.unwrap().unwrap();
        sidecar.answer(&response, Some("cannot be used")).await;
        sidecar.requests.send(request("api", Kind::Tenant, &["acme"])).await.unwrap();
    }
    drop(sidecar);
    let mut told = 0;
    while let FleetEvent::Rejected { workload, rejections } = soon("an event", served.events.recv()).await.unwrap() {
        assert_eq!((workload.as_str(), rejections.len()), ("api", 1));
        told += 1;
    }
    assert_eq!(told, 1);
}

#[tokio::test]
async fn a_socket_is_its_users_alone_and_nobody_elses_file_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.ads");
    let (fleet, _events) = Fleet::new();
    let serve = || ads::serve_unix(fleet.clone(), "api", &path);
    let first = serve().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(serve().err().unwrap().kind(), std::io::ErrorKind::AddrInUse, "served by another");
    drop(first);
    drop(serve().unwrap()); // what a killed control plane left
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(serve().err().unwrap().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}
