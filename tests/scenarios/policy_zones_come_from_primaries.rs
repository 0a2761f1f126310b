//! A policy zone is transferred from a primary, follows its edits, and outlives it. Where BIND is missing, what needs it is skipped and says
//! so; `tests/run` installs it.

use std::{fs, net::SocketAddr};

use hickory_proto::{
    op::ResponseCode,
    rr::RecordType::{self, AXFR, IXFR, SOA},
};
use ringfence_tests::{
    Dns, Named, Primary, Site, Up,
    control_plane::status,
    dns, eventually, free_port,
    named::{self, KEY, SECRET, SERVER_NAME},
    ringfence,
    site::object,
    tls,
};

/// What a workload would see: the RCODE, or the address.
fn look_up(server: SocketAddr, name: &str) -> String {
    let answer = dns::answer(server, name, RecordType::A);
    match answer.metadata.response_code {
        ResponseCode::NoError => answer.answers.iter().map(|record| record.data.to_string()).collect(),
        rcode => format!("{rcode:?}"),
    }
}

/// The workload `job` behind the zone `feed`, which is transferred as `transfer` says.
fn site(transfer: &str) -> (Site, Dns) {
    let (site, upstream) = (Site::new(), Dns::start());
    for name in ["www.test", "bad.test", "ads.test"] {
        upstream.set(name, &["127.0.0.1"]);
    }
    site.write("feed.yaml", &object("PolicyZone", "feed", &format!("{{ transfer: {{ {transfer} }} }}")));
    site.tenant("acme", "dns: { zones: [feed] }");
    let dns = format!("dns: {{ listen: 127.0.0.1:0, upstreams: [\"udp://{}\"] }}", upstream.address);
    site.write("job.yaml", &object("Workload", "job", &format!("{{ tenant: acme, {dns} }}")));
    (site, upstream)
}

/// What `explain` says of a query.
fn explained(site: &Site, name: &str) -> String {
    let dir = site.dir();
    let output = ringfence(["explain", dir.to_str().unwrap(), "--workload", "job", "dns", name, "A"]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_edit_is_in_force_after_a_notification_and_a_restart_without_the_primary_has_it() {
    let primary = Primary::start(&["bad.test"]);
    let (site, _upstream) = site(&format!("primary: \"{}\", zone: rpz.test", primary.address));
    let explanation = explained(&site, "bad.test");
    assert!(explanation.contains("not transferred yet: feed"), "{explanation}");
    let (up, notify) = Up::start_notified(&site.dir());
    let server = up.admin("job").listener("dns");
    assert_eq!((look_up(server, "bad.test"), look_up(server, "ads.test")), ("NXDomain".into(), "127.0.0.1".into()));

    primary.edit(&["ads.test"]);
    assert_eq!(primary.notify(notify), ResponseCode::NoError);
    eventually("the edit is in force", || (look_up(server, "ads.test") == "NXDomain").then_some(()));
    assert_eq!(look_up(server, "bad.test"), "127.0.0.1");
    assert_eq!(primary.asked(), [AXFR, SOA, IXFR]);
    let explanation = explained(&site, "ads.test");
    assert!(explanation.ends_with("deny name_blocked (PolicyZone/feed: QNAME ads.test: NXDOMAIN)\n"), "{explanation}");

    drop(up);
    drop(primary);
    let up = Up::start(&site.dir());
    let server = up.admin("job").listener("dns");
    assert_eq!((look_up(server, "ads.test"), look_up(server, "bad.test")), ("NXDomain".into(), "127.0.0.1".into()));
    let faults = eventually("the fault is told", || status(&site.dir())["faults"][0].as_str().map(str::to_owned));
    for part in ["feed.yaml:4:", "PolicyZone/feed: spec.transfer.primary: ", "cannot connect", "serial 2 stands"] {
        assert!(faults.contains(part), "{part}: {faults}");
    }
}

#[test]
fn until_the_zone_has_come_no_query_is_answered() {
    // Nobody listens there.
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (site, upstream) = site(&format!("primary: \"{nobody}\", zone: rpz.test"));
    let mut up = Up::start(&site.dir());
    up.process.line(|line| line.contains("spec.transfer.primary: ") && line.contains("no zone was transferred yet"));
    assert_eq!(look_up(up.admin("job").listener("dns"), "www.test"), "ServFail");
    assert_eq!(upstream.count("www.test"), 0);
}

#[test]
fn bind_is_a_primary_with_a_key_and_over_tls() {
    for over_tls in [false, true] {
        let Some(bind) = Named::new() else { return };
        let address = if over_tls { bind.tls } else { bind.address };
        let tls = if over_tls { format!(", tls: {{ serverName: {SERVER_NAME}, caFile: ca.pem }}") } else { String::new() };
        let tsig = format!("tsig: {{ name: {KEY}, secretFile: key.secret }}");
        let (site, _upstream) = site(&format!("primary: \"{address}\", zone: {}, {tsig}{tls}", named::ZONE));
        fs::write(site.path("ca.pem"), tls::authority()).unwrap();
        fs::write(site.path("key.secret"), SECRET).unwrap();
        let (mut up, notify) = Up::start_notified(&site.dir());
        let server = up.admin("job").listener("dns");
        assert_eq!(look_up(server, "bad.test"), "ServFail");

        // BIND tells of its zone when it starts.
        bind.write(1, "bad.test CNAME .\n");
        let mut process = bind.start(notify);
        eventually("the zone is in force", || (look_up(server, "bad.test") == "NXDomain").then_some(()));
        up.process.line(|line| line == "ringfence: all faults are mended");
        process.line(|line| line.contains("AXFR started: TSIG key.test"));

        bind.write(2, "ads.test CNAME .\n");
        named::reload(&process);
        eventually("the edit is in force", || (look_up(server, "ads.test") == "NXDomain").then_some(()));
        assert_eq!(look_up(server, "bad.test"), "127.0.0.1");
        process.line(|line| line.contains("IXFR started: TSIG key.test (serial 1 -> 2)"));
        let unsigned = process.lines().into_iter().find(|line| line.contains("refused") || line.contains("failure"));
        assert_eq!(unsigned, None);
        let lines = up.process.lines();
        assert!(lines.iter().all(|line| !line.contains(SECRET)), "{lines:?}");
    }
}
