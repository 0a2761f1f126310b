//! Attempts to be let through by the sidecar: captured connections, and requests to it as a proxy, that claim what they are not.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, TcpStream},
};

use ringfence_tests::{
    http::http2,
    netns::POD_V4,
    pod::{DNS, EGRESS, INBOUND},
    raw::{self, Raw},
    tls::{self, Says, client_hello},
};
use serde_json::Value;

use super::world::{ALLOWED_V4, ALLOWED_V6, FOREIGN_V4, FOREIGN_V6, METADATA, RESOLVER_V4, World};

/// The alerts of RFC 8446 §6 that refuse a ClientHello.
const ACCESS_DENIED: u8 = 49;
const UNRECOGNIZED_NAME: u8 = 112;

/// What of a ClientHello was answered in the clear.
#[track_caller]
fn alert(world: &World, to: IpAddr, hello: &[u8]) -> u8 {
    let mut stream = world.pod.connect(to, 443).unwrap();
    stream.write_all(hello).unwrap();
    let answer = all(stream);
    assert!(matches!(answer[..], [21, 3, 3, 0, 2, 2, _]), "an alert and no more: {answer:?}");
    answer[6]
}

/// What comes to the end of the connection; a reset ends it too.
fn all(mut stream: TcpStream) -> Vec<u8> {
    let mut octets = Vec::new();
    match stream.read_to_end(&mut octets) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => octets,
    }
}

/// The reply to what the workload sends to port 80 of an address.
#[track_caller]
fn http(world: &World, to: IpAddr, request: &str) -> (u16, String) {
    verdict(&exchange(world, to, 80, request.as_bytes()))
}

#[track_caller]
fn exchange(world: &World, to: IpAddr, port: u16, request: &[u8]) -> String {
    let mut raw = Raw::on(world.pod.connect(to, port).unwrap());
    raw.send(request);
    raw.rest()
}

/// Status and reason of a reply in text; the last, of several.
#[track_caller]
fn verdict(reply: &str) -> (u16, String) {
    let reply = &reply[reply.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("no reply: {reply:?}"))..];
    let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    (raw::status(reply), body["reason"].as_str().unwrap_or_default().to_owned())
}

/// The reply to what the workload asks its sidecar for, as a proxy.
#[track_caller]
fn ask(world: &World, request: &str) -> (u16, String) {
    verdict(&exchange(world, [127, 0, 0, 1].into(), EGRESS, request.as_bytes()))
}

#[test]
fn a_name_goes_where_the_sidecar_finds_it_and_nowhere_else() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    for (i, claimed) in [ALLOWED_V4, ALLOWED_V6, FOREIGN_V4, FOREIGN_V6, METADATA].into_iter().enumerate() {
        let path = format!("/tls/{i}");
        let reply = tls::get(world.pod.connect(claimed, 443).unwrap(), "allowed.test", &path).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        let arrived: usize = world.allowed.iter().map(|allowed| allowed.count(&path)).sum();
        assert_eq!(arrived, 1, "{claimed}");
        let path = format!("/plain/{i}");
        let reply = http(&world, claimed, &format!("GET {path} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n"));
        assert_eq!(reply.0, 200, "{claimed}");
        let arrived: usize = world.plain.iter().map(|plain| plain.count(&path)).sum();
        assert_eq!(arrived, 1, "{claimed}");
        world.nothing_arrived(&canary, &format!("an allowed name, sent to {claimed}"));
    }
}

#[test]
fn tls_that_does_not_openly_say_an_allowed_name_gets_an_alert() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    for (what, says, description) in [
        ("another name", Says::Name("evil.test"), ACCESS_DENIED),
        ("a DoH server's name", Says::Name("dns.evil.test"), ACCESS_DENIED),
        ("a name below the allowed one", Says::Name("sub.allowed.test"), ACCESS_DENIED),
        ("no name", Says::Nothing, UNRECOGNIZED_NAME),
        ("an allowed name beside an encrypted hello", Says::NameAndEch("allowed.test"), UNRECOGNIZED_NAME),
    ] {
        for to in [ALLOWED_V4, ALLOWED_V6, FOREIGN_V4, FOREIGN_V6, RESOLVER_V4] {
            assert_eq!(alert(&world, to, &client_hello(says)), description, "{what} to {to}");
            world.nothing_arrived(&canary, what);
        }
    }
    assert_eq!(world.allowed.each_ref().map(|allowed| allowed.connections()), [0, 0], "what is allowed has heard nothing either");
}

#[test]
fn a_name_that_leads_to_a_forbidden_address_leads_nowhere() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    for (name, leads_to) in [
        ("private.lead.test", "10.0.0.5"),
        ("metadata.lead.test", "169.254.169.254"),
        ("shared.lead.test", "100.64.0.1"),
        ("test-net.lead.test", "203.0.113.5"),
        ("mapped.lead.test", "::ffff:45.33.32.156"),
        ("mapped-metadata.lead.test", "::ffff:169.254.169.254"),
        ("nat64.lead.test", "64:ff9b::a9fe:a9fe"),
        ("local-nat64.lead.test", "64:ff9b:1::a9fe:a9fe"),
        ("six-to-four.lead.test", "2002:a9fe:a9fe::1"),
        ("teredo.lead.test", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
        ("unique-local.lead.test", "fd00:ec2::254"),
        ("link-local.lead.test", "fe80::1"),
        ("group.lead.test", "ff02::1"),
        ("nowhere.lead.test", "0.0.0.0"),
    ] {
        world.dns.set(name, &[leads_to]);
        assert_eq!(alert(&world, FOREIGN_V4, &client_hello(Says::Name(name))), ACCESS_DENIED, "{leads_to}");
        for to in [FOREIGN_V4, METADATA] {
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
            assert_eq!(http(&world, to, &request), (403, "egress_address_forbidden".into()), "{leads_to}");
        }
        world.nothing_arrived(&canary, leads_to);
    }
}

#[test]
fn a_request_is_for_the_host_that_it_names() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    let plain = || world.plain.iter().map(|plain| plain.connections()).sum::<usize>();
    for (to, request, status, reason) in [
        (FOREIGN_V4, "GET / HTTP/1.1\r\nHost: 45.33.32.156\r\n", 403, "egress_host_not_listed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: 45.33.32.156\r\n", 403, "egress_name_mismatch"),
        (METADATA, "GET /latest/meta-data/ HTTP/1.1\r\nHost: 169.254.169.254\r\n", 403, "egress_host_not_listed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: evil.test\r\n", 403, "egress_host_not_listed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: allowed.test\r\n", 403, "egress_port_not_listed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: plain.test:443\r\n", 403, "egress_name_mismatch"),
        (ALLOWED_V4, "POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 0\r\n", 403, "egress_request_denied"),
        (ALLOWED_V4, "GET http://evil.test/ HTTP/1.1\r\nHost: plain.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET http://plain.test/ HTTP/1.1\r\nHost: evil.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n", 403, "egress_host_not_listed"),
        (ALLOWED_V4, "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: plain.test\r\nHost: evil.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: plain.test\0.evil.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET /\0 HTTP/1.1\r\nHost: plain.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET / HTTP/1.1\nHost: plain.test\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: plain.test\r\n evil.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost : plain.test\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n", 400, "request_malformed"),
        (ALLOWED_V4, "GET / HTTP/1.1\r\nHost: user@plain.test\r\n", 400, "request_malformed"),
    ] {
        let verdict = http(&world, to, &format!("{request}Connection: close\r\n\r\n"));
        assert_eq!(verdict, (status, reason.into()), "{request:?} to {to}");
        world.nothing_arrived(&canary, request);
    }
    assert_eq!(plain(), 0, "what is allowed has heard nothing either");
    // Where a request ends and the next begins, both sides see alike.
    let smuggled = "GET /first HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 60\r\nConnection: close\r\n\r\nGET /second HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    let _ = exchange(&world, ALLOWED_V4, 80, format!("{smuggled}{}", " ".repeat(60)).as_bytes());
    assert_eq!(world.plain.iter().map(|plain| plain.count("/second")).sum::<usize>(), 0);
    world.nothing_arrived(&canary, "a request in a request's body");
}

#[test]
fn hosts_in_disguise_are_known_or_refused() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    for host in [
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "127.0.0.1..",
        "0",
        "0x0",
        "%31%32%37.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[2002:a9fe:a9fe::]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "169.254.43518",
        "0xa9fea9fe",
        "2852039166",
        "localhost",
        "metadata.google.internal",
        "169.254.169.254.nip.io",
        "plain.test.",
        "plain.test..",
        ".plain.test",
        "plain.test%00.evil.test",
        "plain.test#.evil.test",
        "plain.test\\.evil.test",
        "evil.test@plain.test",
        "plain.test:80:80",
        "plain.test:080",
        "plain.test:65616",
    ] {
        for request in [
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
            format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nConnection: close\r\n\r\n"),
        ] {
            let (status, reason) = if request.starts_with("GET /") { http(&world, METADATA, &request) } else { ask(&world, &request) };
            // The same host and port in other words (RFC 1034 §3.1, RFC 3986 §3.2.3).
            let is_allowed = ["plain.test.", "plain.test:080"].contains(&host) && status == 200;
            assert!(is_allowed || [400, 403].contains(&status), "{request:?}: {status} {reason}");
            world.nothing_arrived(&canary, &request);
        }
    }
}

#[test]
fn a_connection_that_was_good_is_good_for_its_own_host_alone() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    let mut raw = Raw::on(world.pod.connect(ALLOWED_V4, 80).unwrap());
    raw.send("GET /one HTTP/1.1\r\nHost: plain.test\r\n\r\n");
    assert_eq!(raw::status(&raw.response()), 200);
    raw.send("GET /two HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
    assert_eq!(verdict(&raw.rest()), (403, "egress_host_not_listed".into()));
    world.nothing_arrived(&canary, "another Host on a connection that is open");

    let uris = ["http://plain.test/three", "http://evil.test/", "http://45.33.32.156/", "http://plain.test/four"];
    let replies = http2(world.pod.connect(FOREIGN_V4, 80).unwrap(), &uris);
    let verdicts: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(verdicts, [200, 403, 403, 200], "coalesced on one HTTP/2 connection");
    assert_eq!(world.plain.iter().map(|plain| plain.count("/four")).sum::<usize>(), 1);
    world.nothing_arrived(&canary, "coalesced on one HTTP/2 connection");
}

#[test]
fn what_says_nothing_or_nothing_known_goes_by_its_address_alone() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    for (to, port) in [(FOREIGN_V4, 22), (FOREIGN_V6, 22), (FOREIGN_V4, 5432), (METADATA, 22), (ALLOWED_V4, 25)] {
        for said in [&b""[..], b"\0\x01opaque", b"SSH-2.0-canary\r\n"] {
            let mut stream = world.pod.connect(to, port).unwrap();
            stream.write_all(said).unwrap();
            assert_eq!(all(stream), b"", "{to}:{port} after {said:?}");
            world.nothing_arrived(&canary, &format!("{said:?} to {to}:{port}"));
        }
    }
}

#[test]
fn the_sidecar_does_not_reach_itself() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    let log = world.log();
    for host in [[127, 0, 0, 1].into(), IpAddr::from([127, 9, 9, 9]), POD_V4] {
        for port in [EGRESS, DNS, INBOUND] {
            let verdict = ask(&world, &format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"));
            assert_eq!(verdict, (403, "egress_address_forbidden".into()), "{host}:{port}");
        }
    }
    world.nothing_arrived(&canary, "round in circles");
    assert!(!log.lines().iter().any(|line| line["decision"] == "allow"), "{}", log.text());
}

/// The client is curl, which does as it is told.
#[test]
fn a_redirect_is_a_request_like_any_other() {
    let Some(world) = World::started() else { return };
    let canary = world.canary();
    for (to, expected) in
        [("http://169.254.169.254/latest/meta-data/", "403"), ("https://169.254.169.254/", "302"), ("http://plain.test/end", "200")]
    {
        let mut curl = world.pod.workload("curl");
        curl.args(["--silent", "--insecure", "--location", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        curl.arg("--resolve").arg(format!("plain.test:80:{ALLOWED_V4}")).arg(format!("http://plain.test/redirect?{to}"));
        let output = curl.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{to}: {output:?}");
        world.nothing_arrived(&canary, to);
    }
}
