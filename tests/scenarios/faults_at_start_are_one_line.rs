//! What keeps a program from starting is said in one clear line, and the exit code is 1.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use ringfence_tests::{Site, Upstream, binaries::binary, ringfence};

/// Standard output and standard error, without the first where it only says what was read.
#[track_caller]
fn refusal(output: &Output) -> Vec<String> {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| !line.contains(" objects in ")).map(str::to_owned).collect()
}

fn up(dir: &Path) -> Output {
    ringfence(["up".as_ref(), dir.as_os_str()])
}

#[track_caller]
fn assert_one_line(output: &Output, words: &[&str]) {
    let lines = refusal(output);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(words.iter().all(|word| lines[0].contains(word)), "{lines:?} lacks one of {words:?}");
}

#[test]
fn a_missing_directory() {
    let site = Site::new();
    assert_one_line(&up(&site.path("nowhere")), &["nowhere", "No such file"]);
}

#[test]
fn a_directory_with_faults() {
    let site = Site::new();
    site.tenant("acme", "limits: [{ name: all, rate: fast }]");
    let lines = refusal(&up(&site.dir()));
    assert_eq!(lines.len(), 2, "the fault, and that nothing was started: {lines:?}");
    assert!(lines[0].contains("acme.yaml:4:") && lines[0].contains("Tenant/acme: spec.limits[0].rate: must be N/s"), "{lines:?}");
    assert!(lines[1].contains("1 fault: nothing was started"), "{lines:?}");
}

#[test]
fn a_key_set_that_cannot_be_read() {
    let site = Site::new();
    site.remove("jwks.json");
    let lines = refusal(&up(&site.dir()));
    assert!(lines.len() == 2 && lines[0].contains("sso.yaml:4:") && lines[0].contains("Issuer/sso: spec.jwks.file: "), "{lines:?}");
}

#[test]
fn a_port_in_use() {
    let upstream = Upstream::start();
    let site = Site::new();
    site.tenant("acme", "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    site.workload_at("acme-api", "tenant: acme", &format!("[{{ listen: {address}, upstream: {} }}]", upstream.address));
    let lines = refusal(&up(&site.dir()));
    let place = lines.iter().find(|line| line.contains("acme-api.yaml:4:")).unwrap_or_else(|| panic!("{lines:?}"));
    for words in ["Workload/acme-api: spec.inbound[0].listen", &format!("cannot listen on {address}"), "in use"] {
        assert!(place.contains(words), "{place}");
    }
}

#[test]
fn a_certificate_whose_key_cannot_be_used() {
    let upstream = Upstream::start();
    let site = Site::new();
    site.tenant("acme", "");
    site.write("tls.crt", "no certificate");
    site.write("tls.key", "no key");
    let inbound = format!("[{{ listen: 127.0.0.1:0, upstream: {}, tls: {{ certificate: tls.crt, key: tls.key }} }}]", upstream.address);
    site.workload_at("acme-api", "tenant: acme", &inbound);
    let lines = refusal(&up(&site.dir()));
    assert!(lines.iter().any(|line| line.contains("acme-api.yaml:4:") && line.contains("spec.inbound[0].tls")), "{lines:?}");
}

#[test]
fn a_missing_sidecar_program() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let alone = site.beside().join("ringfence");
    fs::hard_link(binary("ringfence"), &alone).or_else(|_| fs::copy(binary("ringfence"), &alone).map(drop)).unwrap();
    let output = Command::new(&alone).arg("up").arg(site.dir()).output().unwrap();
    assert_one_line(&output, &["Workload/acme-api", "ringfence-proxy", "No such file"]);
}

#[test]
fn a_control_plane_port_in_use() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = ringfence(["serve".as_ref(), site.dir().as_os_str(), "--dangerous-plaintext".as_ref(), address.as_ref()]);
    assert_one_line(&output, &["cannot listen on", &address, "in use"]);
}

#[test]
fn a_development_key_that_is_none() {
    let site = Site::new();
    site.write("dev-issuer.key.pem", "no key");
    let output = ringfence(["token".as_ref(), "--tenant".as_ref(), "acme".as_ref(), "--dir".as_ref(), site.dir().as_os_str()]);
    assert_one_line(&output, &["dev-issuer.key.pem", "no PKCS #8 private key"]);
}

#[test]
fn a_bootstrap_that_is_missing_or_wrong() {
    let site = Site::new();
    let run = |file: &Path| Command::new(binary("ringfence-proxy")).args(["run", "--bootstrap"]).arg(file).output().unwrap();
    assert_one_line(&run(&site.path("nowhere.json")), &["nowhere.json", "No such file"]);
    site.write("bootstrap.json", r#"{ "workload": "acme-api", "controlPlane": { "unix": "x" }, "admn": "y" }"#);
    assert_one_line(&run(&site.path("bootstrap.json")), &["bootstrap.json:1:", "unknown field `admn`"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    site.write("bootstrap.json", &format!(r#"{{ "workload": "acme-api", "controlPlane": {{ "unix": "x" }}, "admin": "{admin}" }}"#));
    assert_one_line(&run(&site.path("bootstrap.json")), &["admin", &admin, "in use"]);
}
