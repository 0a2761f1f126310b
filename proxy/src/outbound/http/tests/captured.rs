//! Plain HTTP that the kernel brought here.

use std::net::SocketAddr;

use ringfence_policy::egress::Protocol;

use super::sidecar::{Sidecar, http, rule};
use crate::hop::peers::{Origin, run};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_name_is_resolved_here_whatever_the_original_destination_was() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let sidecar = Sidecar::start(vec![http(&["a.test"], port)]).await;
        let mut client = sidecar.captured(SocketAddr::new([192, 0, 2, 7].into(), port)).await;
        client.send(format!("GET /x HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n")).await;
        let mut upstream = origin.accept().await;
        assert!(upstream.head().await.contains(&format!("\r\nhost: a.test:{port}\r\n")));
        upstream.send(OK).await;
        client.until("ok").await;
        // Each on its own merits; what is refused is answered, and its connection closed.
        for (host, path, status, reason) in [
            (format!("b.test:{port}"), "/", 403, "egress_host_not_listed"),
            ("a.test".into(), "/", 403, "egress_name_mismatch"),
            (format!("127.0.0.1:{port}"), "/", 403, "egress_name_mismatch"),
            (format!("192.0.2.7:{port}"), "/", 403, "egress_host_not_listed"),
        ] {
            let mut client = sidecar.captured(SocketAddr::new([192, 0, 2, 7].into(), port)).await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            let head = client.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{host}: {head}");
            assert!(head.contains("\r\nconnection: close\r\n"), "{host}: {head}");
            assert!(client.rest().await.contains(reason), "{host}");
        }
        client.send(format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 400 "));
    });
}

#[test]
fn an_address_that_a_rule_lists_is_dialled_as_it_was() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        run(async {
            let (origin, address) = Origin::bind().await;
            let port = address.port();
            let paths: &[&str] = if protocol == Protocol::Http { &["/ok"] } else { &[] };
            let sidecar = Sidecar::start(vec![rule(&["127.0.0.0/8"], port, protocol, paths)]).await;
            for host in [format!("127.0.0.1:{port}"), format!("unlisted.test:{port}")] {
                let mut client = sidecar.captured(address).await;
                client.send(format!("GET /ok HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
                let mut upstream = origin.accept().await;
                assert!(upstream.head().await.contains(&format!("\r\nhost: {host}\r\n")));
                upstream.send(OK).await;
                client.until("ok").await;
                if protocol == Protocol::Http {
                    client.send(format!("GET /no HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
                    assert!(client.head().await.starts_with("http/1.1 403 "));
                    client.until("egress_request_denied").await;
                }
            }
        });
    }
}
