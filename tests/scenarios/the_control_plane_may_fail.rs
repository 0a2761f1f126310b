//! The control plane may be killed, hang, come back with nothing, be cut off, or be two that disagree: requests are answered as before, and
//! what was written meanwhile arrives when it can.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Instant,
};

use ringfence_tests::{
    Acme, Link, Net, Serve, ServeTls, Sidecar, Site, Traffic, Upstream, binaries::binary, control_plane::status, eventually, http::get,
    netns::GATEWAY_V4,
};
use rustix::process::Signal;
use serde_json::{Value, json};

fn rate(config: &Value) -> &str {
    config["tenants"][0]["limits"][0]["rate"].as_str().unwrap_or_default()
}

fn limit(rate: &str) -> String {
    format!("limits: [{{ name: all, rate: {rate} }}]")
}

fn through(link: &Link) -> Value {
    json!({ "controlPlane": { "dangerousPlaintext": link.address } })
}

#[track_caller]
fn is_connected(sidecar: &Sidecar, connected: bool) {
    let connected = f64::from(u8::from(connected));
    eventually("the sidecar sees it", || (sidecar.admin.metric("ringfence_control_plane_connected", "") == connected).then_some(()));
}

#[test]
fn killed_under_traffic_no_request_fails_and_an_edit_made_meanwhile_arrives() {
    let mut acme = Acme::start();
    let traffic = Traffic::start(acme.address, acme.token.clone());
    traffic.goes_on();
    acme.serve.process.kill();
    is_connected(&acme.sidecar, false);
    traffic.goes_on();
    acme.site.tenant("acme", &limit("100000/s"));
    traffic.goes_on();
    let from = Instant::now();
    let serve = Serve::start(&acme.site);
    let ready = from.elapsed();
    acme.sidecar.admin.config_where("the edit has arrived", |config| rate(config) == "100000/s");
    println!("killed: ready again after {ready:?}, the edit is in force {:?} after the start; {:?}", from.elapsed(), traffic.was_whole());
    drop(serve);
}

#[test]
fn hung_sidecars_serve_on_and_one_that_starts_meanwhile_serves_what_it_had() {
    let mut acme = Acme::start();
    let traffic = Traffic::start(acme.address, acme.token.clone());
    acme.serve.process.signal(Signal::STOP);
    acme.site.tenant("acme", &limit("100000/s"));
    traffic.goes_on();
    println!("hung: {:?}", traffic.was_whole());

    acme.sidecar.process.kill();
    let from = Instant::now();
    let sidecar = Sidecar::start(&acme.site, &acme.serve, "acme-api");
    let reply = get(sidecar.address(), "/").bearer(&acme.token).send();
    println!("hung: a sidecar that starts meanwhile serves after {:?}", from.elapsed());
    assert_eq!(reply.status, 200);
    assert_eq!(get(sidecar.address(), "/").send().verdict(), (401, "token_missing".into()), "and what it had is enforced");
    assert_eq!(rate(&sidecar.admin.config()), "");

    let from = Instant::now();
    acme.serve.process.signal(Signal::CONT);
    sidecar.admin.config_where("the edit has arrived", |config| rate(config) == "100000/s");
    println!("hung: the edit is in force {:?} after it goes on", from.elapsed());
}

#[test]
fn emptied_it_says_so_takes_nothing_away_and_opens_nothing() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.tenant("acme", "limits: [{ name: all, rate: 100000/s }], inbound: { allow: [{ paths: [/traffic] }] }");
    let mut serve = Serve::start(&site);
    let link = Link::new(serve.plaintext);
    let mut sidecar = Sidecar::start_with(&site, &serve, "acme-api", &through(&link));
    let address = sidecar.address();
    let traffic = Traffic::start(address, site.token("acme"));
    traffic.goes_on();
    let before = sidecar.admin.config();

    serve.process.kill();
    let empty = site.beside().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut serve = Serve::start_at(&site, &empty, SocketAddr::from(([127, 0, 0, 1], 0)));
    serve.process.line(|line| line.starts_with("ringfence: 0 objects in "));
    link.lead_to(serve.plaintext);
    sidecar
        .admin
        .config_where("it is told that it is in no sync", |_| status(&empty)["sidecars"].as_array().is_some_and(|all| all.len() == 1));
    sidecar.process.line(|line| line.contains("Workload/acme-api") && line.contains("stays in force"));
    assert_eq!(status(&empty)["sidecars"][0]["inSync"], false, "what it enforces is not what is published");
    traffic.goes_on();
    for what in ["workload", "tenants", "issuers", "listeners"] {
        assert_eq!(sidecar.admin.config()[what], before[what]);
    }
    assert_eq!(get(address, "/elsewhere").bearer(&site.token("acme")).send().verdict(), (403, "path_not_listed".into()));

    // One that restarts then has what it had; one that never had anything gets nothing and opens nothing.
    println!("emptied: {:?}", traffic.was_whole());
    sidecar.process.kill();
    let sidecar = Sidecar::start_with(&site, &serve, "acme-api", &through(&link));
    is_connected(&sidecar, true);
    assert_eq!(get(sidecar.address(), "/traffic").bearer(&site.token("acme")).send().status, 200);
    let newcomer = Sidecar::begin(&site, "globex-api", &through(&link));
    let ready = eventually("the admin endpoint answers", || newcomer.admin.get("/readyz"));
    assert_eq!((ready.status, newcomer.admin.addresses()), (503, vec![]));

    // With its objects again it is as before, and takes up edits.
    let serve = Serve::replica(&site.dir());
    site.tenant("acme", &limit("90000/s"));
    let from = Instant::now();
    link.lead_to(serve.plaintext);
    sidecar.admin.config_where("the edit has arrived", |config| rate(config) == "90000/s");
    println!("emptied: with its objects again, an edit is in force after {:?}", from.elapsed());
}

#[test]
fn cut_off_without_a_word_it_is_found_again() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let serve = Serve::start(&site);
    let link = Link::new(serve.plaintext);
    let sidecar = Sidecar::start_with(&site, &serve, "acme-api", &through(&link));
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));
    traffic.goes_on();
    link.partition();
    site.tenant("acme", &limit("100000/s"));
    traffic.goes_on();
    let from = Instant::now();
    is_connected(&sidecar, false);
    println!("partitioned: found out after {:?}", from.elapsed());
    assert_eq!(rate(&sidecar.admin.config()), "");
    traffic.goes_on();
    let from = Instant::now();
    link.heal();
    sidecar.admin.config_where("the edit has arrived", |config| rate(config) == "100000/s");
    println!("partitioned: the edit is in force {:?} after the network is whole; {:?}", from.elapsed(), traffic.was_whole());
}

/// The same with a network between them, over TLS and by their identities: frames are lost, and nobody hears of it.
#[test]
fn cut_off_by_the_network_it_is_found_again_with_identities() {
    let Some(net) = Net::new().map(Arc::new) else { return };
    let upstream = Upstream::on(net.pod.inside(|| TcpListener::bind("127.0.0.1:0").unwrap()), None);
    let site = Site::acme(upstream.address);
    let serve = ServeTls::start_by(net.outside.command(binary("ringfence")), &site, (GATEWAY_V4, 0).into(), "1h");
    serve.join(&site, "acme-api");
    let command = net.pod.command(binary("ringfence-proxy"));
    let sidecar = Sidecar::begin_as(command, &site, "acme-api", &serve.bootstrap(&site, "acme-api", serve.address)).ready();
    is_connected(&sidecar, true);
    let (pod, address) = (net.clone(), sidecar.address());
    let traffic = Traffic::by(move || pod.pod.inside(|| TcpStream::connect(address)), address, site.token("acme"));
    traffic.goes_on();

    net.outside.lose_everything(true);
    site.tenant("acme", &limit("100000/s"));
    let from = Instant::now();
    is_connected(&sidecar, false);
    println!("partitioned, over TLS: the sidecar found out after {:?}", from.elapsed());
    let sidecars = || status(&site.dir())["sidecars"].as_array().map_or(0, Vec::len);
    eventually("the control plane sees it", || (sidecars() == 0).then_some(()));
    println!("partitioned, over TLS: the control plane found out after {:?}", from.elapsed());
    assert_eq!(rate(&sidecar.admin.config()), "");
    traffic.goes_on();

    let from = Instant::now();
    net.outside.lose_everything(false);
    sidecar.admin.config_where("the edit has arrived", |config| rate(config) == "100000/s");
    println!("partitioned, over TLS: the edit is in force {:?} after the network is whole; {:?}", from.elapsed(), traffic.was_whole());
}

#[test]
fn of_two_that_disagree_each_is_followed_whole() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.tenant("acme", &limit("70000/s"));
    let newer = site.beside().join("newer");
    fs::create_dir(&newer).unwrap();
    for file in ["sso.yaml", "jwks.json", "acme.yaml", "acme-api.yaml"] {
        fs::copy(site.path(file), newer.join(file)).unwrap();
    }
    let spec = fs::read_to_string(newer.join("acme.yaml")).unwrap().replace("70000/s", "80000/s");
    fs::write(newer.join("acme.yaml"), spec).unwrap();
    let (old, new) = (Serve::replica(&site.dir()), Serve::replica(&newer));
    let link = Link::new(old.plaintext);
    let sidecar = Sidecar::start_with(&site, &old, "acme-api", &through(&link));
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));
    for (replica, wanted) in [(&new, "80000/s"), (&old, "70000/s"), (&new, "80000/s")] {
        let from = Instant::now();
        link.lead_to(replica.plaintext);
        sidecar.admin.config_where("it follows", |config| rate(config) == wanted);
        println!("disagreeing: moved to the one with {wanted}: in force after {:?}", from.elapsed());
        traffic.goes_on();
    }
    println!("disagreeing: {:?}", traffic.was_whole());
}
