//! A thousand sidecars: all at once after a restart, and one of them that is given what it cannot use.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ringfence_tests::{Crowd, Serve, Site, control_plane::status, eventually, site::object, took_at_most};

const SIDECARS: usize = 1000;
/// Where one of them cannot listen.
const OCCUPIED: u16 = 65_000;
/// For all others to have acknowledged an edit.
const AT_ONCE: Duration = Duration::from_secs(1);

fn name(number: usize) -> String {
    format!("w{number:03}")
}

/// Tenant and workload of the same name.
fn write(site: &Site, number: usize, rate: usize, port: u16) {
    let name = name(number);
    let tenant = ringfence_tests::site::tenant(&name, &format!("limits: [{{ name: all, rate: {rate}/s }}]"));
    let listen = format!("127.{}.{}.1:{port}", number / 250 + 1, number % 250 + 1);
    let workload = object("Workload", &name, &format!("{{ tenant: {name}, inbound: [{{ listen: '{listen}', upstream: 127.0.0.1:9 }}] }}"));
    site.write(&format!("{name}.yaml"), &format!("{tenant}---\n{workload}"));
}

fn crowded() -> (Site, Serve, Crowd) {
    let site = Site::new();
    (0..SIDECARS).for_each(|number| write(&site, number, 5, 1000));
    site.write("platform.yaml", &object("Platform", "platform", "{ inFlight: 1000 }"));
    let serve = Serve::start(&site);
    let sockets = serve.socket("x").parent().unwrap().to_owned();
    let crowd = Crowd::connect(&sockets, (0..SIDECARS).map(name), &[OCCUPIED]);
    crowd.until("all have their policy", SIDECARS, |_, member| member.held.len() == 4);
    (site, serve, crowd)
}

fn in_sync(site: &Site) -> usize {
    status(&site.dir())["sidecars"].as_array().map_or(0, |all| all.iter().filter(|sidecar| sidecar["inSync"] == true).count())
}

/// What each has in force.
fn versions(crowd: &Crowd) -> BTreeMap<String, BTreeMap<String, String>> {
    crowd.members().into_iter().map(|(name, member)| (name, member.held)).collect()
}

#[test]
fn all_at_once_after_a_restart_are_soon_in_sync() {
    let (site, mut serve, crowd) = crowded();
    let before = versions(&crowd);
    for (name, held) in &before {
        let own: Vec<&str> = held.keys().map(String::as_str).filter(|held| held.starts_with("Tenant/")).collect();
        assert_eq!(own, [format!("Tenant/{name}")], "each has its own tenant and no other");
    }
    serve.process.kill();
    crowd.until("all know that they are alone", 0, |_, member| member.connected);
    let from = Instant::now();
    let _serve = Serve::start(&site);
    let ready = from.elapsed();
    eventually("all are in sync", || (in_sync(&site) == SIDECARS).then_some(()));
    println!("{SIDECARS} sidecars: the control plane is ready {ready:?} after its start, all are in sync after {:?}", from.elapsed());
    assert_eq!(versions(&crowd), before);
}

#[test]
fn what_one_cannot_use_holds_up_no_other() {
    let (site, _serve, crowd) = crowded();
    let poisoned = 500;
    // An edit that each of them is told of, and one that the control plane takes for good and a single sidecar refuses.
    let from = Instant::now();
    (0..SIDECARS).for_each(|number| write(&site, number, 6, if number == poisoned { OCCUPIED } else { 1000 }));
    let written = from.elapsed();
    crowd.until("one has refused", 1, |_, member| member.refused > 0);
    eventually("all others are in sync", || (in_sync(&site) == SIDECARS - 1).then_some(()));
    let answered = crowd.answered_since(from);
    let (last, median) = (answered[answered.len() - 1], answered[answered.len() / 2]);
    println!(
        "{} of {SIDECARS} took up a file each (written in {written:?}): median {median:?}, last {last:?} after the first was written",
        answered.len()
    );
    let sidecars = status(&site.dir())["sidecars"].clone();
    let refusing: Vec<_> = sidecars.as_array().unwrap().iter().filter(|sidecar| sidecar["inSync"] == false).collect();
    assert_eq!((refusing.len(), &refusing[0]["workload"]), (1, &name(poisoned).into()));
    assert!(refusing[0]["rejections"][0].as_str().unwrap().contains("inbound[0].listen"), "{refusing:?}");

    // One edit for all: the poisoned one takes its part too.
    let before = versions(&crowd);
    let from = Instant::now();
    site.write("platform.yaml", &object("Platform", "platform", "{ inFlight: 7777 }"));
    crowd.until("all have it", SIDECARS, |name, member| {
        member.held.get("Platform/platform").is_some_and(|now| before[name].get("Platform/platform") != Some(now))
    });
    let answered = crowd.answered_since(from);
    println!("one edit for all: {} have it within {:?}", answered.len(), answered[answered.len() - 1]);
    took_at_most(AT_ONCE, answered[answered.len() - 2]);

    // A file that is bad by itself is held back by the control plane, and no other.
    site.write("w001.yaml", "kind: [");
    write(&site, 2, 9, 1000);
    crowd.until("another's edit goes through", 1, |name, member| {
        name == "w002" && member.held["Tenant/w002"] != before["w002"]["Tenant/w002"]
    });
    assert_eq!(crowd.members()["w001"].held["Tenant/w001"], before["w001"]["Tenant/w001"]);

    let from = Instant::now();
    write(&site, poisoned, 6, 1000);
    write(&site, 1, 6, 1000);
    eventually("all are in sync", || (in_sync(&site) == SIDECARS).then_some(()));
    println!("the mended one is in sync {:?} after the edit", from.elapsed());
}
