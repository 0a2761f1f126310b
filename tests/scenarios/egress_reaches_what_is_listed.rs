//! An explicit proxy's client reaches what its tenant's allowlist names, and is told why where it does not.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
};

use ringfence_tests::{
    Echo, Egress, Sidecar, Upstream, echo, eventually, free_port,
    http::get,
    raw::{Raw, exchange, status},
    site::object,
    tls::{self, Says, client_hello},
};
use serde_json::{Value, json};

#[test]
fn each_refusal_has_its_status_and_reason() {
    let (tls, plain) = (Upstream::tls("api.test"), Upstream::start());
    let (secure, open, closed) = (tls.address.port(), plain.address.port(), free_port());
    let egress = Egress::allowing(&format!(
        "[{{ name: tls, hosts: [api.test, \"*.lead.test\", missing.test], ports: [{secure}, {closed}] }}, \
          {{ name: plain, hosts: [plain.test], ports: [{open}, {closed}], protocol: http, requests: [{{ methods: [GET], paths: [\"/v1/{{tenant}}/**\"] }}] }}, \
          {{ name: net, cidrs: [127.0.0.0/30], ports: [{open}], protocol: tcp }}]"
    ));
    for (name, address) in [
        ("api.test", "127.0.0.1"),
        ("plain.test", "127.0.0.1"),
        ("private.lead.test", "10.0.0.1"),
        ("metadata.lead.test", "169.254.169.254"),
        ("mapped.lead.test", "::ffff:127.0.0.1"),
        ("nat64.lead.test", "64:ff9b::7f00:1"),
        ("loopback.lead.test", "::1"),
        ("other.test", "127.0.0.1"),
    ] {
        egress.dns.set(name, &[address]);
    }
    for (request, expected, reason) in [
        (format!("CONNECT api.test:{secure}"), 200, ""),
        (format!("CONNECT API.Test:{secure}"), 200, ""),
        (format!("CONNECT other.test:{secure}"), 403, "egress_host_not_listed"),
        (format!("CONNECT lead.test:{secure}"), 403, "egress_host_not_listed"),
        (format!("CONNECT api.test:{open}"), 403, "egress_port_not_listed"),
        (format!("CONNECT private.lead.test:{secure}"), 403, "egress_address_forbidden"),
        (format!("CONNECT metadata.lead.test:{secure}"), 403, "egress_address_forbidden"),
        (format!("CONNECT mapped.lead.test:{secure}"), 403, "egress_address_forbidden"),
        (format!("CONNECT nat64.lead.test:{secure}"), 403, "egress_address_forbidden"),
        (format!("CONNECT loopback.lead.test:{secure}"), 403, "egress_address_forbidden"),
        (format!("CONNECT missing.test:{secure}"), 502, "egress_name_unresolved"),
        (format!("CONNECT api.test:{closed}"), 502, "upstream_connect"),
        (format!("CONNECT 127.0.0.1:{open}"), 200, ""),
        (format!("CONNECT 127.0.0.1:{secure}"), 403, "egress_port_not_listed"),
        (format!("CONNECT 127.0.0.4:{open}"), 403, "egress_host_not_listed"),
        (format!("CONNECT [::ffff:127.0.0.4]:{open}"), 403, "egress_host_not_listed"),
        (format!("CONNECT [::1]:{open}"), 403, "egress_host_not_listed"),
        ("CONNECT api.test".into(), 400, "request_malformed"),
        ("CONNECT http://api.test:443/".into(), 400, "request_malformed"),
        (format!("CONNECT api.test:{secure}/"), 400, "request_malformed"),
        (format!("CONNECT user@api.test:{secure}"), 400, "request_malformed"),
        (format!("GET http://plain.test:{open}/v1/acme/a"), 200, ""),
        (format!("GET http://plain.test:{open}/v1/globex/a"), 403, "egress_request_denied"),
        (format!("GET http://plain.test:{open}/v1/acme/../globex/a"), 400, "request_malformed"),
        (format!("POST http://plain.test:{open}/v1/acme/a"), 403, "egress_request_denied"),
        (format!("GET http://plain.test:{secure}/v1/acme/a"), 403, "egress_port_not_listed"),
        (format!("GET http://plain.test:{closed}/v1/acme/a"), 502, "upstream_connect"),
        (format!("GET http://api.test:{secure}/"), 403, "egress_protocol_not_allowed"),
        (format!("GET http://other.test:{open}/"), 403, "egress_host_not_listed"),
        (format!("GET http://127.0.0.1:{open}/"), 200, ""),
        (format!("GET https://api.test:{secure}/"), 400, "request_malformed"),
        ("GET /v1/acme/a".into(), 400, "request_malformed"),
        ("GET ftp://plain.test/".into(), 400, "request_malformed"),
    ] {
        let target = request.split(' ').nth(1).unwrap();
        let authority = target.split_once("://").map_or(target, |(_, rest)| rest.split('/').next().unwrap());
        let authority = if authority.starts_with('/') { "plain.test" } else { authority };
        let verdict = egress.ask(&format!("{request} HTTP/1.1\r\nHost: {authority}\r\n"));
        assert_eq!(verdict, (expected, reason.to_owned()), "{request}");
    }
    let mismatch = egress.ask(&format!("CONNECT api.test:{secure} HTTP/1.1\r\nHost: other.test:{secure}\r\n"));
    assert_eq!(mismatch, (403, "egress_name_mismatch".into()));
    let mismatch = egress.ask(&format!("GET http://plain.test:{open}/v1/acme/a HTTP/1.1\r\nHost: other.test:{open}\r\n"));
    assert_eq!(mismatch, (403, "egress_name_mismatch".into()));
    assert_eq!(tls.connections(), 2, "of what was refused nobody heard");
}

#[test]
fn a_refusal_says_who_refused_and_where_the_rest_is_told() {
    let egress = Egress::allowing("[{ name: one, hosts: [api.test], ports: [443] }]");
    let reply = get(egress.address, "http://evil.test/secret").header("proxy-connection", "close").send();
    // The harness asks with a Host of its own, which disagrees.
    assert_eq!(reply.verdict(), (403, "egress_name_mismatch".into()));
    let mut raw = Raw::connect(egress.address);
    raw.send("GET http://evil.test/secret HTTP/1.1\r\nHost: evil.test\r\n\r\n");
    let reply = raw.response();
    assert_eq!(status(&reply), 403);
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.contains("\r\ncontent-type: application/problem+json"), "{head}");
    assert!(head.contains("\r\nproxy-status: ringfence; error="), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["status"], &body["reason"]), (&403.into(), &"egress_host_not_listed".into()));
    let line = egress.sidecar.log.find("the refused request", |line| line["id"] == body["id"]);
    assert_eq!((&line["host"], &line["decision"]), (&"evil.test".into(), &"deny".into()), "{line}");
    assert!(!body.to_string().contains("acme") && !body.to_string().contains("evil"), "{body}");
}

#[test]
fn tls_in_a_tunnel_must_openly_name_the_host_of_its_connect() {
    let upstream = Upstream::tls("api.test");
    let port = upstream.address.port();
    let egress = Egress::allowing(&format!("[{{ name: tls, hosts: [\"*.test\"], ports: [{port}] }}]"));
    egress.dns.set("api.test", &["127.0.0.1"]);
    let tunnel = || egress.connect(&format!("api.test:{port}")).expect("a tunnel");
    let reply = tls::get(tunnel().into_inner(), "api.test", "/through").unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert_eq!(upstream.count("/through"), 1);
    for (what, said, reason) in [
        ("another name that is allowed too", client_hello(Says::Name("other.test")), "egress_name_mismatch"),
        ("no name", client_hello(Says::Nothing), "egress_name_hidden"),
        ("an encrypted hello", client_hello(Says::NameAndEch("api.test")), "egress_name_hidden"),
    ] {
        let mut raw = tunnel();
        raw.send(said);
        assert!(matches!(raw.rest_octets()[..], [21, 3, 3, 0, 2, 2, _]), "{what}: an alert");
        egress.sidecar.log.find(what, |line| line["reason"] == reason);
    }
    let mut raw = tunnel();
    raw.send(b"\0\x01opaque");
    assert_eq!(raw.rest(), "");
    let mut raw = tunnel();
    raw.send(format!("GET / HTTP/1.1\r\nHost: api.test:{port}\r\nConnection: close\r\n\r\n"));
    assert_eq!(status(&raw.rest()), 403, "plain HTTP where a rule says tls");
    let replies = upstream.count("/");
    assert_eq!(replies, 0);
}

#[test]
fn the_address_that_was_judged_is_the_one_that_is_dialled() {
    let echo = Echo::start();
    let port = echo.address.port();
    let egress = Egress::allowing(&format!("[{{ name: any, hosts: [turn.test], ports: [{port}], protocol: tcp }}]"));
    // Whoever asked a second time for one connection would be led to an address where nobody may go.
    egress.dns.set_in_turn("turn.test", &[&["127.0.0.1"], &["10.0.0.1"]]);
    let mut raw = egress.connect(&format!("turn.test:{port}")).expect("the first answer is good");
    echo::ping(&mut raw);
    assert_eq!(egress.connect(&format!("turn.test:{port}")).err(), Some((403, "egress_address_forbidden".into())), "the second is not");
    egress.dns.set_in_turn("turn.test", &[&["10.0.0.1"], &["127.0.0.1"]]);
    assert_eq!(egress.connect(&format!("turn.test:{port}")).err(), Some((403, "egress_address_forbidden".into())));
    // Of several the forbidden are left out.
    egress.dns.set("turn.test", &["10.0.0.1", "127.0.0.1", "169.254.169.254"]);
    assert!(egress.connect(&format!("turn.test:{port}")).is_ok());
}

#[test]
fn a_large_transfer_arrives_whole_both_ways() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let upstream = Upstream::start();
    let port = upstream.address.port();
    let egress = Egress::allowing(&format!("[{{ name: any, hosts: [big.test], ports: [{port}], protocol: tcp }}]"));
    egress.dns.set("big.test", &["127.0.0.1"]);
    let mut tunnel = egress.connect(&format!("big.test:{port}")).unwrap().into_inner();
    let request = format!("POST /big/{LENGTH} HTTP/1.1\r\nHost: big.test:{port}\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n");
    tunnel.write_all(request.as_bytes()).unwrap();
    let piece = [7; 64 * 1024];
    for _ in 0..LENGTH / piece.len() {
        tunnel.write_all(&piece).unwrap();
    }
    let received = std::io::copy(&mut tunnel, &mut std::io::sink()).unwrap();
    assert!((LENGTH..LENGTH + 64 * 1024).contains(&(received as usize)), "the body, and what it came in: {received}");
    assert_eq!(upstream.seen(&format!("/big/{LENGTH}")).length, LENGTH);
}

/// Where it listens on TCP, a rule that lists it notwithstanding.
#[test]
fn the_admin_endpoint_is_not_reached_through_the_sidecar() {
    let free = || SocketAddr::from(([127, 0, 77, 1], free_port()));
    let (admin, proxy) = (free(), free());
    let mut egress =
        Egress::allowing(&format!("[{{ name: all, cidrs: [127.0.0.0/8], ports: [{}, {}], protocol: tcp }}]", admin.port(), proxy.port()));
    assert!(egress.sidecar.process.terminate().success());
    egress
        .site
        .write("job.yaml", &object("Workload", "job", &format!("{{ tenant: acme, egress: {{ listen: \"{proxy}\", capture: none }} }}")));
    let bootstrap = json!({ "controlPlane": { "unix": egress.serve.socket("job") }, "admin": admin.to_string() });
    egress.sidecar = Sidecar::begin(&egress.site, "job", &bootstrap);
    egress.address = proxy;
    eventually("the proxy listens", || TcpStream::connect(proxy).ok());
    let reply = exchange(admin, format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"));
    assert_eq!(status(&reply), 200, "who is on the machine reaches it");
    for host in ["127.0.77.1", "127.0.0.1"] {
        for port in [admin.port(), proxy.port()] {
            let refused = egress.connect(&format!("{host}:{port}")).err();
            assert_eq!(refused, Some((403, "egress_address_forbidden".into())), "{host}:{port}");
        }
    }
}
