//! A workload's DNS queries go through the platform's policy zones and its tenant's.

use std::net::SocketAddr;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_tests::{Dns, Site, Up, dns, eventually, raw::Raw, ringfence, site::object};

const HEAD: &str = "$TTL 60\n@ SOA ns host 1 3600 900 86400 60\n";

/// What a workload would see: the RCODE and the addresses.
fn look_up(server: SocketAddr, name: &str) -> String {
    let answer = dns::answer(server, name, RecordType::A);
    let addresses: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    match answer.metadata.response_code {
        ResponseCode::NoError => addresses.join(" "),
        rcode => format!("{rcode:?}"),
    }
}

/// The tenant `acme` with the zone `own`, behind the platform's `baseline`; all names lead to loopback.
fn started() -> (Site, Dns, Up) {
    let (site, upstream) = (Site::new(), Dns::start());
    for name in ["www.test", "bad.test", "ads.test", "api.test"] {
        upstream.set(name, &["127.0.0.1"]);
    }
    site.write("baseline.rpz", &format!("{HEAD}bad.test CNAME .\n"));
    site.write("own.rpz", &format!("{HEAD}ads.test CNAME *.\n"));
    let zones = ["baseline", "own"].map(|zone| object("PolicyZone", zone, &format!("{{ file: {zone}.rpz }}")));
    site.write("zones.yaml", &zones.join("---\n"));
    let platform = "{ dns: { zones: [baseline] }, egress: { dangerousAllowPrivate: [127.0.0.0/8] } }";
    site.write("platform.yaml", &object("Platform", "platform", platform));
    site.tenant("acme", "dns: { zones: [own] }, egress: { allow: [{ name: all, hosts: [\"*.test\"], ports: [1], protocol: tcp }] }");
    let workload = format!(
        "{{ tenant: acme, egress: {{ listen: 127.0.0.1:0 }}, dns: {{ listen: 127.0.0.1:0, upstreams: [\"udp://{}\"] }} }}",
        upstream.address
    );
    site.write("job.yaml", &object("Workload", "job", &workload));
    let up = Up::start(&site.dir());
    (site, upstream, up)
}

#[test]
fn a_refused_name_never_leaves_the_pod_and_is_told_in_the_log() {
    let (site, upstream, up) = started();
    let server = up.admin("job").listener("dns");
    for (name, expected) in [("www.test", "127.0.0.1"), ("bad.test", "NXDomain"), ("ads.test", ""), ("missing.test", "NXDomain")] {
        assert_eq!(look_up(server, name), expected, "{name}");
    }
    assert_eq!((upstream.count("bad.test"), upstream.count("ads.test")), (0, 0));
    let line = up.access_log("job").find("a line of bad.test", |line| line["name"] == "bad.test");
    for (field, expected) in [
        ("decision", "deny"),
        ("reason", "name_blocked"),
        ("zone", "baseline"),
        ("trigger", "QNAME"),
        ("owner", "bad.test"),
        ("action", "NXDOMAIN"),
        ("tenant", "acme"),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    let admin = up.admin("job");
    assert_eq!(admin.metric("ringfence_dns_policy_total", "action=\"NODATA\",trigger=\"QNAME\",mode=\"enforce\""), 1.0);
    // Nor does the sidecar ask for it itself.
    let mut raw = Raw::connect(admin.listener("outbound"));
    raw.send("CONNECT bad.test:1 HTTP/1.1\r\nHost: bad.test:1\r\n\r\n");
    let head = raw.head();
    assert_eq!(raw.refusal(&head), (403, "name_blocked".into()));
    assert_eq!(upstream.count("bad.test"), 0);
    let dir = site.dir();
    let explained = ringfence(["explain", dir.to_str().unwrap(), "--workload", "job", "dns", "bad.test", "A"]);
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.ends_with("deny name_blocked (PolicyZone/baseline: QNAME bad.test: NXDOMAIN)\n"), "{explained}");
}

#[test]
fn an_edited_zone_is_in_force_and_a_bad_one_leaves_the_old_one_standing() {
    let (site, _upstream, mut up) = started();
    let server = up.admin("job").listener("dns");
    assert_eq!(look_up(server, "api.test"), "127.0.0.1");
    site.write("own.rpz", &format!("{HEAD}api.test A 192.0.2.7\n"));
    eventually("the edit is in force", || (look_up(server, "api.test") == "192.0.2.7").then_some(()));
    assert_eq!(look_up(server, "ads.test"), "127.0.0.1");

    site.write("own.rpz", &format!("{HEAD}ads.test CNAME .\nads.test WHAT .\n"));
    let told = up.process.line(|line| line.contains("own.rpz"));
    assert!(told.contains("own.rpz:4:") && told.contains("`WHAT` is no record type"), "{told}");
    assert_eq!((look_up(server, "api.test"), look_up(server, "ads.test")), ("192.0.2.7".into(), "127.0.0.1".into()));

    site.write("own.rpz", &format!("{HEAD}ads.test CNAME .\n"));
    eventually("the mended zone is in force", || (look_up(server, "ads.test") == "NXDomain").then_some(()));
    assert_eq!(look_up(server, "api.test"), "127.0.0.1");
}

#[test]
fn in_shadow_mode_the_tenants_zones_only_tell() {
    let (site, _upstream, up) = started();
    let server = up.admin("job").listener("dns");
    assert_eq!(look_up(server, "ads.test"), "");
    site.tenant("acme", "dns: { zones: [own], mode: shadow }");
    eventually("shadow mode is in force", || (look_up(server, "ads.test") == "127.0.0.1").then_some(()));
    assert_eq!(look_up(server, "bad.test"), "NXDomain", "the platform's zones act all the same");
    let line = up.access_log("job").find("what would have been", |line| line["decision"] == "shadow");
    assert_eq!((&line["name"], &line["reason"]), (&"ads.test".into(), &"name_blocked".into()));
    assert_eq!(line["shadow"]["zone"], "own", "{line}");
}
