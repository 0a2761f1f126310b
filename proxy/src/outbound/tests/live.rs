use ringfence_policy::egress::Protocol::{Tcp, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::peers::{Rule, Server, Sidecar, client_hello, policy, read_some, rest, run};

async fn echo(client: &mut TcpStream, upstream: &mut TcpStream) {
    client.write_all(b"still there?").await.unwrap();
    assert_eq!(read_some(upstream, 12).await, b"still there?");
}

#[test]
fn a_tightened_policy_cuts_what_it_no_longer_allows_and_nothing_else() {
    run(async {
        let (server, address) = Server::bind().await;
        let port = address.port();
        let both = [Rule(&["api.test"], &[], Tls), Rule(&["other.test"], &[], Tls)];
        let sidecar = Sidecar::start(policy(&both, port)).await;
        let mut connections = Vec::new();
        for name in ["api.test", "other.test"] {
            let hello = client_hello(Some(name));
            let mut client = sidecar.captured(address).await;
            client.write_all(&hello).await.unwrap();
            let mut upstream = server.accept().await;
            read_some(&mut upstream, hello.len()).await;
            connections.push((client, upstream));
        }
        let (mut other, mut other_upstream) = connections.pop().unwrap();
        let (mut api, mut api_upstream) = connections.pop().unwrap();

        // A push that changes nothing for them.
        sidecar.push(policy(&both, port));
        echo(&mut api, &mut api_upstream).await;
        echo(&mut other, &mut other_upstream).await;

        sidecar.push(policy(&both[..1], port));
        for end in [&mut other, &mut other_upstream] {
            let error = end.read(&mut [0; 16]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        echo(&mut api, &mut api_upstream).await;

        // Loosened again, for the next one.
        let mut refused = sidecar.captured(address).await;
        refused.write_all(&client_hello(Some("other.test"))).await.unwrap();
        assert_eq!(rest(&mut refused).await.len(), 7);
        sidecar.push(policy(&both, port));
        let mut next = sidecar.captured(address).await;
        next.write_all(&client_hello(Some("other.test"))).await.unwrap();
        drop(server.accept().await);
        drop((api, api_upstream, next));
        sidecar.until_idle().await;
        let lines = sidecar.lines();
        let cut = lines.iter().find(|line| line["decision"] == "deny" && line["bytes_sent"] != 0).unwrap();
        assert_eq!((&cut["host"], &cut["reason"]), (&"other.test".into(), &"egress_host_not_listed".into()));
        assert_eq!(cut["address"], address.to_string());
    });
}

#[test]
fn a_change_of_protocol_cuts_by_what_was_seen() {
    run(async {
        let (server, address) = Server::bind().await;
        let rule = |protocol| policy(&[Rule(&[], &["127.0.0.0/8"], protocol)], address.port());
        let sidecar = Sidecar::start(rule(Tcp)).await;
        let mut client = sidecar.captured(address).await;
        client.write_all(b"\0\x01opaque").await.unwrap();
        let mut upstream = server.accept().await;
        read_some(&mut upstream, 8).await;
        sidecar.push(rule(Tls));
        assert!(client.read(&mut [0; 16]).await.is_err());
        assert_eq!(sidecar.only_line().await["reason"], "egress_protocol_not_allowed");
    });
}
