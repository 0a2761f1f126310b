//! What the watches tell, event by event, and what becomes of it.

use futures_util::FutureExt;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::{feed::transfer::Kept, store::Catalog};

/// `Kind/name`, its UID and generation, its spec and its status.
fn resource(key: &str, (uid, generation): (&str, i64), spec: Json, status: Json) -> (Kind, DynamicObject) {
    let (kind, name) = key.split_once('/').unwrap();
    let kind = *Kind::ALL.iter().find(|known| known.as_str() == kind).unwrap();
    let object = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": kind.as_str(),
        "metadata": { "name": name, "uid": uid, "generation": generation },
        "spec": spec, "status": status,
    });
    (kind, serde_json::from_value(object).unwrap())
}

fn issuer() -> (Kind, DynamicObject) {
    let spec = json!({
        "issuer": "https://sso.example/", "audiences": ["a"], "algorithms": ["ES256"], "tenantClaim": "org",
        "jwks": { "uri": "https://sso.example/keys" },
    });
    resource("Issuer/sso", ("i", 1), spec, Json::Null)
}

fn tenant(name: &str, version: (&str, i64), rate: &str) -> (Kind, DynamicObject) {
    let spec = json!({ "identity": [{ "issuer": "sso" }], "limits": [{ "name": "all", "rate": rate }] });
    resource(&format!("Tenant/{name}"), version, spec, Json::Null)
}

fn list(objects: impl IntoIterator<Item = (Kind, DynamicObject)>) -> Vec<Told> {
    let objects: Vec<_> = objects.into_iter().collect();
    let of = |kind: Kind| {
        let listed = objects.iter().filter(move |(of, _)| *of == kind).map(move |(_, object)| (kind, Ok(Event::InitApply(object.clone()))));
        [(kind, Ok(Event::Init))].into_iter().chain(listed.collect::<Vec<_>>()).chain([(kind, Ok(Event::InitDone))])
    };
    Kind::ALL.iter().flat_map(|kind| of(*kind)).collect()
}

fn apply((kind, object): (Kind, DynamicObject)) -> Told {
    (kind, Ok(Event::Apply(object)))
}

fn cluster(told: Vec<Told>) -> Cluster {
    Cluster::of(stream::iter(told).chain(stream::pending()).boxed(), Path::new("nowhere"))
}

/// Listed, and what was told then taken in as far as it goes.
fn catalog(told: Vec<Told>) -> (Catalog, Arc<Ledger>) {
    let mut cluster = cluster(told);
    let ledger = cluster.ledger();
    assert!(cluster.listed().now_or_never().is_some(), "every kind was listed");
    (Catalog::of_cluster(cluster), ledger)
}

async fn next(catalog: &mut Catalog) -> Vec<String> {
    catalog.edited().await.unwrap();
    catalog.load().unwrap().faults.iter().map(ToString::to_string).collect()
}

fn rate_of(catalog: &Catalog, tenant: &str) -> Option<String> {
    match &catalog.object(&ObjectKey { kind: Kind::Tenant, name: tenant.into() })?.spec {
        crate::spec::Spec::Tenant(spec) => Some(spec.limits[0].rate.clone()),
        _ => None,
    }
}

fn verdict(ledger: &Ledger, tenant: &str) -> ledger::Verdict {
    ledger.entries()[&ObjectKey { kind: Kind::Tenant, name: tenant.into() }].verdict.clone().unwrap()
}

#[test]
fn nothing_is_taken_for_missing_before_every_kind_was_listed() {
    let whole = list([issuer()]);
    for told in 0..whole.len() {
        let mut part = list([issuer()]);
        part.truncate(told);
        assert!(cluster(part).listed().now_or_never().is_none(), "{told} of {}", whole.len());
    }
    assert!(cluster(whole).listed().now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_bad_edit_leaves_its_object_as_it_was_and_says_where() {
    let mut told = list([issuer(), tenant("acme", ("a", 1), "1/s")]);
    told.push(apply(tenant("acme", ("a", 2), "1/d")));
    told.push(apply(tenant("globex", ("g", 1), "5/s")));
    let (mut catalog, ledger) = catalog(told);
    assert_eq!(catalog.load().unwrap().faults, []);
    let wanted = "Tenant/acme: spec.limits[0].rate: must be N/s, N/m or N/h with N from 1 to 1000000, e.g. 100/s";
    let faults = next(&mut catalog).await;
    assert!(faults.len() == 1 && faults[0].starts_with(wanted), "{faults:?}");
    assert_eq!((rate_of(&catalog, "acme").as_deref(), rate_of(&catalog, "globex").as_deref()), (Some("1/s"), Some("5/s")));
    let acme = verdict(&ledger, "acme");
    assert_eq!((acme.generation, acme.is_in_force, acme.faults[0].path.as_str()), (2, false, "spec.limits[0].rate"));
    assert_eq!(acme.last_accepted.map(|last| last.generation), Some(1));
    assert!(verdict(&ledger, "globex").is_in_force);
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_takes_nothing_away_and_the_next_list_does() {
    let mut told = list([issuer(), tenant("acme", ("a", 1), "1/s"), tenant("globex", ("g", 1), "5/s")]);
    told.push((Kind::Tenant, Err(watcher::Error::NoResourceVersion)));
    told.push((Kind::Tenant, Ok(Event::Init)));
    told.push((Kind::Tenant, Ok(Event::InitApply(tenant("globex", ("g", 2), "6/s").1))));
    let (mut catalog, _) = catalog(told);
    catalog.load().unwrap();
    assert_eq!(next(&mut catalog).await, [""; 0]);
    // A list that is half there.
    assert_eq!((rate_of(&catalog, "acme").as_deref(), rate_of(&catalog, "globex").as_deref()), (Some("1/s"), Some("6/s")));

    let mut told = list([issuer(), tenant("acme", ("a", 1), "1/s")]);
    told.extend(list([issuer()]));
    let mut catalog = self::catalog(told).0;
    catalog.load().unwrap();
    next(&mut catalog).await;
    assert_eq!(rate_of(&catalog, "acme"), None);
}

#[tokio::test(start_paused = true)]
async fn what_only_the_status_changed_is_no_edit() {
    let mut told = list([issuer(), tenant("acme", ("a", 1), "1/s")]);
    let (kind, mut object) = tenant("acme", ("a", 1), "1/s");
    object.data["status"] = json!({ "sidecars": "1/1" });
    told.push((kind, Ok(Event::Apply(object))));
    let (mut catalog, ledger) = catalog(told);
    catalog.load().unwrap();
    catalog.edited().await.unwrap();
    catalog.load().unwrap();
    let again = tokio::time::timeout(Duration::from_secs(60), catalog.edited()).await;
    assert!(again.is_err(), "nothing was edited");
    assert_eq!(ledger.entries()[&ObjectKey { kind, name: "acme".into() }].status.sidecars, "1/1");
}

#[test]
fn a_control_plane_that_starts_takes_up_what_was_last_in_force() {
    let last = json!({ "identity": [{ "issuer": "sso" }], "limits": [{ "name": "all", "rate": "3/s" }] });
    let bad = json!({ "identity": [{ "issuer": "nobody" }], "limits": [{ "name": "all", "rate": "4/s" }] });
    let status = json!({ "lastAccepted": { "generation": 2, "spec": last } });
    let acme = resource("Tenant/acme", ("a", 3), bad, status);
    let (mut catalog, ledger) = catalog(list([issuer(), acme]));
    catalog.load_last_accepted();
    let faults = catalog.load().unwrap().faults;
    assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["spec.identity[0].issuer"]);
    assert_eq!(rate_of(&catalog, "acme").as_deref(), Some("3/s"));
    assert_eq!(verdict(&ledger, "acme").last_accepted.map(|last| last.generation), Some(2));
}

/// An API server has checked none of it if its definitions are others than ours.
#[test]
fn whatever_stands_in_an_object_is_told_of_that_object_alone() {
    let deep = (0..120).fold(json!("x"), |inner, _| json!([inner]));
    let identity = json!([{ "issuer": "sso" }]);
    let cases = [
        (json!({ "identity": identity, "unknown": 1 }), "spec.unknown"),
        (json!({ "identity": identity, "peers": deep }), "spec.peers[0]"),
        (json!({ "identity": identity, "inFlight": -1 }), "spec.inFlight"),
        (json!({ "identity": identity, "inFlight": 1.5 }), "spec.inFlight"),
        (json!(null), "spec"),
        (json!("text"), "spec"),
    ];
    for (spec, path) in cases {
        let bad = resource("Tenant/bad", ("b", 1), spec, json!("no status of ours"));
        let (mut catalog, ledger) = catalog(list([issuer(), tenant("acme", ("a", 1), "1/s"), bad]));
        let faults = catalog.load().unwrap().faults;
        assert!(faults.iter().all(|fault| fault.name.as_deref() == Some("bad")) && faults[0].path == path, "{path}: {faults:?}");
        assert!(rate_of(&catalog, "acme").is_some() && !verdict(&ledger, "bad").is_in_force);
    }
}

#[test]
fn no_file_of_the_control_planes_own_is_read() {
    let jwks = |file: &str| {
        let spec = json!({
            "issuer": "a", "audiences": ["a"], "algorithms": ["ES256"], "tenantClaim": "a", "jwks": { "file": file },
        });
        resource("Issuer/a", ("a", 1), spec, Json::Null)
    };
    let tls = json!({ "certificate": "tls.crt", "key": "/tls.key" });
    let inbound = json!([{ "listen": "127.0.0.1:1", "upstream": "127.0.0.1:2", "tls": tls }]);
    let workload = resource("Workload/a", ("a", 1), json!({ "tenants": ["*"], "inbound": inbound }), Json::Null);
    let cases = [
        (jwks("/etc/passwd"), "spec.jwks.file", "a custom resource has none"),
        (jwks("jwks.json"), "spec.jwks.file", "a custom resource has none"),
        (workload, "spec.inbound[0].tls.certificate", "must be an absolute path"),
    ];
    for (object, path, message) in cases {
        let faults = catalog(list([object])).0.load().unwrap().faults;
        let told = faults.iter().any(|fault| fault.path == path && fault.message.contains(message));
        assert!(told, "{path}: {faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_whose_watch_broke_is_behind_until_it_is_whole() {
    let broken = || (Kind::Issuer, Err(watcher::Error::NoResourceVersion));
    let edit = || apply(tenant("acme", ("a", 1), "1/s"));
    let begin = |told: Vec<Told>| {
        let mut catalog = catalog(list([issuer()]).into_iter().chain(told).collect()).0;
        catalog.load().unwrap();
        catalog
    };
    // Another kind's edits are taken up meanwhile; whoever waits for this one is told when it is whole, though nothing of it was edited.
    let mut silent = begin(vec![broken(), edit()]);
    next(&mut silent).await;
    assert!(silent.is_behind(Kind::Issuer) && !silent.is_behind(Kind::Tenant));
    let begun = Instant::now();
    next(&mut silent).await;
    assert!(!silent.is_behind(Kind::Issuer) && begun.elapsed() < SILENT_FOR + QUIET * 2);

    let mut listed = begin([broken()].into_iter().chain(list([issuer()])).collect());
    next(&mut listed).await;
    assert!(!listed.is_behind(Kind::Issuer));
    let mut told = begin(vec![broken(), apply(issuer())]);
    next(&mut told).await;
    assert!(!told.is_behind(Kind::Issuer));
    assert!(tokio::time::timeout(SILENT_FOR * 2, told.edited()).await.is_err(), "once");
}

#[tokio::test(start_paused = true)]
async fn what_was_transferred_is_taken_up_with_an_object_that_is_whole() {
    let state = tempfile::tempdir().unwrap();
    let zone =
        resource("PolicyZone/malware", ("z", 1), json!({ "transfer": { "primary": "192.0.2.53:53", "zone": "rpz.example" } }), Json::Null);
    let mut told = list([issuer(), zone]);
    told.push((Kind::PolicyZone, Err(watcher::Error::NoResourceVersion)));
    told.push(apply(tenant("acme", ("a", 1), "1/s")));
    let mut cluster = Cluster::of(stream::iter(told).chain(stream::pending()).boxed(), state.path());
    cluster.listed().await;
    let mut catalog = Catalog::of_cluster(cluster);
    let malware = ObjectKey { kind: Kind::PolicyZone, name: "malware".into() };
    catalog.load().unwrap();
    let before = catalog.object(&malware).cloned();
    let is_same = |catalog: &Catalog| match (&before, catalog.object(&malware)) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now),
        (None, None) => true,
        _ => false,
    };
    let kept = Kept::new(state.path(), "malware");
    std::fs::create_dir_all(kept.path().parent().unwrap()).unwrap();
    let soa = [&b"ringfence-zone-1\x03rpz\x07example\0\0\x06\0\0\0\x3c\0\x16"[..], &[0; 22]].concat();
    std::fs::write(kept.path(), [&soa[..], &Sha256::digest(&soa)].concat()).unwrap();
    next(&mut catalog).await;
    assert!(catalog.is_behind(Kind::PolicyZone) && is_same(&catalog), "it may be an old one, and would be signed anew");
    next(&mut catalog).await;
    assert!(!is_same(&catalog));
}
