//! The control plane may die, restart, or come back empty-handed; the sidecar may restart without it. What was acknowledged is enforced.

use std::{fs, os::unix::fs::PermissionsExt};

use ringfence_tests::{Serve, Sidecar, Site, Traffic, Upstream, eventually, http::get};
use serde_json::{Value, json};

#[test]
fn a_control_plane_that_dies_restarts_or_forgets_everything_leaves_traffic_alone() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let mut serve = Serve::start(&site);
    let address = serve.plaintext;
    let sidecar = Sidecar::start_with(&site, &serve, "acme-api", &json!({ "controlPlane": { "dangerousPlaintext": address } }));
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));
    let is_connected = |connected: f64| {
        eventually("the sidecar sees it", || (sidecar.admin.metric("ringfence_control_plane_connected", "") == connected).then_some(()));
    };
    traffic.goes_on();
    let before = sidecar.admin.config();

    serve.process.kill();
    is_connected(0.0);
    traffic.goes_on();

    let empty = site.beside().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut serve = Serve::start_at(&site, &empty, address);
    is_connected(1.0);
    traffic.goes_on();
    for what in ["workload", "tenants", "issuers", "listeners"] {
        assert_eq!(sidecar.admin.config()[what], before[what], "an empty-handed control plane takes nothing away");
    }
    serve.process.kill();
    is_connected(0.0);

    let _serve = Serve::start_at(&site, &site.dir(), address);
    is_connected(1.0);
    traffic.goes_on();
    site.tenant("acme", "limits: [{ name: all, rate: 100000/s }]");
    sidecar.admin.config_where("edits are taken up again", |config| config["tenants"][0]["limits"][0]["rate"] == "100000/s");
    traffic.goes_on();
    traffic.was_whole();
}

#[test]
fn withdrawing_everything_from_a_connected_sidecar_leaves_traffic_alone() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, "acme-api");
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));
    traffic.goes_on();
    let before = sidecar.admin.config();
    for file in ["acme-api.yaml", "acme.yaml", "sso.yaml"] {
        site.remove(file);
    }
    eventually("the workload's socket is gone", || (!serve.socket("acme-api").exists()).then_some(()));
    traffic.goes_on();
    assert_eq!(sidecar.admin.config()["tenants"], before["tenants"]);
    traffic.was_whole();
}

/// A sidecar that has acknowledged a policy with a limit of three requests, stopped; its control plane is gone.
fn stopped(upstream: &Upstream) -> (Site, Value) {
    let site = Site::acme(upstream.address);
    site.tenant("acme", "limits: [{ name: all, rate: 3/h }]");
    let serve = Serve::start(&site);
    let mut sidecar = Sidecar::start(&site, &serve, "acme-api");
    assert!(sidecar.process.terminate().success());
    (site, json!({ "controlPlane": { "unix": serve.socket("acme-api") } }))
}

#[test]
fn a_sidecar_that_restarts_alone_enforces_what_it_had() {
    let upstream = Upstream::start();
    let (site, bootstrap) = stopped(&upstream);
    let sidecar = Sidecar::begin(&site, "acme-api", &bootstrap);
    let address = sidecar.address();
    assert_eq!(sidecar.admin.get("/readyz").unwrap().status, 200);
    assert_eq!(get(address, "/").send().verdict(), (401, "token_missing".into()));
    let statuses: Vec<u16> = (0..4).map(|_| get(address, "/").bearer(&site.token("acme")).send().status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);

    let file = fs::metadata(sidecar.state.join("last-good")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&sidecar.state).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_last_known_good_that_is_damaged_or_foreign_is_none() {
    let upstream = Upstream::start();
    let (site, bootstrap) = stopped(&upstream);
    let file = site.beside().join("acme-api/state/last-good");
    let good = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (what, bytes, workload) in [
        ("cut short", good[..good.len() - 1].to_vec(), "acme-api"),
        ("empty", Vec::new(), "acme-api"),
        ("of another format", flipped(7), "acme-api"),
        ("of another checksum", flipped(8), "acme-api"),
        ("with another content", flipped(good.len() - 1), "acme-api"),
        ("of another workload", good.clone(), "globex-api"),
    ] {
        let state = site.beside().join(workload).join("state");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("last-good"), &bytes).unwrap();
        fs::set_permissions(state.join("last-good"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut sidecar = Sidecar::begin(&site, workload, &bootstrap);
        sidecar.process.line(|line| line.contains("last known good") && line.contains("not used"));
        let ready = eventually("the admin endpoint answers", || sidecar.admin.get("/readyz"));
        assert_eq!((ready.status, ready.text()), (503, "waiting for configuration\n".into()), "{what}");
        assert_eq!(sidecar.admin.addresses(), [], "{what}: no policy, no open port");
    }
}

#[test]
fn a_sidecar_that_never_had_a_policy_has_no_open_port() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let sidecar = Sidecar::begin(&site, "acme-api", &json!({ "controlPlane": { "unix": site.beside().join("nobody.ads") } }));
    let ready = eventually("the admin endpoint answers", || sidecar.admin.get("/readyz"));
    assert_eq!(ready.status, 503);
    assert_eq!(sidecar.admin.get("/healthz").unwrap().status, 200);
    assert_eq!(sidecar.admin.config(), json!({ "generation": 0, "identity": null, "listeners": [] }));
}
