//! A client that comes back tells what it holds.

use super::*;

#[test]
pub(crate) fn what_a_client_holds_is_not_sent_again() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    let (acme, globex) = (served.version(Kind::Tenant, "acme"), served.version(Kind::Tenant, "globex"));
    let request = tenants().subscribe(&["acme", "globex"]).holding("acme", &acme).holding("globex", &globex);
    assert_eq!(served.send(request), NOTHING);
    assert_eq!(served.acked(), [format!("Tenant/acme@{acme}"), format!("Tenant/globex@{globex}")]);
    assert_eq!(served.publish(tenant("globex", 2)), ["Tenant globex=2"]);
}

#[test]
pub(crate) fn what_a_client_holds_in_another_version_is() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    let acme = served.version(Kind::Tenant, "acme");
    let request = tenants().subscribe(&["acme", "globex"]).holding("acme", &acme).holding("globex", "of another replica");
    assert_eq!(served.send(request), ["Tenant globex=1"]);
}

#[test]
pub(crate) fn what_a_client_holds_and_is_gone_is_removed() {
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    let acme = served.version(Kind::Tenant, "acme");
    let request = tenants().subscribe(&["acme", "globex"]).holding("acme", &acme).holding("globex", "old");
    assert_eq!(served.send(request), ["Tenant -globex"]);
    // The same under a wildcard, where nothing else names it.
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    assert_eq!(served.send(tenants().holding("acme", &acme).holding("globex", "old")), ["Tenant -globex"]);
    assert_eq!(served.send(tenants().nonce("1")), NOTHING);
    assert_eq!(served.acked(), [format!("Tenant/acme@{acme}")]);
}

#[test]
pub(crate) fn only_the_first_request_of_a_kind_tells_what_is_held() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    let globex = served.version(Kind::Tenant, "globex");
    served.send(tenants().subscribe(&["acme"]));
    assert_eq!(served.send(tenants().subscribe(&["globex"]).holding("globex", &globex)), ["Tenant globex=1"]);
    // What is held but not asked for is not remembered.
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme"]).holding("globex", &globex));
    assert_eq!(served.acked(), NOTHING);
}

#[test]
pub(crate) fn a_nonce_of_a_dead_stream_makes_no_answer() {
    let mut served = Served::new(&["acme"], &["acme"]);
    assert_eq!(served.send(tenants().subscribe(&["acme"]).nonce("1")), ["Tenant acme=1"], "a first request like any other");
    assert_eq!(served.events, []);
}

#[test]
pub(crate) fn a_client_that_refused_is_asked_once_a_stream() {
    let mut served = Served::new(&["acme"], &["acme"]);
    let acme = served.version(Kind::Tenant, "acme");
    served.insert(tenant("acme", 2));
    assert_eq!(served.send(tenants().subscribe(&["acme"]).holding("acme", &acme)), ["Tenant acme=2"]);
    assert_eq!(served.send(tenants().nonce("1").nack("still no")), NOTHING);
    served.stream.touch_all();
    assert_eq!(served.tell(), NOTHING);
    assert_eq!(served.acked(), [format!("Tenant/acme@{acme}")], "what it held stays in force");
}

#[test]
pub(crate) fn an_empty_handed_control_plane_takes_everything_back_in_order_and_gives_it_again() {
    let mut served = Served::new(&["acme"], &["acme"]);
    let held = |served: &Served, kind, name| served.version(kind, name);
    let (p, w, t) = (held(&served, Kind::Platform, "platform"), held(&served, Kind::Workload, NODE), held(&served, Kind::Tenant, "acme"));
    served.set = ResourceSet::default();
    let mut removed = Vec::new();
    for request in [
        request(Kind::Platform).subscribe(&["platform"]).holding("platform", &p),
        tenants().subscribe(&["acme"]).holding("acme", &t),
        request(Kind::Workload).subscribe(&[NODE]).holding(NODE, &w),
    ] {
        served.stream.receive(request.0).unwrap();
    }
    removed.extend(served.tell());
    assert_eq!(removed, ["Workload -api", "Tenant -acme", "Platform -platform"], "what refers goes before what it refers to");
    for resource in [platform(1), tenant("acme", 1), workload(NODE, &["acme"])] {
        served.insert(resource);
    }
    assert_eq!(served.tell(), ["Platform platform=1", "Tenant acme=1", "Workload api"]);
}
