//! A name outside a node's view does not exist, as far as that node can tell.

use super::*;
use crate::tests::fixtures::{binding, issuer, platform_zones, policy_zone, tenant_zones, workload_zones};
use prost::Message;

#[test]
pub(crate) fn foreign_names_are_absent_like_any_other() {
    // Tenants other than its own, bindings (it is no workload for any tenant), issuers that it does not trust, other workloads.
    let mut served = Served::new(&["acme"], &["acme", "globex"]);
    served.insert(issuer("other-sso", "a"));
    served.insert(binding("sso/org_globex", "globex"));
    served.insert(workload("other", &["globex"]));
    let names = [
        (Kind::Tenant, "globex", "gl0bex"),
        (Kind::Issuer, "other-sso", "0ther-sso"),
        (Kind::Binding, "sso/org_globex", "sso/org_gl0bex"),
        (Kind::Workload, "other", "0ther"),
    ];
    for (kind, foreign, nowhere) in names {
        assert!(served.set.get(kind, foreign).is_some() && served.set.get(kind, nowhere).is_none());
        let told = served.send(request(kind).subscribe(&[nowhere, foreign]));
        assert_eq!(told, [format!("{kind} -{nowhere} -{foreign}")]);
    }
}

#[test]
pub(crate) fn what_happens_to_foreign_names_is_not_told() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["*", "acme", "globex"]));
    for kind in [Kind::Workload, Kind::Issuer, Kind::Binding, Kind::Platform] {
        served.send(request(kind));
    }
    let version = served.acked();
    assert_eq!(served.publish(tenant("globex", 1)), NOTHING);
    assert_eq!(served.publish(tenant("globex", 2)), NOTHING);
    assert_eq!(served.publish(workload("other", &["globex", "acme"])), NOTHING);
    assert_eq!(served.publish(issuer("other-sso", "a")), NOTHING);
    assert_eq!(served.publish(binding("sso/org_globex", "globex")), NOTHING);
    assert_eq!(served.withdraw(Kind::Tenant, "globex"), NOTHING);
    assert_eq!(served.withdraw(Kind::Workload, "other"), NOTHING);
    assert_eq!(served.acked(), version);
}

#[test]
pub(crate) fn what_a_workload_begins_or_ceases_to_serve_comes_and_goes() {
    let mut served = Served::new(&["acme"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["*"]));
    assert_eq!(served.publish(workload(NODE, &["globex"])), ["Tenant globex=1", "Tenant -acme"]);
    served.ack();
    assert_eq!(served.publish(workload(NODE, &["*"])), ["Tenant acme=1"]);
    assert_eq!(served.withdraw(Kind::Workload, NODE), ["Tenant -acme -globex"]);
}

#[test]
pub(crate) fn a_workload_that_cannot_be_read_sees_nothing() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    let garbage = Resource::encoded(Kind::Workload, NODE, vec![0xff; 3].into());
    assert_eq!(served.publish(garbage), ["Tenant -acme"]);
}

#[test]
pub(crate) fn any_tenant_is_learnt_by_name_without_the_others() {
    let mut served = Served::new(&["*"], &["acme", "globex"]);
    served.insert(binding("sso/org_acme", "acme"));
    served.insert(binding("sso/org_globex", "globex"));
    assert_eq!(served.send(request(Kind::Binding).subscribe(&["sso/org_acme"])), ["Binding sso/org_acme"]);
    assert_eq!(served.send(tenants().subscribe(&["acme"])), ["Tenant acme=1"]);
    assert_eq!(served.publish(tenant("globex", 2)), NOTHING);
    assert_eq!(served.publish(binding("sso/org_globex", "acme")), NOTHING);
}

#[test]
pub(crate) fn the_bytes_of_a_stream_do_not_depend_on_others() {
    // The same node and the same steps; in the second run a busy neighbour is published, changed and withdrawn in between.
    let run = |neighbour: bool| {
        let mut served = Served::new(&["acme"], &["acme"]);
        let mut bytes = Vec::new();
        for round in 0..20 {
            if neighbour {
                let name = format!("neighbour{}", round % 7);
                served.insert(tenant(&name, round + 1));
                served.insert(workload("theirs", &[&name]));
                bytes.extend(served.due());
                served.set.remove(Kind::Tenant, &name);
                served.stream.touch(Kind::Tenant, &name, &served.set.view(NODE));
            }
            match round {
                0 => served.stream.receive(tenants().0).map(drop).unwrap(),
                5 => served.stream.receive(request(Kind::Workload).subscribe(&[NODE, "theirs"]).0).map(drop).unwrap(),
                9 => served.insert(tenant("acme", 2)),
                _ => {}
            }
            bytes.extend(served.due());
        }
        bytes.iter().map(Message::encode_to_vec).collect::<Vec<_>>()
    };
    let alone = run(false);
    assert_eq!(alone.len(), 4);
    assert_eq!(alone, run(true));
}

/// Three zones: one is the platform's, one each tenant's. Two have a piece in common.
fn with_zones(workload: Resource) -> (Served, [Vec<Resource>; 3]) {
    let mut served = Served::new(&[], &[]);
    let zones = [policy_zone("baseline", &["a", "b"]), policy_zone("acmes", &["b", "c"]), policy_zone("globexs", &["d", "e"])];
    for (manifest, chunks) in &zones {
        served.insert(manifest.clone());
        chunks.iter().for_each(|chunk| served.insert(chunk.clone()));
    }
    served.insert(platform_zones(&["baseline"]));
    served.insert(tenant_zones("acme", &["acmes"], ""));
    served.insert(tenant_zones("globex", &["globexs"], ""));
    served.insert(workload);
    (served, zones.map(|(_, chunks)| chunks))
}

#[test]
pub(crate) fn a_chunk_is_seen_by_those_whose_zones_it_is_of() {
    let without_dns = workload(NODE, &["acme", "globex"]);
    for (workload, seen) in [
        (workload_zones(NODE, &["acme"], &[]), vec!["baseline", "acmes"]),
        (workload_zones(NODE, &["globex"], &[]), vec!["baseline", "globexs"]),
        (workload_zones(NODE, &["acme", "globex"], &[]), vec!["baseline"]),
        (workload_zones(NODE, &["*", "globex"], &["acmes"]), vec!["baseline", "acmes"]),
        (without_dns, vec![]),
    ] {
        let (mut served, zones) = with_zones(workload);
        let all = ["baseline", "acmes", "globexs"];
        let told = served.send(request(Kind::PolicyZone).subscribe(&all)).join(" ");
        let of_the_seen: Vec<&Resource> =
            all.iter().zip(&zones).filter(|(zone, _)| seen.contains(zone)).flat_map(|(_, chunks)| chunks).collect();
        for (zone, chunks) in all.iter().zip(&zones) {
            assert_eq!(told.contains(&format!(" {zone}")), seen.contains(zone), "{told}");
            for chunk in chunks {
                let told = served.send(request(Kind::ZoneChunk).subscribe(&[&*chunk.name]));
                let sign = if of_the_seen.contains(&chunk) { "" } else { "-" };
                assert_eq!(told, [format!("ZoneChunk {sign}{}", chunk.name)], "knowing its name is not enough: {seen:?}");
                served.ack();
            }
        }
    }
}

#[test]
pub(crate) fn zones_come_and_go_with_what_refers_to_them() {
    let (mut served, zones) = with_zones(workload_zones(NODE, &["acme"], &[]));
    let [_, _, globexs] = &zones;
    served.send(request(Kind::PolicyZone).subscribe(&["acmes", "globexs"]));
    served.send(request(Kind::ZoneChunk).subscribe(&[&*globexs[0].name]));
    served.ack();
    let chunk = &globexs[0].name;
    // Another tenant's list is nobody's business.
    assert_eq!(served.publish(tenant_zones("globex", &["globexs", "acmes"], "")), NOTHING);
    let mut told = served.publish(tenant_zones("acme", &["globexs"], ""));
    told.sort();
    assert_eq!(told, ["PolicyZone -acmes".to_owned(), "PolicyZone globexs".to_owned(), format!("ZoneChunk {chunk}")]);
    served.ack();
    // A version without the piece takes it away; that the zone is not seen any more, too.
    let (newer, chunks) = policy_zone("globexs", &["e", "f"]);
    chunks.into_iter().for_each(|chunk| served.insert(chunk));
    assert_eq!(served.publish(newer), ["PolicyZone globexs".to_owned(), format!("ZoneChunk -{chunk}")]);
    served.ack();
    assert_eq!(served.withdraw(Kind::Tenant, "acme"), ["PolicyZone -globexs"]);
}

#[test]
pub(crate) fn a_node_is_in_sync_when_its_zones_are_acknowledged() {
    let (mut served, _) = with_zones(workload_zones(NODE, &["acme"], &[]));
    for (kind, name) in [(Kind::Platform, "platform"), (Kind::Workload, NODE), (Kind::Tenant, "acme"), (Kind::PolicyZone, "baseline")] {
        served.send(request(kind).subscribe(&[name]));
    }
    served.ack();
    assert!(!served.stream.in_sync(&served.view()));
    served.send(request(Kind::PolicyZone).subscribe(&["acmes"]));
    assert!(!served.stream.in_sync(&served.view()), "told, and not yet in force");
    served.ack();
    assert!(served.stream.in_sync(&served.view()));
}
