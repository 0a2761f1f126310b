use std::{net::SocketAddr, task::Poll};

use futures_util::poll;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::{AbortHandle, yield_now},
};

use super::*;

fn admin(readiness: &Readiness) -> Admin {
    let config = Box::new(|| json!({ "tenants": { "acme": "v1" } }));
    Admin { readiness: readiness.clone(), metrics: Arc::new(Metrics::new()), config }
}

fn serve(address: &str, readiness: &Readiness) -> (Option<SocketAddr>, AbortHandle) {
    let listener = AdminListener::bind(&address.parse().unwrap()).unwrap();
    let bound = listener.tcp_address();
    (bound, tokio::spawn(listener.serve(admin(readiness))).abort_handle())
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: impl AsRef<[u8]>) -> String {
    // The reply may come, and the connection close, before all is written.
    let _ = stream.write_all(request.as_ref()).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8(reply).unwrap()
}

fn status(reply: &str) -> &str {
    reply.split(' ').nth(1).unwrap_or_default()
}

fn body(reply: &str) -> &str {
    reply.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn four_things_can_be_read_and_nothing_changed() {
    let (address, _) = serve("127.0.0.1:0", &Readiness::default());
    for (line, code, expected) in [
        ("GET /readyz", "200", "ready\n"),
        ("HEAD /readyz", "200", ""),
        ("GET /healthz", "200", "ok\n"),
        ("GET /healthz?verbose", "200", "ok\n"),
        ("GET /config", "200", "{\n  \"tenants\": {\n    \"acme\": \"v1\"\n  }\n}\n"),
        ("GET http://localhost/healthz", "200", "ok\n"),
        ("GET http://evil.example/healthz", "421", "the Host must be localhost or a loopback address\n"),
        ("POST /config", "405", "read only: GET or HEAD\n"),
        ("DELETE /readyz", "405", "read only: GET or HEAD\n"),
        ("OPTIONS /metrics", "405", "read only: GET or HEAD\n"),
        ("GET /", "404", "not found: there are /readyz, /healthz, /metrics and /config\n"),
        ("POST /quitquitquit", "404", "not found: there are /readyz, /healthz, /metrics and /config\n"),
        ("GET /readyz/", "404", "not found: there are /readyz, /healthz, /metrics and /config\n"),
        ("GET /%72eadyz", "404", "not found: there are /readyz, /healthz, /metrics and /config\n"),
        ("GET //readyz", "404", "not found: there are /readyz, /healthz, /metrics and /config\n"),
    ] {
        let stream = TcpStream::connect(address.unwrap()).await.unwrap();
        let reply = exchange(stream, format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!((status(&reply), body(&reply)), (code, expected), "{line}");
        assert_eq!(reply.contains("allow: GET, HEAD"), code == "405", "{line}");
        assert!(reply.contains("connection: close") && reply.contains("cache-control: no-store"), "{reply}");
    }
    let stream = TcpStream::connect(address.unwrap()).await.unwrap();
    let reply = exchange(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(reply.contains(&format!("content-type: {}", metrics::CONTENT_TYPE)), "{reply}");
    assert!(body(&reply).contains("ringfence_inbound_requests_total{") && body(&reply).ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_tcp_request_must_name_a_loopback_host() {
    let (address, _) = serve("127.0.0.1:0", &Readiness::default());
    for (host, code) in [
        ("Host: localhost", "200"),
        ("Host: LOCALHOST:15000", "200"),
        ("Host: 127.0.0.1", "200"),
        ("Host: 127.0.0.1:15000", "200"),
        ("Host: [::1]:15000", "200"),
        ("Host: evil.example", "421"),
        ("Host: localhost.evil.example", "421"),
        ("Host: 127.0.0.1.evil.example", "421"),
        ("Host: evil.example@127.0.0.1", "421"),
        ("Host: 10.0.0.1", "421"),
        ("Host: 0.0.0.0", "421"),
        ("Host: 2130706433", "421"),
        ("Host:", "421"),
        ("X: y", "421"),
        ("Host: localhost\r\nHost: evil.example", "421"),
        ("Host: localhost\r\nHost: localhost", "421"),
    ] {
        let stream = TcpStream::connect(address.unwrap()).await.unwrap();
        let reply = exchange(stream, format!("GET /healthz HTTP/1.1\r\n{host}\r\n\r\n")).await;
        assert_eq!(status(&reply), code, "{host}");
    }
}

#[tokio::test]
async fn a_unix_socket_serves_its_owner_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let readiness = Readiness::default();
    let pending = (readiness.delay("config"), readiness.delay("listener"));
    let (address, server) = serve(&format!("unix:{}", path.display()), &readiness);
    assert_eq!(address, None);
    let readyz = async || {
        let stream = UnixStream::connect(&path).await.unwrap();
        let reply = exchange(stream, "GET /readyz HTTP/1.1\r\nHost: whatever\r\n\r\n").await;
        (status(&reply).to_owned(), body(&reply).to_owned())
    };
    assert_eq!(readyz().await, ("503".into(), "waiting for config, listener\n".into()));
    drop(pending);
    assert_eq!(readyz().await, ("200".into(), "ready\n".into()));
    readiness.drain();
    assert_eq!(readyz().await, ("503".into(), "draining\n".into()));
    server.abort();
    while path.exists() {
        yield_now().await;
    }
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let (address, _) = serve("127.0.0.1:0", &Readiness::default());
    let long = |field: &str| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
    for (request, code) in [
        ("\r\n\r\n\0\r\n".to_owned(), "400"),
        ("GET /healthz\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n".to_owned(), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        (long(&format!("X: {}", "a".repeat(HEAD_BYTES))), "431"),
        (long(&"X: y\r\n".repeat(HEAD_FIELDS)), "431"),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(100_000)), "431"),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "421"),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "404"),
    ] {
        let stream = TcpStream::connect(address.unwrap()).await.unwrap();
        let reply = exchange(stream, &request).await;
        assert_eq!(status(&reply), code, "{:.60}", request);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_sends_no_request_is_let_go() {
    let (address, _) = serve("127.0.0.1:0", &Readiness::default());
    for begun in ["", "GET /healthz HTTP/1.1\r\nHost: local"] {
        let stream = TcpStream::connect(address.unwrap()).await.unwrap();
        let started = tokio::time::Instant::now();
        assert_eq!(exchange(stream, begun).await, "", "{begun}");
        assert!(started.elapsed() <= CONNECTION_TIMEOUT + Duration::from_secs(1), "{begun}");
    }
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_their_turn() {
    let (address, _) = serve("127.0.0.1:0", &Readiness::default());
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(TcpStream::connect(address.unwrap()).await.unwrap());
    }
    let last = TcpStream::connect(address.unwrap()).await.unwrap();
    let mut reply = Box::pin(exchange(last, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    for _ in 0..1000 {
        assert_eq!(poll!(&mut reply), Poll::Pending);
        yield_now().await;
    }
    idle.pop();
    assert_eq!(body(&reply.await), "ok\n");
}
