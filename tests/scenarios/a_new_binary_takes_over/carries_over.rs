//! What has been counted, told and promised holds in the process that comes next.

use ringfence_tests::{
    Serve, Sidecar, Site, Upstream,
    dns::{self, RecordType},
    http::get,
    raw::Raw,
};
use serde_json::json;

use super::World;

#[test]
fn a_limit_has_left_what_it_had() {
    let mut world = World::with("limits: [{ name: all, rate: 6/h }]", &json!({}));
    for left in [5, 4, 3] {
        assert_eq!(world.clients.status(), 200, "{left} left");
        assert!(world.take_over().success());
    }
    let statuses: Vec<u16> = (0..4).map(|_| world.clients.status()).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert!(world.take_over().success());
    assert_eq!(world.clients.status(), 429);
}

/// Both processes answer for a while, and count together.
#[test]
fn what_is_still_asked_of_the_old_process_counts_in_the_new_one() {
    let mut world = World::with("limits: [{ name: all, rate: 5/h }]", &json!({}));
    let mut kept: Vec<Raw> = (0..3).map(|_| Raw::connect(world.clients.inbound)).collect();
    let request = world.clients.head("/kept") + "\r\n";
    kept[0].send(&request);
    assert!(kept[0].response().starts_with("HTTP/1.1 200 "));
    let successor = world.sidecar.take_over();
    let mut old = world.sidecar.succeeded_by(successor);
    for connection in &mut kept {
        connection.send(&request);
        assert!(connection.response().starts_with("HTTP/1.1 200 "));
    }
    drop(kept);
    // It tells all before it ends.
    assert!(old.ended().success());
    let last = ringfence_tests::eventually("the last of five is counted", || Some(world.clients.status()).filter(|status| *status == 200));
    assert_eq!((last, world.clients.status()), (200, 429));
}

#[test]
fn a_spent_dns_budget_stays_spent_and_names_asked_for_stay_known() {
    let mut world = World::with("dns: { limits: [{ name: names, count: names, rate: 1/h }] }", &json!({}));
    world.dns.set("more.test", &["127.0.0.1"]);
    let answers = |world: &World, name: &str| dns::answer(world.clients.names, name, RecordType::A).answers.len();
    assert_eq!((answers(&world, "echo.test"), answers(&world, "more.test")), (1, 0));
    assert!(world.take_over().success());
    assert_eq!((answers(&world, "echo.test"), answers(&world, "more.test")), (1, 0));
}

#[test]
fn the_policy_and_the_way_to_the_control_plane_are_as_they_were() {
    let mut world = World::start();
    let before = world.sidecar.admin.config();
    assert!(world.take_over().success());
    let after = world.sidecar.admin.config();
    for what in ["workload", "listeners", "tenants", "issuers"] {
        assert_eq!(after[what], before[what], "{what}");
    }
    world.site.tenant("acme", "inFlight: 7");
    world.sidecar.admin.config_where("an edit takes effect", |config| config["tenants"][0]["inFlight"] == 7);
    assert!(world.sidecar.process.terminate().success());
    assert!(!world.sidecar.state.join("handover").exists(), "nothing is offered any more");
}

/// A workload of several tenants was given a context, whoever it hands it back to.
#[test]
fn a_context_is_good_in_the_next_process() {
    let upstream = Upstream::start();
    let site = Site::new();
    site.tenant("acme", "egress: { allow: [{ name: none, hosts: [none.test], ports: [80], protocol: http }] }");
    site.tenant("globex", "");
    let spec = format!(
        "{{ tenants: [acme, globex], inbound: [{{ listen: 127.0.0.1:0, upstream: {} }}], egress: {{ listen: 127.0.0.1:0, capture: none }} }}",
        upstream.address
    );
    site.write("shared-api.yaml", &ringfence_tests::site::object("Workload", "shared-api", &spec));
    let serve = Serve::start(&site);
    let mut sidecar = Sidecar::start(&site, &serve, "shared-api");
    assert_eq!(get(sidecar.address(), "/given").bearer(&site.token("acme")).send().status, 200);
    let context = upstream.seen("/given").headers["x-ringfence-context"].to_str().unwrap().to_owned();
    let successor = sidecar.take_over();
    assert!(sidecar.succeeded_by(successor).ended().success());
    let proxy = sidecar.admin.listener("outbound");
    let refused = |context: &str| get(proxy, "http://api.test/").header("x-ringfence-context", context).send().verdict();
    assert_eq!(refused(&context), (403, "egress_host_not_listed".into()), "it is known whose this is");
    assert_eq!(refused("forged"), (403, "egress_context_invalid".into()));
}
