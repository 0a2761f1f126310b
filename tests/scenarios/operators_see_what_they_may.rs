//! The control plane's admin listener: each operator is told what its role covers, of the real fleet, and nobody else is told anything.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
};

use ringfence_tests::{
    Sidecar, Site, Upstream,
    binaries::binary,
    eventually,
    process::Process,
    site::object,
    tls,
    token::{Key, jwks, now},
};
use serde_json::{Value, json};

const NAME: &str = "admin.test";

struct Admin {
    process: Process,
    address: SocketAddr,
    staff: Key,
}

impl Admin {
    /// `ringfence serve` with an admin listener; its operators stand in `platform.yaml`.
    fn start(site: &Site) -> (Self, SocketAddr) {
        let staff = Key::new("staff");
        site.write("staff-jwks.json", &jwks(&[&staff]));
        let issuer = "{ issuer: https://staff.test/, audiences: [ringfence], algorithms: [ES256], tenantClaim: none, jwks: { file: staff-jwks.json } }";
        site.write("staff.yaml", &object("Issuer", "staff", issuer));
        operators(
            site,
            "{ issuer: staff, subjects: [alice], role: platform-admin }, { issuer: staff, subjects: [tess], role: tenant-admin, tenant: acme }",
        );
        let (certificate, key) = tls::pair(NAME);
        let file = |name: &str, text: &str| {
            let path = site.beside().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut command = Command::new(binary("ringfence"));
        command.arg("serve").arg(site.dir()).args(["--dangerous-plaintext", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--admin-cert"]);
        command.arg(file("admin.pem", &certificate)).arg("--admin-key").arg(file("admin.key", &key));
        let mut process = Process::start(&mut command);
        process.line(|line| line == "ready");
        let mut address = |what: &str| -> SocketAddr {
            let line = process.line(|line| line.contains(what));
            line.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("the line ends in an address")
        };
        let (address, plaintext) = (address("admin on"), address("plaintext on"));
        (Self { process, address, staff }, plaintext)
    }

    /// Status and body of the answer to one whose token names `subject`.
    fn ask(&self, subject: &str, path: &str) -> (u16, String) {
        let claims = json!({ "iss": "https://staff.test/", "aud": "ringfence", "sub": subject, "exp": now() + 600 });
        let bearer = format!("Authorization: Bearer {}\r\n", self.staff.sign(&claims));
        let reply = tls::get_as(TcpStream::connect(self.address).unwrap(), NAME, path, &bearer).unwrap();
        let status = reply.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        (status, reply.split_once("\r\n\r\n").expect("a head").1.to_owned())
    }

    fn workloads(&self, subject: &str) -> Vec<String> {
        let (status, body) = self.ask(subject, "/status");
        assert_eq!(status, 200, "{body}");
        let status: Value = serde_json::from_str(&body).unwrap();
        let sidecars = status["sidecars"].as_array().unwrap();
        sidecars.iter().map(|sidecar| sidecar["workload"].as_str().unwrap().to_owned()).collect()
    }
}

fn operators(site: &Site, operators: &str) {
    site.write("platform.yaml", &object("Platform", "platform", &format!("{{ operators: [{operators}] }}")));
}

#[test]
fn each_role_is_told_its_part_of_the_fleet_until_it_is_taken_away() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.tenant("globex", "");
    site.workload("globex-api", "tenant: globex", upstream.address);
    let (admin, plaintext) = Admin::start(&site);
    let bootstrap = json!({ "controlPlane": { "dangerousPlaintext": plaintext } });
    let _sidecars = ["acme-api", "globex-api"].map(|workload| Sidecar::begin(&site, workload, &bootstrap).ready());

    eventually("both are there", || (admin.workloads("alice") == ["acme-api", "globex-api"]).then_some(()));
    assert_eq!(admin.workloads("tess"), ["acme-api"]);
    let (_, metrics) = admin.ask("alice", "/metrics");
    assert!(metrics.contains("ringfence_fleet_sidecars{state=\"in_sync\"} 2"), "{metrics}");
    for (subject, path, wanted) in [
        ("tess", "/metrics", 404),
        ("tess", "/resources/acme-api", 200),
        ("tess", "/resources/globex-api", 404),
        ("tess", "/resources/no-such", 404),
        ("alice", "/resources/globex-api", 200),
        ("mallory", "/status", 401),
        ("mallory", "/healthz", 200),
    ] {
        assert_eq!(admin.ask(subject, path).0, wanted, "{subject} {path}");
    }
    let (_, resources) = admin.ask("tess", "/resources/acme-api");
    assert!(resources.contains("acme") && !resources.contains("globex"), "{resources}");

    operators(&site, "{ issuer: staff, subjects: [alice], role: viewer }");
    eventually("who is no operator any more is told nothing", || (admin.ask("tess", "/status").0 == 401).then_some(()));
    assert_eq!(admin.ask("alice", "/resources/acme-api").0, 404);
    assert!(admin.process.lines().iter().all(|line| !line.contains("fault")), "{:?}", admin.process.lines());
}
