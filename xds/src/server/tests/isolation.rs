//! A name outside a node's view does not exist, as far as that node can tell.

use super::*;
use crate::tests::fixtures::{binding, issuer};
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
