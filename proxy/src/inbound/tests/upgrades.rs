//! WebSockets, and what only looks like one.

use super::peers::{Origin, Sidecar, run};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn a_websocket_carries_octets_both_ways() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::start(address).client().await;
        // Octets behind the handshake are the tunnel's, whatever they look like.
        client.send(format!("{HANDSHAKE}early\n")).await;
        let mut workload = origin.accept().await;
        let head = workload.head().await;
        for kept in ["\r\nconnection: upgrade\r\n", "\r\nupgrade: websocket\r\n", "\r\nsec-websocket-version: 13\r\n"] {
            assert!(head.contains(kept), "{head}");
        }
        workload.send(format!("{SWITCHED}hello\n")).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        assert_eq!(workload.until("\n").await, "early\n");
        assert_eq!(client.until("\n").await, "hello\n");
        client.send("ping\n").await;
        assert_eq!(workload.until("\n").await, "ping\n");
        workload.send("pong\n").await;
        assert_eq!(client.until("\n").await, "pong\n");
        drop(workload);
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn what_goes_on_where_the_workload_was_is_cut() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let (sidecar, move_to) = Sidecar::hasty(address);
        let (mut tunnel, mut stream) = (sidecar.client().await, sidecar.client().await);
        tunnel.send(HANDSHAKE).await;
        let mut socket = origin.accept().await;
        socket.head().await;
        socket.send(format!("{SWITCHED}hello\n")).await;
        tunnel.until("hello\n").await;
        stream.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut events = origin.accept().await;
        events.head().await;
        events.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
        stream.until("one\r\n").await;

        move_to("127.0.0.1:1".parse().unwrap());
        assert_eq!(tunnel.rest().await, "");
        assert_eq!(socket.rest().await, "");
        events.send("3\r\ntwo\r\n").await;
        assert_eq!(stream.rest().await, "", "neither the next event nor an end");

        move_to(address);
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert!(client.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200 "), "where it was is as good as any other again");
    });
}

#[test]
fn http_goes_on_where_the_workload_declines() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let mut client = Sidecar::start(address).client().await;
        client.send(format!("{HANDSHAKE}GET /next HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\n\r\n")).await;
        let mut workload = origin.accept().await;
        workload.head().await;
        workload.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("http/1.1 426 "));
        assert_eq!(workload.rest().await, "", "one that was to become a tunnel is used for nothing else");
        let mut workload = origin.accept().await;
        assert!(workload.head().await.starts_with("get /next "));
        workload.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(client.head().await.starts_with("http/1.1 204 "));
        assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn other_upgrades_do_not_leave_the_sidecar() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ];
    for request in requests {
        run(async {
            let (origin, address) = Origin::bind().await;
            let mut client = Sidecar::start(address).client().await;
            client.send(request).await;
            let mut workload = origin.accept().await;
            let head = workload.head().await;
            assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
            // Not even a workload that switches unasked gets a tunnel.
            workload.send(SWITCHED).await;
            assert!(client.head().await.starts_with("http/1.1 502 "));
        });
    }
}
