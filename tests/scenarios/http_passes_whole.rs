//! HTTP goes through the sidecar as it came: kept alive, upgraded, streamed, with its trailers, given up when the client gives up.

use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;
use ringfence_tests::{
    Acme, Serve, Sidecar, Site, eventually, free_port,
    http::{frames, get, post, zeros},
    procfs,
    raw::Raw,
    upstream::End,
};

#[test]
fn a_connection_is_kept_alive_and_requests_may_be_pipelined() {
    let acme = Acme::start();
    let mut raw = Raw::connect(acme.address);
    for n in 0..20 {
        raw.send(format!("{}\r\n", acme.head("GET", &format!("/{n}"))));
        assert!(raw.response().starts_with("HTTP/1.1 200 "));
    }
    raw.send(format!("{}\r\n{}\r\n", acme.head("GET", "/a"), acme.head("GET", "/b")));
    assert!(raw.response().starts_with("HTTP/1.1 200 ") && raw.response().starts_with("HTTP/1.1 200 "));
    // A refusal in between ends nothing.
    raw.send("GET /refused HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(raw.response().starts_with("HTTP/1.1 401 "));
    raw.send(format!("{}Connection: close\r\n\r\n", acme.head("GET", "/last")));
    assert!(raw.rest().starts_with("HTTP/1.1 200 "));
    assert_eq!(acme.upstream.count("/refused"), 0);
}

#[test]
fn a_websocket_echoes_both_ways() {
    let acme = Acme::start();
    let mut raw = Raw::connect(acme.address);
    let handshake =
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    raw.send(acme.head("GET", "/chat") + handshake);
    let head = raw.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for message in ["\u{1}one", "two\r\n\r\n", "GET /smuggled HTTP/1.1\r\n\r\n"] {
        raw.send(message);
        assert_eq!(raw.until(message), message);
    }
    assert_eq!(acme.upstream.begun("/chat").headers["x-ringfence-tenant"], "acme");
    assert_eq!(acme.upstream.count("/smuggled"), 0);
    // Without a token there is no upgrade.
    let mut refused = Raw::connect(acme.address);
    refused.send(format!("GET /chat HTTP/1.1\r\nHost: a\r\n{handshake}"));
    assert!(refused.response().starts_with("HTTP/1.1 401 "));
}

#[test]
fn grpc_keeps_its_protocol_its_messages_and_its_trailers() {
    let acme = Acme::start();
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    let body = frames([message.clone(), message.clone()], Some(trailers));
    let reply = post(acme.address, "/echo.Echo/Say", body)
        .bearer(&acme.token)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .send_h2();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body, [&message[..], &message].concat());
    assert_eq!(reply.trailers.as_ref().expect("trailers")["grpc-status"], "0");
    let seen = acme.upstream.seen("/echo.Echo/Say");
    assert_eq!((seen.version, seen.length), (http::Version::HTTP_2, 20));
    assert_eq!(seen.trailers.expect("trailers")["x-sum"], "42");
    assert_eq!(seen.headers["te"], "trailers");
}

#[test]
fn chunked_bodies_and_trailers_pass_over_http_1() {
    let acme = Acme::start();
    let mut raw = Raw::connect(acme.address);
    raw.send(acme.head("POST", "/chunked") + "Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n");
    raw.send("2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n");
    assert!(raw.response().starts_with("HTTP/1.1 200 "));
    let seen = acme.upstream.seen("/chunked");
    assert_eq!(seen.body, b"abcde");
    assert_eq!(seen.trailers.expect("trailers")["x-sum"], "1");
}

#[test]
fn large_bodies_stream_through_in_bounded_memory() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let acme = Acme::start();
    let address = acme.address;
    assert_eq!(get(address, "/warm").bearer(&acme.token).send().status, 200);
    let before = procfs::resident_kib(acme.sidecar.process.pid());
    let target = format!("/big/{LENGTH}");
    let down = get(address, &target).bearer(&acme.token).send();
    assert_eq!((down.status, down.length), (200, LENGTH));
    let up = post(address, "/up", zeros(LENGTH)).bearer(&acme.token).send();
    assert_eq!((up.status, acme.upstream.seen("/up").length), (200, LENGTH));
    let both = post(address, &target, zeros(LENGTH)).bearer(&acme.token).send_h2();
    assert_eq!((both.status, both.length), (200, LENGTH));
    let after = procfs::resident_kib(acme.sidecar.process.pid());
    println!("64 MiB each way: {before} KiB resident before, {after} after");
    assert!(after < before + 8 * 1024, "{before} KiB, then {after}");
}

#[test]
fn a_slow_workload_is_waited_for_and_others_are_served_meanwhile() {
    let acme = Acme::start();
    let mut slow = Raw::connect(acme.address);
    slow.send(acme.head("GET", "/hold") + "\r\n");
    acme.upstream.begun("/hold");
    for _ in 0..10 {
        assert_eq!(acme.get("/quick").send().status, 200);
    }
    acme.upstream.release();
    assert!(slow.response().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_client_that_goes_away_takes_its_request_along() {
    let acme = Acme::start();
    let mut raw = Raw::connect(acme.address);
    raw.send(acme.head("GET", "/hold") + "\r\n");
    acme.upstream.begun("/hold");
    drop(raw);
    assert_eq!(acme.upstream.seen("/hold").end, Some(End::Dropped));
    eventually("nothing is in flight", || (acme.sidecar.admin.metric("ringfence_inbound_in_flight", "") == 0.0).then_some(()));
    let line = acme.sidecar.log.line("/hold");
    assert!(line.get("status").is_none(), "it had no reply: {line}");
}

#[test]
fn a_client_that_asks_first_is_told_to_continue() {
    let acme = Acme::start();
    let mut raw = Raw::connect(acme.address);
    raw.send(acme.head("POST", "/asked") + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(raw.head().starts_with("HTTP/1.1 100 "));
    raw.send("hello");
    assert!(raw.response().starts_with("HTTP/1.1 200 "));
    assert_eq!(acme.upstream.seen("/asked").body, b"hello");
    // Refused before a body is asked for.
    let mut refused = Raw::connect(acme.address);
    refused.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(refused.head().starts_with("HTTP/1.1 401 "));
}

#[test]
fn a_workload_that_cannot_be_reached_is_told_apart() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let site = Site::acme(nobody);
    let serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, "acme-api");
    let reply = get(sidecar.address(), "/down").bearer(&site.token("acme")).send();
    assert_eq!(reply.verdict(), (502, "upstream_connect".into()));
    let line = sidecar.log.line("/down");
    assert_eq!((&line["reason"], &line["upstream_error"]), (&"upstream_connect".into(), &"refused".into()));
}
