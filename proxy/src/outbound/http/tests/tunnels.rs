//! CONNECT over HTTP/1, and HTTP inside it.

use ringfence_policy::egress::Protocol;

use super::sidecar::{Sidecar, http, rule};
use crate::hop::peers::{Origin, run};

#[test]
fn what_an_eager_client_sends_behind_connect_is_the_tunnels() {
    for host in ["a.test", "127.0.0.1"] {
        for version in ["1.1", "1.0"] {
            run(async {
                let (origin, address) = Origin::bind().await;
                let port = address.port();
                let sidecar =
                    Sidecar::start(vec![rule(&["a.test"], port, Protocol::Tcp, &[]), rule(&["127.0.0.0/8"], port, Protocol::Tcp, &[])]);
                let mut client = sidecar.await.client().await;
                client.send(format!("CONNECT {host}:{port} HTTP/{version}\r\nHost: {host}:{port}\r\n\r\n\x01eager\n")).await;
                let head = client.head().await;
                assert!(head.starts_with(&format!("http/{version} 200 ")), "{head}");
                assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
                let mut upstream = origin.accept().await;
                assert_eq!(upstream.until("\n").await, "\x01eager\n");
                upstream.send("hello\n").await;
                assert_eq!(client.until("\n").await, "hello\n");
                drop(client);
                assert_eq!(upstream.rest().await, "");
            });
        }
    }
}

#[test]
fn a_refused_connect_leaves_the_connection_to_ask_again() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut client = Sidecar::start(vec![rule(&["a.test"], port, Protocol::Tcp, &[])]).await.client().await;
        client.send(format!("CONNECT b.test:{port} HTTP/1.1\r\nHost: b.test:{port}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 403 "));
        client.until("}").await;
        client.send(format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 200 "));
        client.send("\x01x\n").await;
        assert_eq!(origin.accept().await.until("\n").await, "\x01x\n");
    });
}

#[test]
fn requests_in_a_tunnel_are_decided_one_by_one() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let sidecar = Sidecar::start(vec![rule(&["a.test"], port, Protocol::Http, &["/ok"]), http(&["b.test"], port)]).await;
        let mut client = sidecar.client().await;
        client.send(format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 200 "));
        let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        client.send(get("/ok", "a.test") + &get("/no", "a.test") + &get("/ok", "b.test") + &get("/ok", "a.test")).await;
        // The connection that CONNECT opened serves the requests.
        let mut upstream = origin.accept().await;
        for _ in 0..2 {
            assert!(upstream.head().await.starts_with("get /ok "));
            upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
        assert!(client.head().await.starts_with("http/1.1 204 "));
        for (status, reason) in [("403", "egress_request_denied"), ("403", "egress_name_mismatch")] {
            assert!(client.head().await.starts_with(&format!("http/1.1 {status} ")));
            client.until(reason).await;
            client.until("}").await;
        }
        assert!(client.head().await.starts_with("http/1.1 204 "));
    });
}
