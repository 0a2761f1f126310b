//! Policy reaches what has left already; limits, shadow mode, what is told of it, the sidecar's end and its start without a control plane.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ringfence_tests::{
    Echo, Egress, Sidecar, Upstream, echo, eventually,
    raw::{Raw, status},
    ringfence, took_at_most,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Rules of protocol tcp for `names` at the upstream's port.
fn tcp(names: &str, upstream: &Echo) -> String {
    format!("[{{ name: tcp, hosts: [{names}], ports: [{}], protocol: tcp }}]", upstream.address.port())
}

/// A tunnel whose other end has answered once, so that it is decided about, and stays open.
#[track_caller]
fn open(egress: &Egress, upstream: &Echo, host: &str) -> Raw {
    let mut raw = egress.connect(&format!("{host}:{}", upstream.address.port())).expect("a tunnel");
    echo::ping(&mut raw);
    raw
}

fn refusal(egress: &Egress, upstream: &Echo, host: &str) -> Option<(u16, String)> {
    egress.connect(&format!("{host}:{}", upstream.address.port())).err()
}

#[test]
fn a_tightened_policy_cuts_what_it_no_longer_allows_and_a_loosened_one_holds_for_the_next() {
    let upstream = Echo::start();
    let egress = Egress::allowing(&tcp("kept.test, cut.test", &upstream));
    for name in ["kept.test", "cut.test", "later.test"] {
        egress.dns.set(name, &["127.0.0.1"]);
    }
    let (mut kept, cut) = (open(&egress, &upstream, "kept.test"), open(&egress, &upstream, "cut.test"));
    assert_eq!(refusal(&egress, &upstream, "later.test"), Some((403, "egress_host_not_listed".into())));

    egress.edit(&format!("allow: {}", tcp("kept.test, later.test", &upstream)));
    let edited = Instant::now();
    assert_eq!(cut.rest(), "", "without a word");
    let took = edited.elapsed();
    println!("a tunnel was cut {took:?} after the edit");
    took_at_most(Duration::from_secs(1), took);
    egress.sidecar.log.find("the cut", |line| line["host"] == "cut.test" && line["reason"] == "egress_host_not_listed");
    echo::ping(&mut kept);
    drop(open(&egress, &upstream, "later.test"));
    assert_eq!(refusal(&egress, &upstream, "cut.test"), Some((403, "egress_host_not_listed".into())));

    // All of it, and the platform's word goes before the tenant's.
    let platform = "{ egress: { deny: { cidrs: [127.0.0.0/8] }, dangerousAllowPrivate: [127.0.0.0/8] } }";
    egress.site.write("platform.yaml", &ringfence_tests::site::object("Platform", "platform", platform));
    assert_eq!(kept.rest(), "");
    assert_eq!(refusal(&egress, &upstream, "kept.test"), Some((403, "egress_address_forbidden".into())));
}

#[test]
fn a_tunnel_of_http_is_cut_between_its_requests_too() {
    let upstream = Upstream::start();
    let port = upstream.address.port();
    let rules = |name: &str| format!("allow: [{{ name: http, hosts: [{name}], ports: [{port}], protocol: http }}]");
    let egress = Egress::start(&rules("cut.test"));
    egress.dns.set("cut.test", &["127.0.0.1"]);
    let mut tunnel = egress.connect(&format!("cut.test:{port}")).expect("a tunnel");
    tunnel.send(format!("GET / HTTP/1.1\r\nHost: cut.test:{port}\r\n\r\n"));
    assert_eq!(status(&tunnel.response()), 200);
    egress.edit(&rules("other.test"));
    assert_eq!(tunnel.rest(), "");
    egress.sidecar.log.find("the cut", |line| line["host"] == "cut.test" && line["reason"] == "egress_host_not_listed");
}

#[test]
fn shadow_mode_lets_through_tells_and_never_opens_forbidden_addresses() {
    let upstream = Echo::start();
    let egress = Egress::start(&format!("mode: shadow, allow: {}", tcp("listed.test", &upstream)));
    egress.dns.set("unlisted.test", &["127.0.0.1"]);
    egress.dns.set("inside.test", &["169.254.169.254"]);
    drop(open(&egress, &upstream, "unlisted.test"));
    let line = egress.sidecar.log.find("the tunnel", |line| line["host"] == "unlisted.test");
    assert_eq!((&line["decision"], &line["reason"]), (&json!("shadow"), &json!("egress_host_not_listed")), "{line}");
    assert_eq!(refusal(&egress, &upstream, "inside.test"), Some((403, "egress_address_forbidden".into())));
    egress.edit(&format!("mode: enforce, allow: {}", tcp("listed.test", &upstream)));
    eventually("it is enforced", || refusal(&egress, &upstream, "unlisted.test"));
}

#[test]
fn a_tenant_has_so_many_connections_and_so_many_new_ones() {
    let upstream = Echo::start();
    let egress = Egress::start(&format!("maxConnections: 2, allow: {}", tcp("api.test", &upstream)));
    egress.dns.set("api.test", &["127.0.0.1"]);
    let limited = Some((429, "egress_connections_limited".to_owned()));
    let (first, mut second) = (open(&egress, &upstream, "api.test"), open(&egress, &upstream, "api.test"));
    assert_eq!(refusal(&egress, &upstream, "api.test"), limited);
    echo::ping(&mut second);
    drop(first);
    eventually("its place is free", || refusal(&egress, &upstream, "api.test").is_none().then_some(()));

    egress.edit(&format!("connectionRate: 1/h, allow: {}", tcp("api.test", &upstream)));
    eventually("the rate is enforced", || (refusal(&egress, &upstream, "api.test") == limited).then_some(()));
}

/// Each series with its value, but for times and memory.
fn series(names: [&str; 2]) -> (BTreeSet<String>, String) {
    let [allowed, refused] = names;
    let upstream = Echo::start();
    let egress = Egress::allowing(&tcp(allowed, &upstream));
    egress.dns.set(allowed, &["127.0.0.1"]);
    drop(open(&egress, &upstream, allowed));
    assert!(refusal(&egress, &upstream, refused).is_some());
    let all = |line: &Value| line["host"] == allowed && line["protocol"] != "connect";
    egress.sidecar.log.find("the tunnel's end", all);
    egress.sidecar.log.find("the refusal", |line| line["host"] == refused);
    let text = egress.sidecar.admin.get("/metrics").unwrap().text();
    let measured = |line: &&str| !line.contains("_seconds") && !line.starts_with("process_resident") && !line.contains("_bytes");
    (text.lines().filter(measured).map(str::to_owned).collect(), text)
}

#[test]
fn metrics_tell_decisions_and_reasons_and_name_nobody() {
    let names = ["api.one.test", "evil.one.test"];
    let (one, text) = series(names);
    let (two, _) = series(["b.another-name.test", "c.a-very-different-name.test"]);
    assert_eq!(one, two);
    assert!(!names.iter().any(|name| text.contains(name)) && !text.contains("acme"), "{text}");
    let refused = r#"{decision="deny",reason="egress_host_not_listed"} 1"#;
    assert!(text.lines().any(|line| line.starts_with("ringfence_outbound_") && line.ends_with(refused)), "{text}");
}

#[test]
fn each_connection_leaves_a_line() {
    let (upstream, server) = (Echo::start(), Upstream::start());
    let (port, http) = (upstream.address.port(), server.address.port());
    let rule = format!("{{ name: tcp, hosts: [api.test], ports: [{port}, {http}], protocol: tcp }}");
    let egress = Egress::allowing(&format!("[{rule}]"));
    egress.dns.set("api.test", &["127.0.0.1"]);
    drop(open(&egress, &upstream, "api.test"));
    let line = egress.sidecar.log.find("the tunnel", |line| line["host"] == "api.test");
    for (field, wanted) in [
        ("route", json!("outbound")),
        ("workload", json!("job")),
        ("tenant", json!("acme")),
        ("port", json!(port)),
        ("address", json!(upstream.address.to_string())),
        ("decision", json!("allow")),
        ("rule", json!("Tenant/acme: egress.allow[tcp]")),
    ] {
        assert_eq!(line[field], wanted, "{field} of {line}");
    }
    let reply = egress.ask(&format!("GET http://api.test:{http}/path?secret=1 HTTP/1.1\r\nHost: api.test:{http}\r\n"));
    assert_eq!(reply.0, 200);
    let line = egress.sidecar.log.line("/path");
    assert_eq!((&line["route"], &line["status"], &line["host"]), (&json!("outbound"), &json!(200), &json!("api.test")), "{line}");
    assert!(!egress.sidecar.log.text().contains("secret"));
}

/// A workload that ends too, and later, still needs what it asks for.
#[test]
fn what_leaves_is_served_after_sigterm_until_the_deadline() {
    let upstream = Echo::start();
    let mut egress = Egress::allowing(&tcp("api.test", &upstream));
    egress.dns.set("api.test", &["127.0.0.1"]);
    let mut tunnel = open(&egress, &upstream, "api.test");
    egress.sidecar.process.signal(Signal::TERM);
    eventually("readiness is off", || egress.sidecar.admin.get("/readyz").filter(|reply| reply.status == 503));
    echo::ping(&mut tunnel);
    drop(open(&egress, &upstream, "api.test"));
    assert_eq!(refusal(&egress, &upstream, "evil.test"), Some((403, "egress_host_not_listed".into())));
    assert_eq!(tunnel.rest(), "", "at the deadline it is cut");
    assert!(egress.sidecar.process.ended().success());
}

#[test]
fn what_was_enforced_last_is_enforced_without_a_control_plane() {
    let upstream = Echo::start();
    let mut egress = Egress::allowing(&tcp("api.test", &upstream));
    egress.dns.set("api.test", &["127.0.0.1"]);
    egress.serve.process.kill();
    drop(open(&egress, &upstream, "api.test"));
    egress.sidecar.process.terminate();
    let control_plane = json!({ "controlPlane": { "unix": egress.serve.socket("job") } });
    egress.sidecar = Sidecar::begin(&egress.site, "job", &control_plane).ready();
    egress.address = egress.sidecar.admin.listener("outbound");
    drop(open(&egress, &upstream, "api.test"));
    assert_eq!(refusal(&egress, &upstream, "evil.test"), Some((403, "egress_host_not_listed".into())));
}

#[test]
fn a_bad_edit_is_told_with_its_place_and_changes_nothing() {
    let upstream = Echo::start();
    let egress = Egress::allowing(&tcp("api.test", &upstream));
    egress.dns.set("api.test", &["127.0.0.1"]);
    let mut tunnel = open(&egress, &upstream, "api.test");
    for (rules, field) in [
        ("[{ name: a, cidrs: [10.0.0.1/8] }]", "spec.egress.allow[0].cidrs[0]: "),
        ("[{ name: a, hosts: [\"*.com\"] }]", "spec.egress.allow[0].hosts[0]: "),
        ("[{ name: a, hosts: [127.1] }]", "spec.egress.allow[0].hosts[0]: "),
        ("[{ name: a, hosts: [a.test], ports: [0] }]", "spec.egress.allow[0].ports[0]: "),
        ("[{ name: a, hosts: [a.test] }, { name: b, hosts: [a.test] }]", "spec.egress.allow[1]"),
        ("[{ name: a, hosts: [bücher.test] }]", "spec.egress.allow[0].hosts[0]: "),
    ] {
        egress.edit(&format!("allow: {rules}"));
        let validated = ringfence(["validate".as_ref(), egress.site.dir().as_os_str()]);
        let told = String::from_utf8_lossy(&validated.stdout).into_owned();
        assert_eq!(validated.status.code(), Some(1), "{rules}");
        assert!(
            told.lines().any(|line| line.contains("acme.yaml:4:") && line.contains(&format!("Tenant/acme: {field}"))),
            "{rules}: {told}"
        );
        echo::ping(&mut tunnel);
    }
}
