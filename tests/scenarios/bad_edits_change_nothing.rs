//! A fault is told with its place and changes nothing; mended, the edit takes effect by itself.

use std::net::TcpListener;

use ringfence_tests::{Site, Up, Upstream, control_plane::status, http::get};
use serde_json::Value;

fn burst(config: &Value) -> Option<u64> {
    config["tenants"][0]["limits"][0]["burst"].as_u64()
}

fn limits(burst: &str) -> String {
    format!("limits: [{{ name: all, rate: 100/h, burst: {burst} }}]")
}

#[test]
fn a_bad_edit_is_told_with_its_place_and_recovers_by_itself() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.tenant("acme", &limits("1000"));
    site.tenant("globex", "");
    site.workload("globex-api", "tenant: globex", upstream.address);
    let mut up = Up::start(&site.dir());
    let (acme, globex) = (up.admin("acme-api"), up.admin("globex-api"));
    let before = acme.config();
    // On top of each other, as a bad night has it.
    for (bad, place, words) in [
        (limits("0"), "acme.yaml:4:", "Tenant/acme: spec.limits[0].burst: "),
        ("limit: []".to_owned(), "acme.yaml:4:", "Tenant/acme: spec.limit: "),
        ("inbound: { allow: [{ paths: [no-slash] }] }".to_owned(), "acme.yaml:4:", "Tenant/acme: spec.inbound.allow[0].paths[0]: "),
        ("limits: [".to_owned(), "acme.yaml:", ""),
    ] {
        let skip = up.process.lines().len();
        site.tenant("acme", &bad);
        let line = up.process.line_after(skip, |line| line.contains(place) && line.contains(words));
        let faults = status(&site.dir())["faults"].as_array().unwrap().clone();
        assert_eq!(faults, [Value::from(line)], "`status` says the same");
        assert_eq!(acme.config(), before, "{bad}");
    }
    // The others' edits are taken up meanwhile.
    site.tenant("globex", &limits("5"));
    globex.config_where("a good edit beside a bad one is in force", |config| burst(config) == Some(5));
    assert_eq!(acme.config(), before);
    assert_eq!(get(acme.address(), "/").bearer(&site.token("acme")).send().status, 200);

    site.tenant("acme", &limits("2000"));
    acme.config_where("the mended edit is in force", |config| burst(config) == Some(2000));
    up.process.line(|line| line == "ringfence: all faults are mended");
    assert_eq!(status(&site.dir())["faults"], Value::Array(vec![]));
}

#[test]
fn a_reference_that_would_dangle_keeps_its_object() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let mut up = Up::start(&site.dir());
    site.remove("acme.yaml");
    up.process.line(|line| line.contains("acme-api.yaml:4:") && line.contains("Workload/acme-api: spec.tenant: there is no Tenant"));
    assert_eq!(get(up.address("acme-api"), "/").bearer(&site.token("acme")).send().status, 200);
}

#[test]
fn a_listener_that_cannot_be_bound_is_told_at_its_place_and_the_rest_goes_on() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let mut up = Up::start(&site.dir());
    let (admin, token) = (up.admin("acme-api"), site.token("acme"));
    let address = admin.address();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let occupied = taken.local_addr().unwrap();

    let inbound =
        |second: String| format!("[{{ listen: 127.0.0.1:0, upstream: {0} }}, {{ listen: {second}, upstream: {0} }}]", upstream.address);
    site.workload_at("acme-api", "tenant: acme", &inbound(occupied.to_string()));
    let line = up.process.line(|line| line.contains("acme-api.yaml:4:") && line.contains("spec.inbound[1].listen: cannot listen on"));
    assert!(line.contains("said by the sidecar of acme-api"), "{line}");
    let sidecar = &status(&site.dir())["sidecars"][0];
    assert!(sidecar["inSync"] == false && sidecar["rejections"][0].as_str().unwrap().contains("inbound[1].listen"), "{sidecar}");
    assert_eq!(get(address, "/").bearer(&token).send().status, 200, "the first listener goes on");
    assert_eq!(admin.config()["workload"]["inbound"].as_array().unwrap().len(), 1, "under the policy it had");

    // Another edit meanwhile takes effect, though the workload's own does not.
    site.tenant("acme", &limits("3"));
    admin.config_where("the tenant's edit is in force", |config| burst(config) == Some(3));

    site.workload_at("acme-api", "tenant: acme", &inbound("127.0.0.2:0".into()));
    admin.config_where("the mended workload is in force", |config| config["listeners"].as_array().is_some_and(|all| all.len() == 2));
    assert_eq!(admin.address(), address);
    ringfence_tests::eventually("`status` has nothing to tell", || {
        let sidecar = &status(&site.dir())["sidecars"][0];
        (sidecar["inSync"] == true && sidecar["rejections"] == Value::Array(vec![])).then_some(())
    });
}
