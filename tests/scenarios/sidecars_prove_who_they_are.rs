//! A sidecar has an X.509-SVID, which it got for a token that nobody else saw; it renews it and outlives whoever issued it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

use ringfence_tests::{
    ServeTls, Sidecar, Site, Traffic, Up, Upstream,
    control_plane::{join_token_file, status, write_join_token},
    eventually,
    http::get,
    procfs, ringfence,
    sidecar::Admin,
};
use serde_json::{Value, json};

const ACME_API: &str = "spiffe://ringfence.internal/tenant/acme/workload/acme-api";

fn svid(admin: &Admin) -> Value {
    admin.config_where("there is an SVID", |config| config["identity"]["svid"].is_object())["identity"]["svid"].clone()
}

#[test]
fn up_hands_its_sidecars_their_tokens_and_leaves_no_secret_in_sight() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let begun = Instant::now();
    let up = Up::start(&site.dir());
    let admin = up.admin("acme-api");
    assert_eq!(svid(&admin)["id"], ACME_API);
    println!("from the start of `up` to an SVID of its sidecar: {:?}", begun.elapsed());
    assert_eq!(get(up.address("acme-api"), "/").bearer(&site.token("acme")).send().status, 200);
    assert_eq!(admin.metric("ringfence_control_plane_connected", ""), 1.0);

    let state = up.state("acme-api");
    let sidecar = up.sidecar_pid("acme-api").unwrap();
    let environment = |pid: u32| fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(environment(sidecar), environment(up.process.pid()), "nothing was added");
    let arguments = procfs::arguments(sidecar);
    assert_eq!(arguments[1..arguments.len() - 1], ["run", "--bootstrap"]);
    let bootstrap: Value = serde_json::from_slice(&fs::read(state.join("bootstrap.json")).unwrap()).unwrap();
    assert_eq!(bootstrap["identity"]["source"], json!({ "controlPlane": { "joinToken": "stdin" } }));

    let mut keys = Vec::new();
    for file in files(state.parent().unwrap()) {
        let is_key = String::from_utf8_lossy(&fs::read(&file).unwrap()).contains("PRIVATE KEY");
        if is_key {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
            keys.push(file);
        }
    }
    assert!(keys.contains(&state.join("svid.pem")), "{keys:?}");
    let config = admin.get("/config").unwrap().text();
    assert!(!config.contains("PRIVATE") && !config.contains("BEGIN"), "{config}");
}

/// All below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else if path.is_file() {
                vec![path]
            } else {
                vec![]
            }
        })
        .collect()
}

#[test]
fn a_sidecar_renews_under_load_and_goes_on_from_disk_without_the_control_plane() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let mut serve = ServeTls::start(&site, "20s");
    let fields = serve.bootstrap(&site, "acme-api", serve.address);
    serve.join(&site, "acme-api");
    let mut sidecar = Sidecar::begin(&site, "acme-api", &fields).ready();
    let first = svid(&sidecar.admin);
    assert_eq!(first["id"], ACME_API);
    eventually("the token is used up", || (!join_token_file(&site, "acme-api").exists()).then_some(()));
    assert!(sidecar.process.terminate().success());

    // Half of this one's life, as its certificate has it, is over in seconds: certificates begin a minute ago.
    let mut sidecar = Sidecar::begin(&site, "acme-api", &fields).ready();
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));
    traffic.goes_on();
    sidecar.admin.config_where("the SVID is renewed by itself", |config| {
        let svid = &config["identity"]["svid"];
        svid.is_object() && svid["notAfter"] != first["notAfter"]
    });
    traffic.goes_on();
    traffic.stop();
    assert_eq!(sidecar.admin.metric("ringfence_identity_renewal_failures_total", ""), 0.0);
    assert!(sidecar.process.terminate().success());

    serve.process.kill();
    let sidecar = Sidecar::begin(&site, "acme-api", &fields).ready();
    assert_eq!(svid(&sidecar.admin)["id"], ACME_API);
    assert_eq!(get(sidecar.address(), "/").bearer(&site.token("acme")).send().status, 200);
}

#[test]
fn a_sidecar_that_proves_nothing_gets_nothing() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.workload("web", "tenant: acme", upstream.address);
    let serve = ServeTls::start(&site, "1h");
    for (what, token, wanted) in [
        ("a made-up token", "x".repeat(43), "does not take what was shown"),
        ("another workload's", serve.join_token("web"), "tenant/acme/workload/web, which this sidecar is not"),
    ] {
        let (fields, file) = (serve.bootstrap(&site, "acme-api", serve.address), join_token_file(&site, "acme-api"));
        write_join_token(&file, &token);
        let mut sidecar = Sidecar::begin(&site, "acme-api", &fields);
        let line = sidecar.process.line(|line| line.contains("identity:"));
        assert!(line.contains(wanted) && !line.contains(&token), "{what}: {line}");
        assert_eq!(sidecar.admin.config()["identity"]["svid"], Value::Null, "{what}");
        assert_eq!(sidecar.admin.get("/readyz").unwrap().status, 503, "{what}");
        let _ = fs::remove_file(&file);
        sidecar.process.terminate();
    }
}

#[test]
fn the_authority_is_replaced_and_no_sidecar_is_cut_off() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let serve = ServeTls::start(&site, "20s");
    let fields = serve.bootstrap(&site, "acme-api", serve.address);
    serve.join(&site, "acme-api");
    let sidecar = Sidecar::begin(&site, "acme-api", &fields).ready();
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));
    let rotate = |more: &[&str]| {
        let (dir, more) = (site.dir(), more.iter().map(std::convert::AsRef::as_ref));
        ringfence(["trust".as_ref(), "rotate".as_ref(), dir.as_os_str()].into_iter().chain(more)).status.success()
    };
    assert!(!rotate(&["--finish"]), "nothing is under way");
    let sequence = |config: &Value| config["identity"]["trustBundle"]["sequence"].as_u64();
    let before = sequence(&sidecar.admin.config());
    assert!(rotate(&[]));
    sidecar.admin.config_where("the new bundle has come", |config| sequence(config) > before);
    let has_begun = |status: &Value| status["trust"]["authorities"].to_string().contains("retiring");
    eventually("the new authority issues", || has_begun(&status(&site.dir())).then_some(()));
    let old = svid(&sidecar.admin);
    sidecar.admin.config_where("its certificate is of the new one", |config| config["identity"]["svid"]["notAfter"] != old["notAfter"]);
    // Once the control plane knows it by that alone.
    eventually("nobody needs the old one", || rotate(&["--finish"]).then_some(()));
    // It renews, and is told of edits, under the new one alone.
    let old = svid(&sidecar.admin);
    sidecar.admin.config_where("it renews", |config| config["identity"]["svid"]["notAfter"] != old["notAfter"]);
    site.tenant("acme", "inbound: { allow: [{ methods: [GET], paths: [/traffic] }] }");
    eventually("the edit is in force", || {
        (get(sidecar.address(), "/elsewhere").bearer(&site.token("acme")).send().status == 403).then_some(())
    });
    traffic.was_whole();
}
