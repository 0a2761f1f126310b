//! Plain HTTP through an explicit proxy.

use super::sidecar::{Sidecar, http, rule};
use crate::hop::peers::{Origin, run};
use ringfence_policy::egress::Protocol;

const OK: &str = "HTTP/1.1 200 OK\r\nX-Ringfence-Tenant: globex\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_goes_where_it_says_and_loses_what_was_meant_for_the_proxy() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut client = Sidecar::start(vec![http(&["a.test"], port)]).await.client().await;
        client
            .send(format!(
                "GET http://A.test:{port}/x?y HTTP/1.1\r\nHost: a.test:{port}\r\nX-Ringfence-Context: t\r\n\
                 Proxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\nAuthorization: Bearer mine\r\n\r\n"
            ))
            .await;
        let mut upstream = origin.accept().await;
        let head = upstream.head().await;
        assert!(head.starts_with("get /x?y http/1.1\r\n"), "{head}");
        for kept in
            [format!("\r\nhost: a.test:{port}\r\n"), "\r\nauthorization: bearer mine\r\n".into(), "\r\nvia: 1.1 ringfence\r\n".into()]
        {
            assert!(head.contains(&kept), "{head}");
        }
        assert!(!head.contains("x-ringfence") && !head.contains("\r\nproxy-") && !head.contains("forwarded"), "{head}");
        upstream.send(OK).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 200 ") && !head.contains("x-ringfence"), "{head}");
        client.until("ok").await;
    });
}

#[test]
fn pipelined_requests_are_each_their_own() {
    run(async {
        let ((a, to_a), (b, to_b)) = (Origin::bind().await, Origin::bind().await);
        let (a_port, b_port) = (to_a.port(), to_b.port());
        let sidecar = Sidecar::start(vec![rule(&["a.test"], a_port, Protocol::Http, &["/ok/**"]), http(&["b.test"], b_port)]).await;
        let mut client = sidecar.client().await;
        let get = |host: &str, port: u16, path: &str| format!("GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        client
            .send(
                [
                    get("a.test", a_port, "/ok/1"),
                    get("b.test", b_port, "/2"),
                    get("a.test", a_port, "/no"),
                    get("b.test", a_port, "/no"),
                    get("a.test", a_port, "/ok/3"),
                ]
                .concat(),
            )
            .await;
        let mut to_a = a.accept().await;
        assert!(to_a.head().await.starts_with("get /ok/1 "));
        to_a.send(OK).await;
        let mut to_b = b.accept().await;
        assert!(to_b.head().await.starts_with("get /2 "));
        to_b.send(OK).await;
        for reason in ["\r\n\r\nok", "\r\n\r\nok", "egress_request_denied", "egress_port_not_listed"] {
            client.until(reason).await;
        }
        assert!(to_a.head().await.starts_with("get /ok/3 "), "the connection of this downstream is used again");
        to_a.send(OK).await;
        client.until("\r\n\r\nok").await;
        // Another downstream gets a connection of its own.
        let mut other = sidecar.client().await;
        other.send(get("a.test", a_port, "/ok/4")).await;
        assert!(a.accept().await.head().await.starts_with("get /ok/4 "));
    });
}

#[test]
fn refusals_open_no_socket() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let listener = origin.into_listener();
        let sidecar = Sidecar::start(vec![
            rule(&["a.test"], port, Protocol::Http, &["/ok"]),
            http(&["metadata.test", "absent.invalid"], port),
            rule(&["tls.test"], port, Protocol::Tls, &[]),
        ])
        .await;
        let get = |uri: &str, host: &str| format!("GET {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n").replace("PORT", &port.to_string());
        let connect = |target: &str, fields: &str| {
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n").replace("PORT", &port.to_string())
        };
        for (request, status, reason) in [
            (get("http://b.test:PORT/", "b.test:PORT"), 403, "egress_host_not_listed"),
            (get("http://a.test/ok", "a.test"), 403, "egress_port_not_listed"),
            (get("http://a.test:PORT/other", "a.test:PORT"), 403, "egress_request_denied"),
            (get("http://a.test:PORT/ok/../x", "a.test:PORT"), 400, "request_malformed"),
            (get("http://a.test:PORT/ok%2f", "a.test:PORT"), 400, "request_malformed"),
            (get("http://tls.test:PORT/", "tls.test:PORT"), 403, "egress_protocol_not_allowed"),
            (get("http://metadata.test:PORT/", "metadata.test:PORT"), 403, "egress_address_forbidden"),
            (get("http://absent.invalid:PORT/", "absent.invalid:PORT"), 502, "egress_name_unresolved"),
            (get("http://127.0.0.1:PORT/ok", "127.0.0.1:PORT"), 403, "egress_host_not_listed"),
            (get("http://127.1:PORT/ok", "127.1:PORT"), 400, "request_malformed"),
            (get("http://a.test:PORT/ok", "b.test:PORT"), 403, "egress_name_mismatch"),
            (get("http://a.test:PORT/ok", "a.test"), 403, "egress_name_mismatch"),
            (get("https://a.test:PORT/ok", "a.test:PORT"), 400, "request_malformed"),
            (get("ftp://a.test:PORT/ok", "a.test:PORT"), 400, "request_malformed"),
            (get("/ok", "a.test:PORT"), 400, "request_malformed"),
            (get("http://u@a.test:PORT/ok", "a.test:PORT"), 400, "request_malformed"),
            (connect("b.test:PORT", ""), 403, "egress_host_not_listed"),
            (connect("a.test:1", ""), 403, "egress_port_not_listed"),
            (connect("metadata.test:PORT", ""), 403, "egress_address_forbidden"),
            (connect("absent.invalid:PORT", ""), 502, "egress_name_unresolved"),
            (connect("a.test", ""), 400, "request_malformed"),
            (connect("0x7f.1:PORT", ""), 400, "request_malformed"),
            (connect("a.test:PORT", "Content-Length: 0\r\n"), 400, "request_malformed"),
            (connect("a.test:PORT", "Transfer-Encoding: chunked\r\n"), 400, "request_malformed"),
            // One reading or none.
            (get("http://a.test:PORT/ok", "a.test:PORT\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"), 400, "request_malformed"),
            (get("http://a.test:PORT/ok", "a.test:PORT\r\nHost: b.test:PORT"), 400, "request_malformed"),
            (get("http://a.test:PORT/ok", "a.test:PORT\r\nTransfer-Encoding: xchunked"), 400, "request_malformed"),
            (get("http://a.test:PORT/ok", "a.test:PORT\nX: y"), 400, "request_malformed"),
        ] {
            let mut client = sidecar.client().await;
            client.send(&request).await;
            let head = client.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{request}{head}");
            assert!(head.contains("\r\nproxy-status: ringfence; error=") && !head.contains("127.0.0.1"), "{head}");
            let body = client.until("}").await;
            assert!(body.contains(&format!("\"{reason}\"")) && !body.contains("169.254"), "{request}{body}");
        }
        assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none(), "nothing was connected to");
    });
}

#[test]
fn a_destination_that_is_down_is_told() {
    run(async {
        let (origin, address) = Origin::bind().await;
        drop(origin);
        let port = address.port();
        let mut client = Sidecar::start(vec![http(&["a.test"], port)]).await.client().await;
        for request in [
            format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"),
            format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"),
            format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"),
        ] {
            client.send(request).await;
            assert!(client.head().await.starts_with("http/1.1 502 "));
            assert!(client.until("}").await.contains("upstream_connect"));
        }
    });
}

#[test]
fn a_websocket_goes_through_plain_http() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut client = Sidecar::start(vec![http(&["a.test"], port)]).await.client().await;
        client
            .send(format!(
                "GET http://a.test:{port}/chat HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nearly\n"
            ))
            .await;
        let mut upstream = origin.accept().await;
        assert!(upstream.head().await.contains("\r\nupgrade: websocket\r\n"));
        upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n").await;
        assert!(client.head().await.starts_with("http/1.1 101 "));
        assert_eq!(client.until("\n").await, "hello\n");
        assert_eq!(upstream.until("\n").await, "early\n");
        upstream.send("pong\n").await;
        assert_eq!(client.until("\n").await, "pong\n");
        drop(upstream);
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn bodies_and_their_trailers_stream_both_ways() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut client = Sidecar::start(vec![http(&["a.test"], port)]).await.client().await;
        client
            .send(format!(
                "POST http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
            ))
            .await;
        assert!(client.head().await.starts_with("http/1.1 100 "));
        client.send("4\r\nhalf\r\n").await;
        let mut upstream = origin.accept().await;
        upstream.until("half\r\n").await;
        client.send("0\r\n\r\n").await;
        upstream.until("0\r\n\r\n").await;
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        client.until("first").await;
        upstream.send("0\r\n\r\n").await;
        client.until("0\r\n\r\n").await;
    });
}
