//! A fault is told with its place and changes nothing; mended, the edit takes effect by itself.

use std::{fs, net::TcpListener};

use ringfence_tests::{Serve, Sidecar, Site, Up, Upstream, control_plane::status, eventually, http::get, ringfence};
use serde_json::{Value, json};

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
        assert_eq!(faults, [Value::from(&*line)], "`status` says the same");
        let validated = ringfence(["validate".as_ref(), site.dir().canonicalize().unwrap().as_os_str()]);
        assert!(String::from_utf8_lossy(&validated.stdout).lines().any(|fault| fault == line), "and so does `validate`: {validated:?}");
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
    eventually("`status` has nothing to tell", || {
        let sidecar = &status(&site.dir())["sidecars"][0];
        (sidecar["inSync"] == true && sidecar["rejections"] == Value::Array(vec![])).then_some(())
    });
}

#[test]
fn a_start_with_faults_serves_what_was_published_last() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.tenant("acme", &limits("10"));
    site.tenant("globex", "");
    site.workload("globex-api", "tenant: globex", upstream.address);
    let mut serve = Serve::start(&site);
    let before = Sidecar::start(&site, &serve, "acme-api");
    site.tenant("acme", &limits("20"));
    before.admin.config_where("the edit is in force", |config| burst(config) == Some(20));
    assert!(serve.process.terminate().success());

    // A fault, beside it an edit that is good, and somebody who is gone.
    site.tenant("acme", "limits: [");
    site.remove("globex-api.yaml");
    site.remove("globex.yaml");
    let mut serve = Serve::start(&site);
    serve.process.line(|line| line.contains("acme.yaml:"));
    let told = serve.process.line(|line| line.contains(" objects in ") || line.contains(" as published before"));
    assert!(told.starts_with("ringfence: serving "), "{told}");
    let faults = status(&site.dir())["faults"].to_string();
    assert!(faults.contains("acme.yaml:") && faults.contains("what was published before is served until all are mended"), "{faults}");
    let fields = json!({ "workload": "acme-api", "controlPlane": { "unix": serve.socket("acme-api") }, "configKeys": site.config_keys() });
    let fresh = Sidecar::begin(&site, "fresh", &fields).ready();
    assert_eq!(burst(&fresh.admin.config()), Some(20), "it had nothing of its own");
    assert_eq!(get(fresh.address(), "/").bearer(&site.token("acme")).send().status, 200);
    eventually("the one from before is in sync", || {
        let sidecars = status(&site.dir())["sidecars"].as_array()?.clone();
        (sidecars.len() == 2 && sidecars.iter().all(|sidecar| sidecar["inSync"] == true)).then_some(())
    });
    assert!(serve.socket("globex-api").exists(), "the directory comes whole, or not at all");
    // It is kept on, from start to start.
    serve.process.kill();
    let mut serve = Serve::start(&site);
    site.tenant("acme", &limits("0"));
    serve.process.line(|line| line.contains("spec.limits[0].burst"));
    assert_eq!(burst(&fresh.admin.config()), Some(20));
    site.tenant("acme", &limits("30"));
    serve.process.line(|line| line == "ringfence: all faults are mended");
    for sidecar in [&before, &fresh] {
        sidecar.admin.config_where("the mended edit is in force", |config| burst(config) == Some(30));
    }
    eventually("who is gone is gone", || (!serve.socket("globex-api").exists()).then_some(()));
    assert!(serve.process.terminate().success());

    // What sidecars may have acknowledged since is nowhere: then nothing older is served.
    site.tenant("acme", "limits: [");
    let epoch = site.path(".ringfence/trust/config.epoch");
    let last: u64 = fs::read_to_string(&epoch).unwrap().trim().parse().unwrap();
    fs::write(&epoch, (last + 1).to_string()).unwrap();
    let output = ringfence(["serve".as_ref(), site.dir().as_os_str(), "--dangerous-plaintext=127.0.0.1:0".as_ref()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("sidecars may have that") && said.contains("nothing was started"), "{said}");
}

#[test]
fn what_a_backup_brings_back_is_not_newer_for_a_start_with_faults() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.tenant("acme", &limits("10"));
    let mut serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, "acme-api");
    assert_eq!(burst(&sidecar.admin.config()), Some(10));
    assert!(serve.process.terminate().success());
    let kept = ["published", "trust/config.epoch"].map(|name| site.path(".ringfence").join(name));
    let backup = kept.each_ref().map(|file| fs::read(file).unwrap());

    let mut serve = Serve::start(&site);
    site.tenant("acme", &limits("20"));
    sidecar.admin.config_where("the edit is in force", |config| burst(config) == Some(20));
    assert!(serve.process.terminate().success());
    for (file, bytes) in kept.iter().zip(backup) {
        fs::write(file, bytes).unwrap();
    }
    site.tenant("acme", "limits: [");
    let mut serve = Serve::start(&site);
    eventually("the sidecar has refused it", || {
        let sidecars = status(&site.dir())["sidecars"].clone();
        sidecars[0]["rejections"].to_string().contains("epoch").then_some(())
    });
    assert_eq!(burst(&sidecar.admin.config()), Some(20));

    site.tenant("acme", &limits("30"));
    serve.process.line(|line| line == "ringfence: all faults are mended");
    sidecar.admin.config_where("the mended edit is in force", |config| burst(config) == Some(30));
}
