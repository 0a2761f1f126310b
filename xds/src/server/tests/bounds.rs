//! What a stream may cost, whatever its client does.

use super::*;
use crate::{
    server::subscription::{MAX_NAME_BYTES, MAX_NAMES, MAX_OUTSTANDING},
    tests::fixtures::binding,
};
use prost::Message;
use std::collections::{BTreeMap, HashSet};

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("t{i:05}")).collect()
}

/// `count` tenants of about `bytes` each, all served.
fn heavy(count: usize, bytes: usize) -> Served {
    let mut served = Served::new(&["*"], &[]);
    for name in numbered(count) {
        let identity = vec![crate::generated::resource::Identity { issuer: "sso".into(), values: vec!["x".repeat(bytes)] }];
        served.set.insert(Resource::new(name, &crate::generated::resource::Tenant { identity, ..Default::default() }));
    }
    served
}

#[test]
pub(crate) fn a_burst_of_changes_is_one_response_with_the_last_state() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme", "globex"]));
    for version in 2..=100 {
        served.insert(tenant("acme", version));
    }
    assert_eq!(served.tell(), ["Tenant acme=100"]);
}

#[test]
pub(crate) fn a_change_taken_back_before_it_was_sent_is_none() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    served.insert(tenant("acme", 2));
    served.insert(tenant("acme", 1));
    assert_eq!(served.tell(), NOTHING);
    served.set.remove(Kind::Tenant, "acme");
    served.stream.touch(Kind::Tenant, "acme", &served.set.view(NODE));
    served.insert(tenant("acme", 1));
    assert_eq!(served.tell(), NOTHING);
}

#[test]
pub(crate) fn a_client_that_does_not_answer_is_sent_little_and_then_the_last_state() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    let sent: usize = (2..=10_000).map(|version| served.publish(tenant("acme", version)).len()).sum();
    assert_eq!(sent + 1, MAX_OUTSTANDING);
    assert_eq!(served.send(request(Kind::Workload).subscribe(&[NODE])), ["Workload api"], "the other kinds go on");
    assert_eq!(served.send(tenants().nonce("1")), ["Tenant acme=10000"]);
}

#[test]
pub(crate) fn what_is_removed_while_a_client_does_not_answer_is_told_later() {
    let mut served = Served::new(&["*"], &["acme", "globex", "initech", "umbrella"]);
    for name in ["acme", "globex", "initech", "umbrella"] {
        assert_eq!(served.send(tenants().subscribe(&[name])).len(), 1);
    }
    assert_eq!(served.withdraw(Kind::Tenant, "acme"), NOTHING);
    assert_eq!(served.withdraw(Kind::Tenant, "globex"), NOTHING);
    assert_eq!(served.publish(tenant("globex", 1)), NOTHING, "and is back");
    assert_eq!(served.publish(tenant("initech", 2)), NOTHING);
    assert_eq!(served.send(tenants().nonce("1")), ["Tenant initech=2"]);
    assert_eq!(served.send(tenants().nonce("2")), ["Tenant -acme"]);
    assert_eq!(served.send(tenants().nonce("3")), NOTHING);
}

#[test]
pub(crate) fn many_resources_are_cut_into_responses_that_any_client_takes() {
    let mut served = heavy(100, 100_000);
    served.stream.receive(tenants().subscribe(&["*"]).0).unwrap();
    let (mut seen, mut nonce) = (0, 0);
    loop {
        let responses = served.due();
        assert!(responses.len() <= MAX_OUTSTANDING);
        if responses.is_empty() {
            break;
        }
        for response in responses {
            assert!(response.encoded_len() < 2 * 1024 * 1024, "{}", response.encoded_len());
            seen += response.resources.len();
            nonce += 1;
            served.stream.receive(tenants().nonce(&nonce.to_string()).0).unwrap();
        }
    }
    assert_eq!(seen, 100);
}

#[test]
pub(crate) fn many_removals_are_cut_too() {
    let absent: Vec<String> = (0..20_000).map(|i| format!("{i:0>500}")).collect();
    let mut served = Served::new(&["*"], &[]);
    served.stream.receive(tenants().subscribe(&absent).0).unwrap();
    let (mut seen, mut nonce) = (0, 0);
    loop {
        let responses = served.due();
        assert!(responses.len() <= MAX_OUTSTANDING);
        if responses.is_empty() {
            break;
        }
        for response in responses {
            assert!(response.encoded_len() < 2 * 1024 * 1024, "{}", response.encoded_len());
            seen += response.removed_resources.len();
            nonce += 1;
            served.stream.receive(tenants().nonce(&nonce.to_string()).0).unwrap();
        }
    }
    assert_eq!(seen, absent.len());
}

#[test]
pub(crate) fn ten_thousand_names_in_one_request_are_served() {
    let listed = numbered(10_000);
    let mut served = heavy(10_000, 10);
    served.stream.receive(tenants().subscribe(&listed).0).unwrap();
    let mut seen = 0;
    let mut nonce = 0;
    while seen < listed.len() {
        for response in served.due() {
            nonce += 1;
            seen += response.resources.len();
            served.stream.receive(tenants().nonce(&nonce.to_string()).0).unwrap();
        }
    }
    assert_eq!((seen, nonce), (10_000, 3));
    // Asked for again, they are no more names than before.
    for _ in 0..10 {
        served.stream.receive(tenants().subscribe(&listed).0).unwrap();
    }
}

#[test]
pub(crate) fn more_names_than_the_bound_end_the_stream() {
    let mut listed = numbered(MAX_NAMES);
    let mut served = Served::new(&["acme"], &[]);
    served.stream.receive(tenants().subscribe(&listed).0).unwrap();
    served.stream.receive(tenants().subscribe(&listed[..10]).0).unwrap();
    assert_eq!(served.stream.receive(tenants().subscribe(&["one-more"]).0), Err(StreamError::TooMany));

    let mut stream = Stream::default();
    listed.push("one-more".into());
    assert_eq!(stream.receive(tenants().subscribe(&listed).0), Err(StreamError::TooMany));

    let long = "x".repeat(MAX_NAME_BYTES + 1);
    for request in [
        tenants().subscribe(&[&long]),
        tenants().holding(&long, "1"),
        tenants().holding("acme", &long),
        listed.iter().fold(tenants(), |request, name| request.holding(name, "1")),
    ] {
        assert_eq!(Stream::default().receive(request.0), Err(StreamError::TooMany));
    }
}

#[test]
pub(crate) fn what_is_published_for_others_costs_a_stream_nothing() {
    // A wildcard and named subscriptions, and a client that never answers: what others publish must not pile up anywhere.
    let mut served = Served::new(&["acme"], &["acme"]);
    for kind in Kind::ALL {
        served.send(request(kind));
    }
    let before = format!("{:?}", served.stream);
    for name in numbered(100_000) {
        served.stream.touch(Kind::Tenant, &name, &served.set.view(NODE));
    }
    for name in numbered(1000) {
        served.insert(tenant(&name, 1));
        served.insert(binding(&format!("sso/{name}"), &name));
        served.insert(workload(&name, &[&name]));
    }
    assert_eq!(format!("{:?}", served.stream), before);
    assert_eq!(served.tell(), NOTHING);
}

#[test]
pub(crate) fn what_a_wildcard_brought_and_took_is_forgotten() {
    let mut served = Served::new(&["*"], &[]);
    served.send(tenants().subscribe(&["*"]));
    for refused in [false, true] {
        assert_eq!(served.publish(tenant("acme", 1)), ["Tenant acme=1"]);
        served.ack();
        assert_eq!(served.withdraw(Kind::Tenant, "acme"), ["Tenant -acme"]);
        let (_, nonce) = served.unanswered.pop().unwrap();
        let answer = tenants().nonce(&nonce);
        served.send(if refused { answer.nack("no") } else { answer });
        assert!(!format!("{:?}", served.stream).contains("acme"));
    }
}

/// A node with as many unanswered responses as it may have: a change took the last place, so that acme's removal is still owed.
fn owing_a_removal(subscribe: &[&str]) -> Served {
    let mut served = Served::new(&["*"], &["acme", "globex"]);
    assert_eq!(served.send(tenants().subscribe(subscribe)), ["Tenant acme=1 globex=1"]);
    served.ack();
    for version in 2..=4 {
        assert_eq!(served.publish(tenant("globex", version)).len(), 1);
    }
    served.insert(tenant("globex", 5));
    assert_eq!(served.withdraw(Kind::Tenant, "acme"), ["Tenant globex=5"]);
    served
}

#[test]
pub(crate) fn a_removal_still_owed_is_told_when_there_is_room() {
    let mut served = owing_a_removal(&["acme", "globex"]);
    assert_eq!(served.send(tenants().nonce("2")), ["Tenant -acme"]);
}

#[test]
pub(crate) fn a_removal_still_owed_is_not_told_of_what_is_back_or_given_up() {
    let mut served = owing_a_removal(&["acme", "globex"]);
    served.insert(tenant("acme", 1));
    assert_eq!(served.send(tenants().nonce("2")), NOTHING, "it is as it was");

    let mut served = owing_a_removal(&["acme", "globex"]);
    assert_eq!(served.send(tenants().nonce("2").unsubscribe(&["acme"])), NOTHING);

    let mut served = owing_a_removal(&["*"]);
    assert_eq!(served.send(tenants().nonce("2").unsubscribe(&["*"])), NOTHING);
}

#[test]
pub(crate) fn a_dedicated_wildcard_looks_only_at_what_it_may_see() {
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    for name in numbered(1000) {
        served.set.insert(tenant(&name, 1));
    }
    assert_eq!(served.view().names(Kind::Tenant), ["acme"]);
    assert_eq!(served.view().names(Kind::Workload), [NODE]);
    assert_eq!(served.view().names(Kind::Platform), ["platform"]);
    assert_eq!(served.view().names(Kind::Binding), NOTHING);
}

/// Many changes at once are told as they would be one by one, whether they are more than what was asked for, fewer, or the workload's own.
#[test]
pub(crate) fn changes_told_together_are_as_one_by_one() {
    let names = ["acme", "globex", "initech", "umbrella"];
    for tenants_served in [&["acme", "globex"][..], &["*"]] {
        for subscribed in [&["acme"][..], &["acme", "globex", "umbrella", "missing"], &["*"]] {
            for changed in [&[][..], &["globex"], &["acme", "initech"], &names] {
                for workload_too in [false, true] {
                    let told = |together: bool| {
                        let mut served = Served::new(tenants_served, &names);
                        served.send(tenants().subscribe(subscribed));
                        served.ack();
                        let mut resources: Vec<Resource> = changed.iter().map(|name| tenant(name, 2)).collect();
                        resources.extend(workload_too.then(|| workload(NODE, &["acme", "umbrella"])));
                        let keys: Vec<_> = resources.iter().map(|resource| (resource.kind, resource.name.clone())).collect();
                        for resource in resources {
                            served.set.insert(resource);
                        }
                        let view = served.set.view(NODE);
                        let concerned = if together {
                            let mut changed: BTreeMap<Kind, HashSet<&str>> = BTreeMap::new();
                            for (kind, name) in &keys {
                                changed.entry(*kind).or_default().insert(name);
                            }
                            served.stream.touch_each(&changed, &view)
                        } else {
                            keys.iter().fold(false, |concerned, (kind, name)| served.stream.touch(*kind, name, &view) || concerned)
                        };
                        (concerned, served.tell())
                    };
                    assert_eq!(told(true), told(false), "{tenants_served:?} {subscribed:?} {changed:?} {workload_too}");
                }
            }
        }
    }
}
