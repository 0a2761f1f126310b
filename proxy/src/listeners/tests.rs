//! Sockets without the threads that serve them.

use std::path::Path;

use ringfence_policy::tenant::{DnsPolicy, ServedTenants, TlsFiles};

use super::*;
use futures_util::FutureExt as _;

fn plain(listen: SocketAddr) -> InboundPolicy {
    InboundPolicy { listen, upstream: "127.0.0.1:9".parse().unwrap(), public: vec![], tls: None, mtls: false, forward_token: false }
}

fn tls(listen: SocketAddr) -> InboundPolicy {
    let data = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    InboundPolicy { tls: Some(TlsFiles { certificate: data("certificate.pem"), key: data("key.pem") }), ..plain(listen) }
}

fn with(inbound: Vec<InboundPolicy>) -> WorkloadPolicy {
    WorkloadPolicy {
        name: "test".parse().unwrap(),
        tenants: ServedTenants::Any,
        issuers: Default::default(),
        inbound,
        outbound: None,
        dns: None,
    }
}

/// Listeners by address, and whether each takes peers alone.
fn workload(listeners: &[(SocketAddr, bool)]) -> WorkloadPolicy {
    with(listeners.iter().map(|(listen, mtls)| InboundPolicy { mtls: *mtls, ..plain(*listen) }).collect())
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn listeners(threads: usize) -> (Listeners, Vec<mpsc::UnboundedReceiver<Serve>>) {
    let (senders, receivers) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    (Listeners::new(senders, Duration::from_secs(1), Default::default(), "absent".into()), receivers)
}

#[test]
fn nothing_of_a_policy_that_cannot_be_prepared_is_kept() {
    let taken = TcpListener::bind(any_port()).unwrap();
    let (mut listeners, _threads) = listeners(1);
    let faults = listeners.prepare(&workload(&[(any_port(), false), (taken.local_addr().unwrap(), false)]));
    assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["inbound[1].listen"]);
    assert!(listeners.bound.is_empty());
}

#[test]
fn a_port_that_another_holds_is_not_shared_with_it() {
    // SO_REUSEPORT on both sides would let the second bind.
    let taken = accept::bind(any_port(), true).unwrap();
    for threads in [1, 2] {
        let (mut listeners, _threads) = listeners(threads);
        assert_eq!(listeners.prepare(&workload(&[(taken.local_addr().unwrap(), false)])).len(), 1, "{threads} threads");
    }
}

#[test]
fn each_thread_gets_a_socket_of_the_same_address_and_a_change_keeps_it() {
    let (mut listeners, mut threads) = listeners(2);
    let policy = workload(&[(any_port(), false), (any_port(), false)]);
    assert_eq!(listeners.prepare(&policy), []);
    assert!(threads[0].try_recv().is_err(), "nothing is served before its policy is in force");
    listeners.commit(&policy);
    let mut take = || -> Vec<Vec<(ListenerKey, SocketAddr)>> {
        let all = |thread: &mut mpsc::UnboundedReceiver<Serve>| {
            std::iter::from_fn(|| thread.try_recv().ok()).map(|serve| (serve.key, serve.socket.local_addr().unwrap())).collect()
        };
        threads.iter_mut().map(all).collect()
    };
    let first = take();
    assert_eq!(first[0].len(), 2);
    assert_eq!(first[0], first[1]);
    assert_ne!(first[0][0].1, first[0][1].1, "port 0 twice is two ports");

    assert_eq!(listeners.prepare(&policy), []);
    listeners.commit(&policy);
    assert_eq!(take(), [[], []], "nothing changed");

    let changed = workload(&[(any_port(), false), (any_port(), true)]);
    assert_eq!(listeners.prepare(&changed), []);
    listeners.commit(&changed);
    let second = take();
    assert_eq!(second[0], first[0][1..], "the one that changed, on its old port");
    assert_eq!(listeners.bound().lock().len(), 2);

    listeners.commit(&workload(&[]));
    assert!(listeners.bound.is_empty() && listeners.bound().lock().is_empty());
}

#[test]
fn only_what_connections_hold_replaces_a_listener_and_that_turns_away_who_would_ask_on_less() {
    let (mut listeners, mut threads) = listeners(1);
    let mut commit = |inbound: Vec<InboundPolicy>| -> Vec<Drain> {
        let policy = with(inbound);
        assert_eq!(listeners.prepare(&policy), []);
        listeners.commit(&policy);
        std::iter::from_fn(|| threads[0].try_recv().ok()).map(|serve| serve.drain).collect()
    };
    let before = plain(any_port());
    let [mut first] = commit(vec![before.clone()]).try_into().unwrap();
    let read_at_each_request = InboundPolicy {
        upstream: "127.0.0.1:10".parse().unwrap(),
        public: vec!["/**".parse().unwrap()],
        forward_token: true,
        ..before.clone()
    };
    assert!(commit(vec![read_at_each_request]).is_empty() && first.begun().now_or_never().is_none());

    let peers_alone = InboundPolicy { mtls: true, ..before.clone() };
    for (what, next, turns_away) in [
        ("TLS", tls(any_port()), true),
        ("peers alone", peers_alone.clone(), true),
        ("any TLS client", tls(any_port()), false),
        ("in the clear", before.clone(), false),
        ("peers alone, from in the clear", peers_alone, true),
        ("in the clear again", before, false),
    ] {
        let [second] = commit(vec![next]).try_into().unwrap();
        assert!(first.begun().now_or_never().is_some(), "{what}");
        assert_eq!(first.turns_away().now_or_never().is_some(), turns_away, "{what}");
        first = second;
    }

    commit(vec![]);
    assert!(first.turns_away().now_or_never().is_some(), "nobody listens there any more");
}

fn outbound(listen: SocketAddr, capture: Capture) -> WorkloadPolicy {
    WorkloadPolicy { outbound: Some(OutboundPolicy { listen, capture }), ..with(vec![plain(any_port())]) }
}

#[test]
fn what_is_captured_is_awaited_at_the_loopback_address_of_either_family() {
    let sockets = on_loopback(any_port(), 2, bind).unwrap();
    // A host may have no IPv6.
    let is_with_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let port = sockets[0].address.port();
    let bound: Vec<String> = sockets.iter().map(|sockets| sockets.address.to_string()).collect();
    assert_eq!(bound[1..], if is_with_ipv6 { vec![format!("[::1]:{port}")] } else { vec![] });
    assert!(sockets.iter().all(|sockets| sockets.of_threads.len() == 2));
}

#[test]
fn redirection_needs_rules_and_a_dns_listener() {
    let (mut listeners, _threads) = listeners(1);
    let fault = |dns: bool| {
        let dns = dns.then(|| DnsPolicy { listen: Some(any_port()), ..Default::default() });
        let faults = listeners.prepare(&WorkloadPolicy { dns, ..outbound(any_port(), Capture::Redirect) });
        faults.into_iter().map(|fault| fault.to_string()).collect::<Vec<_>>().join("; ")
    };
    let faults = [false, true].map(fault);
    assert!(faults[0].starts_with("egress.capture: redirects name queries too"), "{faults:?}");
    assert!(faults[1].starts_with("egress.capture: the redirect rules are not installed"), "{faults:?}");
    assert!(listeners.bound.is_empty());
}

#[test]
fn an_egress_listener_that_cannot_be_bound_is_a_fault_of_its_field() {
    let taken = TcpListener::bind(any_port()).unwrap();
    let (mut listeners, _threads) = listeners(1);
    let faults = listeners.prepare(&outbound(taken.local_addr().unwrap(), Capture::None));
    assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["egress.listen"]);
    assert!(listeners.bound.is_empty());
}

#[tokio::test]
async fn what_leaves_the_workload_may_do_so_while_requests_drain() {
    let (mut listeners, mut threads) = listeners(1);
    let policy = WorkloadPolicy { inbound: workload(&[(any_port(), false)]).inbound, ..outbound(any_port(), Capture::None) };
    assert_eq!(listeners.prepare(&policy), []);
    listeners.commit(&policy);
    let cut = Instant::now();
    listeners.drain(cut);
    let mut served = Vec::new();
    while let Some(serve) = threads[0].recv().await {
        served.push((serve.key.role, serve.drain));
    }
    let begun = |served: &mut Vec<(Role, Drain)>| -> Vec<Role> {
        served.iter_mut().filter_map(|(role, drain)| drain.begun().now_or_never().map(|()| *role)).collect()
    };
    assert_eq!(begun(&mut served), [Role::Inbound]);
    listeners.end(cut);
    assert_eq!(begun(&mut served).len(), served.len());
}

#[test]
fn nothing_of_a_refused_workload_is_served() {
    let any = "127.0.0.1:0".parse().unwrap();
    let taken = TcpListener::bind(any).unwrap();
    let (thread, mut served) = mpsc::unbounded_channel();
    let mut listeners = Listeners::new(vec![thread], Duration::from_secs(1), Default::default(), "absent".into());

    let good = with(vec![tls(any)]);
    assert_eq!(listeners.prepare(&good), []);
    listeners.commit(&good);
    assert!(matches!(served.try_recv().unwrap().route, Route::Inbound(InboundRoute { tls: Some(_), .. })));

    // Without TLS, and with a listener that cannot be.
    let refused = with(vec![plain(any), plain(taken.local_addr().unwrap())]);
    assert_eq!(listeners.prepare(&refused).len(), 1);
    // Whatever else is pushed commits the old workload anew.
    listeners.commit(&good);
    assert!(served.try_recv().is_err(), "the listener serves on as it was");
}
