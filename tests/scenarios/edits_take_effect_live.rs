//! What an operator writes is enforced within a second, without a restart and without a dropped connection.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use ringfence_tests::{Site, Up, Upstream, eventually, http::get, procfs, raw::Raw, site, took_at_most};
use serde_json::Value;

fn rate(config: &Value) -> Option<&str> {
    config["tenants"][0]["limits"][0]["rate"].as_str()
}

fn limit(rate: &str) -> String {
    format!("limits: [{{ name: all, rate: {rate} }}]")
}

#[test]
fn a_limit_is_enforced_within_a_second_of_its_edit() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let up = Up::start(&site.dir());
    let (address, token) = (up.address("acme-api"), site.token("acme"));
    assert_eq!(get(address, "/").bearer(&token).send().status, 200);

    site.tenant("acme", &limit("1/h"));
    let edited = Instant::now();
    // The limit is new: its first request passes and the second does not.
    eventually("the limit is enforced", || (get(address, "/").bearer(&token).send().status == 429).then_some(()));
    let took = edited.elapsed();
    println!("a limit was enforced {took:?} after its edit");
    took_at_most(Duration::from_secs(1), took);
}

#[test]
fn a_half_written_file_is_not_applied() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    site.tenant("acme", &limit("1/s"));
    site.tenant("globex", "");
    site.workload("globex-api", "tenant: globex", upstream.address);
    let mut up = Up::start(&site.dir());
    let (acme, globex) = (up.admin("acme-api"), up.admin("globex-api"));

    let spec = "\n  identity:\n    - issuer: sso\n  limits:\n    - name: all\n      rate: 2/s\n      burst: 7\n";
    let text = site::object("Tenant", "acme", spec);
    // Well-formed as far as it goes, and of another meaning.
    let half = text.find("      burst").unwrap();
    let mut file = fs::File::create(site.path("acme.yaml")).unwrap();
    file.write_all(&text.as_bytes()[..half]).unwrap();
    file.flush().unwrap();
    // An edit beside it, made later, is taken up: so this one was looked at too.
    site.tenant("globex", &limit("3/s"));
    globex.config_where("the other edit is in force", |config| rate(config) == Some("3/s"));
    assert_eq!(rate(&acme.config()), Some("1/s"));
    assert!(!up.process.lines().iter().any(|line| line.contains("acme.yaml")), "{:?}", up.process.lines());

    file.write_all(&text.as_bytes()[half..]).unwrap();
    drop(file);
    let config = acme.config_where("the finished edit is in force", |config| rate(config) == Some("2/s"));
    assert_eq!(config["tenants"][0]["limits"][0]["burst"], 7);
    assert!(up.process.is_running());
}

#[test]
fn a_burst_of_edits_ends_in_the_last_state() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let up = Up::start(&site.dir());
    let admin = up.admin("acme-api");
    let before = admin.config()["generation"].as_u64().unwrap();
    for n in 1..=100 {
        site.tenant("acme", &limit(&format!("{n}/s")));
    }
    let config = admin.config_where("the last edit is in force", |config| rate(config) == Some("100/s"));
    let swaps = config["generation"].as_u64().unwrap() - before;
    println!("a hundred edits came as {swaps} changes");
    assert!(swaps <= 20, "a burst coalesces: {swaps}");
}

#[test]
fn a_file_that_is_removed_and_written_anew_never_lapses() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let up = Up::start(&site.dir());
    let (address, admin, token) = (up.address("acme-api"), up.admin("acme-api"), site.token("acme"));
    for n in 1..=10 {
        // As vim does, and others: the old file goes aside, the new one takes its name, the old one is deleted.
        fs::rename(site.path("acme.yaml"), site.path("acme.yaml~")).unwrap();
        fs::write(site.path("acme.yaml"), site::tenant("acme", &limit(&format!("{n}000/s")))).unwrap();
        fs::remove_file(site.path("acme.yaml~")).unwrap();
        let wanted = format!("{n}000/s");
        eventually("the edit is in force", || {
            let reply = get(address, "/").bearer(&token).send();
            assert_eq!(reply.status, 200, "{reply:?}");
            (rate(&admin.config()) == Some(&wanted)).then_some(())
        });
    }
}

#[test]
fn a_workload_written_anew_keeps_its_sidecar() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let up = Up::start(&site.dir());
    let (address, pid) = (up.address("acme-api"), up.sidecar_pid("acme-api"));
    let text = fs::read_to_string(site.path("acme-api.yaml")).unwrap();
    fs::remove_file(site.path("acme-api.yaml")).unwrap();
    fs::write(site.path("acme-api.yaml"), text.replace("/public/**", "/open/**")).unwrap();
    up.admin("acme-api").config_where("the edit is in force", |config| config["workload"]["inbound"][0]["public"][0] == "/open/**");
    assert_eq!(get(address, "/open/x").send().status, 200);
    assert_eq!(up.sidecar_pid("acme-api"), pid);
}

/// As the kubelet mounts a ConfigMap: each file a link through `..data`, which is swapped in one move.
#[test]
fn a_mounted_config_map_is_taken_up_when_its_link_is_swapped() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let revision = |name: &str, rate: &str| {
        fs::create_dir(site.path(name)).unwrap();
        fs::write(site.path(name).join("acme.yaml"), site::tenant("acme", &limit(rate))).unwrap();
        symlink(name, site.path("..new")).unwrap();
        fs::rename(site.path("..new"), site.path("..data")).unwrap();
    };
    revision("..one", "1/s");
    site.remove("acme.yaml");
    symlink("..data/acme.yaml", site.path("acme.yaml")).unwrap();
    let up = Up::start(&site.dir());
    let admin = up.admin("acme-api");
    assert_eq!(rate(&admin.config()), Some("1/s"));
    revision("..two", "2/s");
    fs::remove_dir_all(site.path("..one")).unwrap();
    admin.config_where("the new revision is in force", |config| rate(config) == Some("2/s"));
}

#[test]
fn a_workload_that_comes_gets_a_sidecar_and_one_that_goes_loses_it() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let mut up = Up::start(&site.dir());
    site.tenant("globex", "");
    site.workload("globex-api", "tenant: globex", upstream.address);
    let address = up.address("globex-api");
    assert_eq!(get(address, "/").bearer(&site.token("globex")).send().status, 200);
    assert_eq!(procfs::children(up.process.pid()).len(), 2);

    let pid = up.sidecar_pid("globex-api").unwrap();
    site.remove("globex-api.yaml");
    up.process.line(|line| line == "globex-api: stopped");
    assert!(!procfs::children(up.process.pid()).contains(&pid));
    assert!(get(address, "/").try_send().is_err(), "its port is closed");
    assert_eq!(get(up.address("acme-api"), "/").bearer(&site.token("acme")).send().status, 200);
}

#[test]
fn a_sidecar_that_dies_is_started_again() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let mut up = Up::start(&site.dir());
    let pid = up.sidecar_pid("acme-api").unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), rustix::process::Signal::KILL).unwrap();
    up.process.line(|line| line.starts_with("acme-api: the sidecar ended"));
    let token = site.token("acme");
    eventually("the next one serves", || {
        let address = up.admin("acme-api").addresses().first().copied()?;
        (get(address, "/").bearer(&token).try_send().ok()?.status == 200).then_some(())
    });
    assert_ne!(up.sidecar_pid("acme-api"), Some(pid));
}

#[test]
fn a_listener_that_comes_leaves_the_others_alone() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let up = Up::start(&site.dir());
    let admin = up.admin("acme-api");
    let first = admin.address();
    let mut open = Raw::connect(first);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", site.token("acme"));
    open.send(&request);
    assert!(open.response().starts_with("HTTP/1.1 200 "));

    let listener = |ip: &str| format!("{{ listen: {ip}:0, upstream: {}, public: [/public/**] }}", upstream.address);
    site.workload_at("acme-api", "tenant: acme", &format!("[{}, {}]", listener("127.0.0.1"), listener("127.0.0.2")));
    let addresses = eventually("both listen", || Some(admin.addresses()).filter(|addresses| addresses.len() == 2));
    assert_eq!(addresses[0], first, "the first keeps its port");
    assert_eq!(get(addresses[1], "/second").bearer(&site.token("acme")).send().status, 200);
    open.send(&request);
    assert!(open.response().starts_with("HTTP/1.1 200 "), "its connection is still the same");

    site.workload_at("acme-api", "tenant: acme", &format!("[{}]", listener("127.0.0.1")));
    eventually("the second is closed", || get(addresses[1], "/").try_send().is_err().then_some(()));
    open.send(&request);
    assert!(open.response().starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_upstream_changes_under_an_open_listener() {
    let (old, new) = (Upstream::start(), Upstream::start());
    let site = Site::acme(old.address);
    let up = Up::start(&site.dir());
    let (address, token) = (up.address("acme-api"), site.token("acme"));
    // Open from before the first request, and nothing asked on them until after the edit.
    let unused: Vec<Raw> = (0..20).map(|_| Raw::connect(address)).collect();
    assert_eq!(get(address, "/old").bearer(&token).send().status, 200);
    site.workload("acme-api", "tenant: acme", new.address);
    eventually("requests reach the new workload", || {
        // Refused at no time: the port stays open throughout.
        assert_eq!(get(address, "/either").bearer(&token).send().status, 200);
        (new.count("/either") > 0).then_some(())
    });
    assert_eq!(up.address("acme-api"), address);
    for mut connection in unused {
        connection.send(format!("GET /unused HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
        assert!(connection.response().starts_with("HTTP/1.1 200 "));
    }
    assert_eq!((old.count("/unused"), new.count("/unused")), (0, 20));
}
