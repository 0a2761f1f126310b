//! Policy is what the configuration key has sealed. Whoever stands between the signer and a sidecar can hold it back, and make none.

use std::{
    ffi::OsStr,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use prost::Message;
use ringfence_tests::{
    Serve, Sidecar, Site, Upstream,
    ads::Tap,
    binaries::binary,
    control_plane::{join_token_file, status, write_join_token},
    eventually,
    http::get,
    process::Process,
    ringfence, tls,
};
use ringfence_xds::{
    generated::{discovery::Resource as WireResource, resource as proto},
    resource::{Kind, Resource},
    seal::SigningKey,
};
use serde_json::{Value, json};

/// What a stolen replica does to a tenant's policy.
#[derive(Clone, Copy, PartialEq)]
enum Theft {
    None,
    Altered,
    Unsigned,
    SignedByItself,
    OfAnotherTenant,
    RolledBack,
}

fn limit(site: &Site, tenant: &str, burst: u64) {
    site.tenant(tenant, &format!("limits: [{{ name: all, rate: 100/h, burst: {burst} }}]"));
}

fn burst(config: &Value) -> Option<u64> {
    config["tenants"][0]["limits"][0]["burst"].as_u64()
}

/// Acme's resource as the replica gives it on. `first`: the earliest that it has seen.
fn steal(resource: &mut WireResource, theft: Theft, first: &WireResource, globex: &WireResource) {
    let body = resource.resource.as_mut().expect("a body");
    match theft {
        Theft::None => {}
        Theft::Altered => {
            let tenant = proto::Tenant::decode(body.value.as_slice()).unwrap();
            body.value = proto::Tenant { limits: Vec::new(), ..tenant }.encode_to_vec();
        }
        Theft::Unsigned => resource.seal.clear(),
        Theft::SignedByItself => {
            let (own, _) = SigningKey::generate().unwrap();
            let sealed = own.seal(Resource::encoded(Kind::Tenant, "acme", body.value.clone().into()), u64::MAX).unwrap();
            resource.seal = sealed.seal.unwrap().to_bytes();
        }
        Theft::OfAnotherTenant => (resource.resource, resource.seal) = (globex.resource.clone(), globex.seal.clone()),
        Theft::RolledBack => resource.clone_from(first),
    }
}

#[test]
fn a_stolen_replica_changes_nothing_and_the_author_hears_of_it() {
    let upstream = Upstream::start();
    let site = Site::new();
    limit(&site, "acme", 1);
    limit(&site, "globex", 1000);
    site.workload("acme-api", "tenants: [acme, globex]", upstream.address);
    let mut serve = Serve::start(&site);
    let theft = Arc::new(Mutex::new(Theft::None));
    let seen: Mutex<(Option<WireResource>, Option<WireResource>)> = Mutex::default();
    let present = theft.clone();
    let tap = Tap::altering(serve.plaintext, move |response| {
        let (first, globex) = &mut *seen.lock().unwrap();
        for resource in response.resources.iter_mut().filter(|_| response.type_url == Kind::Tenant.type_url()) {
            if resource.name == "globex" {
                globex.get_or_insert_with(|| resource.clone());
            }
        }
        for resource in response.resources.iter_mut().filter(|resource| resource.name == "acme") {
            let first = first.get_or_insert_with(|| resource.clone());
            steal(resource, *present.lock().unwrap(), first, globex.as_ref().unwrap_or(first));
        }
    });
    let fields = json!({ "controlPlane": { "dangerousPlaintext": tap.address }, "configKeys": site.config_keys() });
    let sidecar = Sidecar::start_with(&site, &serve, "acme-api", &fields);
    limit(&site, "acme", 10);
    sidecar.admin.config_where("an edit is in force", |config| burst(config) == Some(10));

    for (i, (case, words)) in [
        (Theft::Altered, "is not what its signature was made for"),
        (Theft::Unsigned, "is not signed"),
        (Theft::SignedByItself, "which is none of the configuration keys"),
        (Theft::OfAnotherTenant, "is not what its signature was made for"),
        (Theft::RolledBack, "was signed at an earlier epoch than what is in force"),
    ]
    .into_iter()
    .enumerate()
    {
        let in_force = 10 * (i as u64 + 1);
        let said = serve.process.lines().len();
        *theft.lock().unwrap() = case;
        limit(&site, "acme", in_force + 1);
        let line = serve.process.line_after(said, |line| line.contains(words));
        assert!(line.contains("acme.yaml:") && line.contains("said by the sidecar of acme-api"), "{line}");
        assert_eq!(burst(&sidecar.admin.config()), Some(in_force), "{words}");
        eventually("`status` tells it", || {
            let node = &status(&site.dir())["sidecars"][0];
            (node["inSync"] == false && node["rejections"][0].as_str()?.contains(words)).then_some(())
        });
        assert_eq!(sidecar.admin.metric("ringfence_config_rejections_total", ""), i as f64 + 1.0);

        *theft.lock().unwrap() = Theft::None;
        limit(&site, "acme", in_force + 10);
        sidecar.admin.config_where("what is signed is in force", |config| burst(config) == Some(in_force + 10));
    }
    assert_eq!(get(sidecar.address(), "/").bearer(&site.token("acme")).send().status, 200);
}

#[test]
fn a_last_known_good_is_of_a_key_that_counts_or_none() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let serve = Serve::start(&site);
    let mut sidecar = Sidecar::start(&site, &serve, "acme-api");
    assert!(sidecar.process.terminate().success());
    let nobody = site.beside().join("nobody.ads");
    let begin = |keys: &Path| Sidecar::begin(&site, "acme-api", &json!({ "controlPlane": { "unix": nobody }, "configKeys": keys }));
    let mut alone = begin(&site.config_keys());
    let address = alone.address();
    assert_eq!(get(address, "/").bearer(&site.token("acme")).send().status, 200);
    assert!(alone.process.terminate().success());

    let (stranger, _) = SigningKey::generate().unwrap();
    let strangers = site.beside().join("strangers.pub");
    fs::write(&strangers, stranger.public_pem()).unwrap();
    let mut deceived = begin(&strangers);
    deceived
        .process
        .line(|line| line.contains("last known good") && line.contains("not used") && line.contains("none of the configuration keys"));
    eventually("the admin endpoint answers", || (deceived.admin.get("/readyz")?.status == 503).then_some(()));
    assert_eq!(deceived.admin.addresses(), [], "no policy, no open port");
}

/// A key kept apart from the control planes that serve.
struct Apart {
    site: Site,
    key: PathBuf,
    keys: PathBuf,
    out: PathBuf,
}

impl Apart {
    fn new(site: Site, trusted: &[&SigningKey], pem: &str) -> Self {
        let at = |name: &str| site.beside().join(name);
        let apart = Self { key: at("config.key"), keys: at("config.pub"), out: at("policy.signed"), site };
        fs::write(&apart.keys, trusted.iter().map(|key| key.public_pem()).collect::<String>()).unwrap();
        apart.hold(pem);
        apart
    }

    fn hold(&self, pem: &str) {
        fs::write(&self.key, pem).unwrap();
        fs::set_permissions(&self.key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn sign(&self) {
        self.sign_with(&[]);
    }

    fn sign_with(&self, more: &[&OsStr]) {
        let (dir, key, out) = (self.site.dir(), &self.key, &self.out);
        let arguments = ["sign".as_ref(), dir.as_os_str(), "--key".as_ref(), key.as_os_str(), "--out".as_ref(), out.as_os_str()];
        let output = ringfence(arguments.iter().chain(more));
        assert!(output.status.success(), "{output:?}");
    }

    /// The file as somebody brings it.
    fn bring(&self, bytes: &[u8]) {
        let temporary = self.out.with_extension("new");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, &self.out).unwrap();
    }
}

#[test]
fn control_planes_without_the_key_serve_what_it_has_signed_and_nothing_else() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    limit(&site, "acme", 10);
    let ((key, pem), (next, next_pem)) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let apart = Apart::new(site, &[&key, &next], &pem);
    apart.sign();
    let first = fs::read(&apart.out).unwrap();
    let mut serve = Serve::start_signed(&apart.site, &apart.out, &apart.keys);
    let sidecar = Sidecar::start_with(&apart.site, &serve, "acme-api", &json!({ "configKeys": apart.keys }));
    assert_eq!(burst(&sidecar.admin.config()), Some(10));
    assert_eq!(get(sidecar.address(), "/").bearer(&apart.site.token("acme")).send().status, 200);

    // Edits come by way of the signer.
    let mut command = Command::new(binary("ringfence"));
    command.arg("sign").arg(apart.site.dir()).arg("--key").arg(&apart.key).arg("--out").arg(&apart.out).arg("--watch");
    let mut signer = Process::start(&mut command);
    signer.line(|line| line.contains("resources signed in"));
    limit(&apart.site, "acme", 20);
    sidecar.admin.config_where("the signed edit is in force", |config| burst(config) == Some(20));
    apart.site.write("acme-broken.yaml", "kind: Tenant\n");
    signer.line(|line| line.contains("acme-broken.yaml:"));
    apart.site.remove("acme-broken.yaml");
    signer.line(|line| line.contains("all faults are mended"));
    assert!(signer.terminate().success());

    let good = fs::read(&apart.out).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (bytes, words) in [
        (first.clone(), "was signed at an earlier epoch than what is in force"),
        (good[..good.len() - 1].to_vec(), "is not what its signature was made for"),
        (flipped(good.len() - 1), "is not what its signature was made for"),
        (flipped(8), "is not what its signature was made for"),
        (flipped(16), "which is none of the configuration keys"),
        (flipped(0), "it is not a signed set of this version"),
        (Vec::new(), "it is not a signed set of this version"),
    ] {
        let said = serve.process.lines().len();
        apart.bring(&bytes);
        serve.process.line_after(said, |line| line.contains("policy.signed: not used: ") && line.contains(words));
        eventually("`status` tells it", || status(serve.sockets())["faults"][0].as_str()?.contains(words).then_some(()));
    }
    assert_eq!(burst(&sidecar.admin.config()), Some(20), "what was published before stays");
    apart.bring(&good);
    eventually("`status` has nothing to tell", || (status(serve.sockets())["faults"] == json!([])).then_some(()));

    // Another replica takes over, with the very same file.
    let versions = sidecar.admin.config()["versions"].clone();
    serve.process.kill();
    let serve = Serve::start_signed(&apart.site, &apart.out, &apart.keys);
    eventually("the sidecar is in sync with it", || (status(serve.sockets())["sidecars"][0]["inSync"] == true).then_some(()));
    assert_eq!(sidecar.admin.config()["versions"], versions);

    // The next key signs everything anew, so that sidecars hold nothing that depends on the old one.
    apart.hold(&next_pem);
    apart.sign();
    sidecar.admin.config_where("all that is held is of the next key", |config| {
        let versions: Vec<&str> = config["versions"].as_array().into_iter().flatten().filter_map(|held| held["version"].as_str()).collect();
        versions.len() >= 4 && versions.iter().all(|version| version.ends_with(&next.id().to_string()))
    });
    assert_eq!(get(sidecar.address(), "/").bearer(&apart.site.token("acme")).send().status, 200);
}

/// An authority of the operator's, for control planes that certify.
struct Authority {
    roots: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(site: &Site, name: &str) -> Self {
        let [roots, certificate, key] = ["roots", "ca", "key"].map(|what| site.beside().join(format!("{name}.{what}.pem")));
        for (path, text) in [&roots, &certificate, &key].into_iter().zip(tls::intermediate(name)) {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { roots, certificate, key }
    }

    /// `ringfence serve` by TLS at `address`, and whatever `more` says.
    fn serve(&self, address: SocketAddr, more: &[&OsStr]) -> Command {
        let mut command = Command::new(binary("ringfence"));
        command.arg("serve").args(more).arg("--tls").arg(address.to_string());
        command.arg("--ca-cert").arg(&self.certificate).arg("--ca-key").arg(&self.key);
        command
    }
}

/// Started, and where it listens.
fn listening(command: &mut Command) -> (Process, SocketAddr) {
    let mut process = Process::start(command);
    process.line(|line| line == "ready");
    let line = process.line(|line| line.contains("TLS on"));
    let address = line.split("TLS on ").nth(1).and_then(|rest| rest.split(',').next()).and_then(|address| address.parse().ok());
    (process, address.expect(&line))
}

#[test]
fn a_stolen_replica_that_certifies_writes_no_policy() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    limit(&site, "acme", 10);
    let (key, pem) = SigningKey::generate().unwrap();
    let apart = Apart::new(site, &[&key], &pem);
    let (ours, other) = (Authority::new(&apart.site, "ours"), Authority::new(&apart.site, "other"));
    let state = apart.site.beside().join("replica");
    let signed = ["--signed".as_ref(), apart.out.as_os_str(), "--config-keys".as_ref(), apart.keys.as_os_str()];
    let signed = [&signed[..], &["--state-dir".as_ref(), state.as_os_str()]].concat();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    // Nobody is believed whom the author does not name.
    for (authorities, wanted) in [(None, "ringfence sign --authorities"), (Some(&other), "do not go together")] {
        let more = authorities.map(|of| ["--authorities".as_ref(), of.roots.as_os_str()]);
        apart.sign_with(more.as_ref().map_or(&[], |more| more));
        let output = ours.serve(any, &signed).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wanted), "{output:?}");
    }
    apart.sign_with(&["--authorities".as_ref(), ours.roots.as_os_str()]);
    let (mut replica, address) = listening(&mut ours.serve(any, &signed));
    let token = ringfence(["join".as_ref(), state.as_os_str(), "--workload".as_ref(), "acme-api".as_ref()]);
    assert!(token.status.success(), "{token:?}");
    let token_file = join_token_file(&apart.site, "acme-api");
    write_join_token(&token_file, String::from_utf8(token.stdout).unwrap().trim_end());
    let fields = json!({
        "controlPlane": { "tls": address },
        "configKeys": apart.keys,
        "identity": {
            "trustDomain": "ringfence.internal",
            "bundle": ours.roots,
            "source": { "controlPlane": { "joinToken": { "file": token_file } } },
        },
    });
    let sidecar = Sidecar::begin(&apart.site, "acme-api", &fields).ready();
    let identity = |config: &Value| (config["identity"]["svid"]["id"].clone(), config["identity"]["trustBundle"].clone());
    let (id, bundle) = identity(&sidecar.admin.config_where("there is an SVID", |config| config["identity"]["svid"].is_object()));
    assert_eq!((id, &bundle["authorities"]), ("spiffe://ringfence.internal/tenant/acme/workload/acme-api".into(), &json!(1)));
    eventually("it is in sync", || (status(&state)["sidecars"][0]["inSync"] == true).then_some(()));
    limit(&apart.site, "acme", 20);
    apart.sign_with(&["--authorities".as_ref(), ours.roots.as_os_str()]);
    let config = sidecar.admin.config_where("the signed edit is in force", |config| burst(config) == Some(20));
    assert_eq!(identity(&config).1, bundle, "the same authorities are the same bundle");

    // Who has taken the replica over has its authority, and is spoken with; but what it says is nobody's policy, nor whom to believe.
    replica.kill();
    let theft = Site::acme(upstream.address);
    limit(&theft, "acme", 1000);
    let dir = theft.dir();
    let (mut thief, _) = listening(ours.serve(address, &[dir.as_os_str()]).arg("--ca-roots").arg(&ours.roots));
    for name in ["Tenant/acme", "TrustBundle/trust-bundle"] {
        thief.line(|line| line.contains(name) && line.contains("which is none of the configuration keys"));
    }
    let config = sidecar.admin.config();
    assert_eq!((burst(&config), &identity(&config).1), (Some(20), &bundle));
    assert_eq!(get(sidecar.address(), "/").bearer(&apart.site.token("acme")).send().status, 200);
    thief.kill();

    // The author is heard again, and says of whom else to believe.
    let (_replica, _) = listening(&mut ours.serve(address, &signed));
    let both = apart.site.beside().join("both.pem");
    fs::write(&both, [&ours, &other].map(|of| fs::read_to_string(&of.roots).unwrap()).concat()).unwrap();
    limit(&apart.site, "acme", 30);
    apart.sign_with(&["--authorities".as_ref(), both.as_os_str()]);
    let is_told = |config: &Value| burst(config) == Some(30) && identity(config).1["authorities"] == 2;
    let config = sidecar.admin.config_where("what was signed is in force", is_told);
    let sequence = |bundle: &Value| bundle["sequence"].as_u64();
    assert!(sequence(&identity(&config).1) > sequence(&bundle));
}

#[test]
fn without_a_good_key_there_is_no_start() {
    let site = Site::new();
    let key = site.beside().join("config.key");
    let (_, pem) = SigningKey::generate().unwrap();
    let sign = |key: &Path| {
        let (dir, out) = (site.dir(), site.beside().join("policy.signed"));
        let output = ringfence(["sign".as_ref(), dir.as_os_str(), "--key".as_ref(), key.as_os_str(), "--out".as_ref(), out.as_os_str()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!out.exists());
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert!(sign(&key).contains("No such file"), "none is made where one was named");
    fs::write(&key, pem).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(sign(&key).contains("others may read or write it: chmod o-rwx"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "no key").unwrap();
    assert!(sign(&key).contains("config.key: must be PEM"));
}
