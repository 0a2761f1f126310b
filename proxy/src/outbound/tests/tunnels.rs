use std::net::SocketAddr;

use ringfence_policy::{
    egress::Protocol::{Http, Tcp, Tls},
    host::Host,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    super::{
        Tunnel, connection,
        decide::{Ask, Protocol},
        flow::Flow,
    },
    peers::{Rule, Server, Sidecar, client_hello, policy, read_some, rest, run, shadow},
};

/// What the HTTP side does with `CONNECT host:port` once it has answered 200.
async fn connect(sidecar: &Sidecar, host: &str, address: SocketAddr) -> TcpStream {
    let host: Host = host.parse().unwrap();
    let outbound = sidecar.outbound.clone();
    let snapshot = outbound.pin().unwrap();
    let ask = Ask { tenant: "acme".parse().unwrap(), host: host.clone(), port: address.port(), seen: Protocol::Nothing };
    let mut flow = Flow::begin(None, &outbound);
    flow.asked(&ask);
    let decided = outbound.decide(ask, &snapshot).await.unwrap();
    let upstream = outbound.dial(&decided, &snapshot).await.unwrap();
    let tunnel = Tunnel { host, port: address.port(), tenant: "acme".parse().unwrap(), upstream, flow };
    let (client, accepted) = sidecar.connect().await;
    sidecar.spawn(connection::tunnel(accepted.into(), Vec::new(), tunnel, outbound, sidecar.drain()));
    client
}

/// The CONNECT's host, what is allowed, what the tunnel begins with, and the reason why not.
type Case = (&'static str, &'static [Rule], Vec<u8>, Result<(), &'static str>);

#[test]
fn what_is_in_a_tunnel_must_be_what_its_connect_said() {
    let tls = |name| client_hello(Some(name));
    let hidden = client_hello(None);
    let opaque = b"\0\x01opaque".to_vec();
    let cases: Vec<Case> = vec![
        ("api.test", &[Rule(&["api.test"], &[], Tls)], tls("api.test"), Ok(())),
        ("api.test", &[Rule(&["*.test"], &[], Tls)], tls("other.test"), Err("egress_name_mismatch")),
        ("api.test", &[Rule(&["api.test"], &[], Tls)], hidden.clone(), Err("egress_name_hidden")),
        ("api.test", &[Rule(&["api.test"], &[], Tls)], opaque.clone(), Err("egress_protocol_not_allowed")),
        ("api.test", &[Rule(&["api.test"], &[], Http)], tls("api.test"), Err("egress_protocol_not_allowed")),
        ("api.test", &[Rule(&["api.test"], &[], Tcp)], tls("other.test"), Ok(())),
        ("api.test", &[Rule(&["api.test"], &[], Tcp)], hidden.clone(), Ok(())),
        ("api.test", &[Rule(&["api.test"], &[], Tcp)], opaque.clone(), Ok(())),
        ("api.test", &[Rule(&["api.test"], &["127.0.0.0/8"], Tcp)], opaque.clone(), Ok(())),
        ("api.test", &[Rule(&["api.test"], &[], Tcp)], b"\x16\x03\x01\x00\x04\x02\x00\x00\x00".to_vec(), Err("egress_malformed")),
        ("127.0.0.1", &[Rule(&[], &["127.0.0.0/8"], Tls)], tls("other.test"), Ok(())),
        ("127.0.0.1", &[Rule(&[], &["127.0.0.0/8"], Tls)], hidden, Ok(())),
        ("127.0.0.1", &[Rule(&[], &["127.0.0.0/8"], Tls)], opaque, Err("egress_protocol_not_allowed")),
    ];
    for (i, (host, rules, said, expected)) in cases.into_iter().enumerate() {
        run(async move {
            let (server, address) = Server::bind().await;
            let sidecar = Sidecar::start(policy(rules, address.port())).await;
            let mut client = connect(&sidecar, host, address).await;
            let mut upstream = server.accept().await;
            client.write_all(&said).await.unwrap();
            match expected {
                Ok(()) => {
                    assert!(read_some(&mut upstream, said.len()).await == said, "case {i}");
                    drop((client, upstream));
                    assert_eq!(sidecar.only_line().await["decision"], "allow", "case {i}");
                }
                Err(reason) => {
                    let is_tls = said[0] == 22;
                    assert_eq!(rest(&mut client).await.len(), if is_tls { 7 } else { 0 }, "case {i}");
                    drop(client);
                    assert_eq!(rest(&mut upstream).await, b"", "case {i}: nothing was sent");
                    let line = sidecar.only_line().await;
                    assert_eq!((&line["reason"], &line["bytes_sent"]), (&reason.into(), &0.into()), "case {i}");
                }
            }
        });
    }
}

#[test]
fn shadow_mode_lets_a_mismatch_through_and_tells_it() {
    run(async {
        let (server, address) = Server::bind().await;
        let sidecar = Sidecar::start(shadow(policy(&[Rule(&["api.test"], &[], Tls)], address.port()))).await;
        let mut client = connect(&sidecar, "api.test", address).await;
        let mut upstream = server.accept().await;
        let hello = client_hello(Some("other.test"));
        client.write_all(&hello).await.unwrap();
        assert!(read_some(&mut upstream, hello.len()).await == hello);
        drop((client, upstream));
        let line = sidecar.only_line().await;
        assert_eq!((&line["decision"], &line["reason"]), (&"shadow".into(), &"egress_name_mismatch".into()));
    });
}
