//! One sidecar's half, and a server that says what it likes.

mod seals;

use std::collections::BTreeSet;

use prost::Message;

use super::*;
use crate::{
    assemble::Lookup,
    generated::{discovery::Status, resource as proto},
    tests::fixtures::{names, platform, response, tenant, unusable_tenant, wire, workload},
};

fn set(list: &[&str]) -> BTreeSet<String> {
    names(list).into_iter().collect()
}

/// A client with a stream on which it asked for these tenants.
fn wanting(tenants: &[&str]) -> Client {
    let mut client = Client::new("api");
    client.want(Kind::Tenant, set(tenants));
    client.connected();
    client
}

/// Takes a response in as a sidecar does that can apply whatever decodes.
fn take(client: &mut Client, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let update = client.receive(response);
    client.finish(update).unwrap()
}

/// What is known of tenants: `acme=1 -globex ?initech` (held with its `inFlight`, absent, unusable).
fn known(client: &Client) -> String {
    let names = ["acme", "globex", "initech"];
    let known = names.iter().filter_map(|name| {
        Some(match client.known(Kind::Tenant, name)? {
            Known::Held(Decoded::Tenant(policy)) => format!("{name}={}", policy.in_flight.unwrap_or_default()),
            Known::Held(other) => panic!("{other:?}"),
            Known::Absent => format!("-{name}"),
            Known::Unusable => format!("?{name}"),
        })
    });
    known.collect::<Vec<_>>().join(" ")
}

fn is_ack(request: &DeltaDiscoveryRequest, nonce: &str) -> bool {
    request.response_nonce == nonce
        && request.error_detail.is_none()
        && request.resource_names_subscribe.is_empty()
        && request.resource_names_unsubscribe.is_empty()
}

fn nack_of(request: &DeltaDiscoveryRequest) -> &str {
    &request.error_detail.as_ref().unwrap().message
}

fn tenants(nonce: &str, resources: &[Resource], removed: &[&str]) -> DeltaDiscoveryResponse {
    response(Kind::Tenant, nonce, resources, removed)
}

#[test]
pub(crate) fn what_can_be_used_is_acknowledged() {
    let mut client = wanting(&["acme"]);
    let ack = take(&mut client, tenants("n1", &[tenant("acme", 1)], &[]));
    assert!(is_ack(&ack, "n1"), "{ack:?}");
    assert_eq!(ack.type_url, Kind::Tenant.type_url());
    assert_eq!(known(&client), "acme=1");
}

#[test]
pub(crate) fn what_cannot_is_refused_and_the_version_before_stays() {
    let mut client = wanting(&["acme"]);
    take(&mut client, tenants("n1", &[tenant("acme", 1)], &[]));
    for nonce in ["n2", "n3"] {
        // The same fault again is refused again.
        let nack = take(&mut client, tenants(nonce, &[unusable_tenant("acme", 2)], &[]));
        assert_eq!(nack.response_nonce, nonce);
        assert_eq!(nack_of(&nack), "Tenant/acme: identity: must name at least one issuer: without one nobody can be this tenant");
        assert_eq!(known(&client), "acme=1");
    }
    let held: Vec<_> = client.held().map(|resource| resource.version.clone()).collect();
    assert_eq!(held, [tenant("acme", 1).version]);
    let ack = take(&mut client, tenants("n4", &[tenant("acme", 3)], &[]));
    assert!(is_ack(&ack, "n4"));
    assert_eq!(known(&client), "acme=3");
}

#[test]
pub(crate) fn a_first_response_that_cannot_be_used_leaves_nothing_in_force() {
    let mut client = wanting(&["acme"]);
    let nack = take(&mut client, tenants("n1", &[unusable_tenant("acme", 1)], &[]));
    assert!(nack.error_detail.is_some());
    assert_eq!(known(&client), "?acme");
    assert_eq!(client.held().count(), 0);
    assert!(client.connected()[0].initial_resource_versions.is_empty(), "nothing is claimed to be held");
    take(&mut client, tenants("n1", &[tenant("acme", 2)], &[]));
    assert_eq!(known(&client), "acme=2");
}

#[test]
pub(crate) fn what_can_be_used_of_a_response_is_used() {
    let mut client = wanting(&["acme", "globex", "initech"]);
    take(&mut client, tenants("n1", &[tenant("globex", 1)], &[]));
    let nack = take(&mut client, tenants("n2", &[tenant("acme", 2), unusable_tenant("globex", 2)], &["initech"]));
    assert_eq!(known(&client), "acme=2 globex=1 -initech");
    // And the details say which: the control plane takes the others as accepted.
    let details = &nack.error_detail.unwrap().details;
    let details = proto::Rejections::decode(details[0].value.as_slice()).unwrap();
    let listed: Vec<_> = details.rejections.iter().map(|r| (r.type_url.as_str(), r.name.as_str(), r.faults[0].path.as_str())).collect();
    assert_eq!(listed, [(Kind::Tenant.type_url(), "globex", "identity")]);
}

#[test]
pub(crate) fn whoever_applies_it_may_refuse_too() {
    let mut client = wanting(&["acme", "globex"]);
    let mut update = client.receive(tenants("n1", &[tenant("acme", 1), tenant("globex", 1)], &[]));
    let fault = Fault { path: "inbound[0].listen".into(), message: "is in use".into() };
    update.rejections.push(Rejection { kind: Kind::Tenant, name: "globex".into(), faults: vec![fault] });
    assert_eq!(known(&client), "", "nothing is in force before it is finished");
    let nack = client.finish(update).unwrap();
    assert_eq!(nack_of(&nack), "Tenant/globex: inbound[0].listen: is in use");
    assert_eq!(known(&client), "acme=1 ?globex");
}

#[test]
pub(crate) fn a_response_that_names_a_resource_twice_is_refused_whole() {
    let twice = [
        tenants("n2", &[tenant("acme", 2), tenant("acme", 3)], &[]),
        tenants("n2", &[tenant("globex", 2)], &["acme", "acme"]),
        tenants("n2", &[tenant("globex", 2), tenant("acme", 2)], &["acme"]),
    ];
    for response in twice {
        let mut client = wanting(&["acme", "globex"]);
        take(&mut client, tenants("n1", &[tenant("acme", 1)], &[]));
        let update = client.receive(response);
        assert_eq!(update.refused(), Some("Tenant \"acme\" stands twice in one response"));
        let nack = client.finish(update).unwrap();
        assert_eq!((nack.response_nonce.as_str(), nack_of(&nack)), ("n2", "Tenant \"acme\" stands twice in one response"));
        assert_eq!(known(&client), "acme=1", "nothing of it is used");
    }
}

#[test]
pub(crate) fn bodies_of_another_type_garbage_and_none_are_refused_alone() {
    let mut other = wire(&tenant("acme", 2));
    other.resource.as_mut().unwrap().type_url = Kind::Workload.type_url().into();
    let mut garbage = wire(&tenant("acme", 2));
    garbage.resource.as_mut().unwrap().value = vec![0xff; 9];
    let mut empty = wire(&tenant("acme", 2));
    empty.resource = None;
    let cases = [
        (other, "Tenant/acme: must be a type.googleapis.com/ringfence.v1.Tenant, not \"type.googleapis.com/ringfence.v1.Workload\""),
        (garbage, "Tenant/acme: cannot be decoded: "),
        (empty, "Tenant/acme: has no body"),
    ];
    for (resource, message) in cases {
        let mut client = wanting(&["acme", "globex"]);
        take(&mut client, tenants("n1", &[tenant("acme", 1)], &[]));
        let mut response = tenants("n2", &[tenant("globex", 1)], &[]);
        response.resources.push(resource);
        let nack = take(&mut client, response);
        assert!(nack_of(&nack).starts_with(message), "{}", nack_of(&nack));
        assert_eq!(known(&client), "acme=1 globex=1");
    }
}

#[test]
pub(crate) fn a_response_of_a_type_not_asked_for_is_refused() {
    let mut client = wanting(&["acme"]);
    let mut response = tenants("n1", &[tenant("acme", 1)], &[]);
    response.type_url = "type.example/none".into();
    let nack = take(&mut client, response);
    assert_eq!((nack.type_url.as_str(), nack_of(&nack)), ("type.example/none", "type \"type.example/none\" was not asked for"));
    assert_eq!(known(&client), "");
}

#[test]
pub(crate) fn what_was_not_asked_for_is_ignored() {
    let mut client = wanting(&["acme"]);
    let ack = take(&mut client, tenants("n1", &[tenant("acme", 1), tenant("globex", 1), unusable_tenant("initech", 1)], &[]));
    assert!(is_ack(&ack, "n1"), "what cannot be used of it is none of our business either");
    let ack = take(&mut client, tenants("n2", &[], &["globex", "nobody"]));
    assert!(is_ack(&ack, "n2"));
    assert_eq!(known(&client), "acme=1");
    assert_eq!(client.held().count(), 1);
}

#[test]
pub(crate) fn what_is_removed_is_gone_and_known_to_be_absent() {
    let mut client = wanting(&["acme", "globex"]);
    take(&mut client, tenants("n1", &[tenant("acme", 1)], &[]));
    assert_eq!(known(&client), "acme=1", "nothing is known of the other until it is told");
    assert!(is_ack(&take(&mut client, tenants("n2", &[], &["acme", "globex"])), "n2"));
    assert_eq!(known(&client), "-acme -globex");
    assert_eq!(client.held().count(), 0);
    take(&mut client, tenants("n3", &[tenant("acme", 2)], &[]));
    assert_eq!(known(&client), "acme=2 -globex");
}

#[test]
pub(crate) fn a_heartbeat_is_acknowledged_and_a_ttl_is_not_honoured() {
    let mut client = wanting(&["acme"]);
    let mut resource = wire(&tenant("acme", 1));
    resource.ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let mut response = tenants("n1", &[], &[]);
    response.resources.push(resource.clone());
    take(&mut client, response.clone());
    resource.resource = None;
    response.resources = vec![resource];
    response.nonce = "n2".into();
    let ack = take(&mut client, response);
    assert!(is_ack(&ack, "n2"), "{ack:?}");
    assert_eq!(known(&client), "acme=1");
}

#[test]
pub(crate) fn a_new_stream_is_told_all_that_is_wanted_and_held() {
    let mut client = Client::new("api");
    client.want(Kind::Platform, set(&["platform"]));
    client.want(Kind::Workload, set(&["api"]));
    client.want(Kind::Tenant, set(&["acme", "globex", "initech"]));
    client.connected();
    take(&mut client, response(Kind::Platform, "1", &[platform(1)], &[]));
    take(&mut client, tenants("2", &[tenant("acme", 1), tenant("globex", 1)], &["initech"]));
    // Refused: the version before is what is held.
    take(&mut client, tenants("3", &[unusable_tenant("globex", 2)], &[]));

    let requests = client.connected();
    let kinds: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(kinds, [Kind::Workload, Kind::Tenant, Kind::Platform].map(Kind::type_url), "no empty request: it would be a wildcard");
    assert_eq!(requests[1].resource_names_subscribe, ["acme", "globex", "initech"]);
    let version = |resource: Resource| (resource.name.to_string(), resource.version.to_string());
    assert_eq!(requests[1].initial_resource_versions, HashMap::from([version(tenant("acme", 1)), version(tenant("globex", 1))]));
    assert!(requests[0].initial_resource_versions.is_empty());
    for request in &requests {
        assert_eq!((request.response_nonce.as_str(), &request.error_detail), ("", &None), "nonces die with their stream");
    }
}

#[test]
pub(crate) fn the_node_is_named_in_the_first_request_of_each_stream() {
    let mut client = wanting(&["acme"]);
    client.want(Kind::Workload, set(&["api"]));
    for _ in 0..2 {
        let requests = client.connected();
        let nodes: Vec<_> = requests.iter().map(|request| request.node.as_ref().map(|node| node.id.as_str())).collect();
        assert_eq!(nodes, [Some("api"), None]);
        assert_eq!(take(&mut client, tenants("1", &[tenant("acme", 1)], &[])).node, None);
        assert_eq!(client.refresh(Kind::Tenant, "acme").unwrap().node, None);
    }
    // Also where nothing was wanted when the stream came up.
    let mut client = Client::new("api");
    assert_eq!(client.connected(), []);
    assert!(client.want(Kind::Tenant, set(&["acme"])).unwrap().node.is_some());
    assert!(client.want(Kind::Tenant, set(&["acme", "globex"])).unwrap().node.is_none());
}

#[test]
pub(crate) fn without_a_stream_what_is_held_stays() {
    let mut client = wanting(&["acme"]);
    take(&mut client, tenants("1", &[tenant("acme", 1)], &[]));
    for _ in 0..100 {
        client.connected();
        assert_eq!(known(&client), "acme=1");
    }
    client.want(Kind::Tenant, set(&["acme", "globex"]));
    assert_eq!(known(&client), "acme=1");
}

#[test]
pub(crate) fn an_earlier_run_is_taken_over() {
    let mut client = Client::new("api");
    let garbage = Resource::encoded(Kind::Tenant, "initech", vec![0xff].into());
    let rejections = client.restore([tenant("acme", 1), tenant("globex", 1), workload("api", &["acme"]), garbage]);
    assert_eq!(rejections.iter().map(|rejection| rejection.name.as_str()).collect::<Vec<_>>(), ["initech"]);
    client.want(Kind::Workload, set(&["api"]));
    client.want(Kind::Tenant, set(&["acme", "initech"]));
    assert_eq!(known(&client), "acme=1", "what is no longer wanted is forgotten");
    let requests = client.connected();
    assert_eq!(requests[1].initial_resource_versions, HashMap::from([("acme".into(), tenant("acme", 1).version.to_string())]));
    assert_eq!(requests[1].resource_names_subscribe, ["acme", "initech"]);
    assert_eq!(requests[0].initial_resource_versions.len(), 1);
}

#[test]
pub(crate) fn an_update_of_a_stream_that_ended_is_void() {
    let mut client = wanting(&["acme"]);
    let late = client.receive(tenants("1", &[tenant("acme", 1)], &[]));
    client.connected();
    take(&mut client, tenants("1", &[tenant("acme", 2)], &[]));
    assert_eq!(client.finish(late), None, "its nonce means another response by now");
    assert_eq!(known(&client), "acme=2");
}

#[test]
pub(crate) fn what_is_no_longer_wanted_is_forgotten() {
    let mut client = wanting(&["acme", "globex"]);
    let update = client.receive(tenants("1", &[tenant("acme", 1), tenant("globex", 1)], &["initech"]));
    let request = client.want(Kind::Tenant, set(&["acme"])).unwrap();
    assert_eq!((request.resource_names_subscribe.len(), request.resource_names_unsubscribe), (0, names(&["globex"])));
    assert!(is_ack(&client.finish(update).unwrap(), "1"));
    assert_eq!(known(&client), "acme=1", "nor does what was on its way come back");
    take(&mut client, tenants("2", &[], &["globex"]));
    assert_eq!(known(&client), "acme=1");
    client.want(Kind::Tenant, set(&[]));
    assert_eq!((known(&client).as_str(), client.held().count()), ("", 0));
}

#[test]
pub(crate) fn changes_of_what_is_wanted_are_told_by_difference() {
    let mut client = Client::new("api");
    client.connected();
    // (wanted, subscribe, unsubscribe); an empty request is never sent: as a first one it would be a wildcard.
    let steps: [(&[&str], &[&str], &[&str]); 7] = [
        (&[], &[], &[]),
        (&["acme"], &["acme"], &[]),
        (&["acme"], &[], &[]),
        (&["globex", "initech"], &["globex", "initech"], &["acme"]),
        (&["initech"], &[], &["globex"]),
        (&[], &[], &["initech"]),
        (&["acme"], &["acme"], &[]),
    ];
    for (wanted, subscribe, unsubscribe) in steps {
        let request = client.want(Kind::Tenant, set(wanted));
        let expected = !(subscribe.is_empty() && unsubscribe.is_empty());
        assert_eq!(request.is_some(), expected, "{wanted:?}");
        if let Some(request) = request {
            assert_eq!((request.resource_names_subscribe, request.resource_names_unsubscribe), (names(subscribe), names(unsubscribe)));
            assert!(request.initial_resource_versions.is_empty());
        }
    }
    client.want(Kind::Tenant, set(&[]));
    assert_eq!(client.connected(), [], "a new stream that wants nothing is asked nothing");
}

#[test]
pub(crate) fn a_refresh_asks_again_for_what_is_subscribed_to() {
    let mut client = wanting(&["acme"]);
    assert_eq!(client.refresh(Kind::Tenant, "globex"), None);
    let request = client.refresh(Kind::Tenant, "acme").unwrap();
    assert_eq!((request.resource_names_subscribe, request.resource_names_unsubscribe), (names(&["acme"]), names::<&str>(&[])));
}

#[test]
pub(crate) fn what_is_sent_again_unchanged_keeps_its_identity() {
    let policy = |client: &Client| match client.known(Kind::Tenant, "acme") {
        Some(Known::Held(Decoded::Tenant(policy))) => policy.clone(),
        other => panic!("{other:?}"),
    };
    let mut client = wanting(&["acme"]);
    take(&mut client, tenants("1", &[tenant("acme", 1)], &[]));
    let first = policy(&client);
    take(&mut client, tenants("2", &[tenant("acme", 1)], &[]));
    assert!(std::sync::Arc::ptr_eq(&first, &policy(&client)));
    take(&mut client, tenants("3", &[tenant("acme", 2)], &[]));
    assert!(!std::sync::Arc::ptr_eq(&first, &policy(&client)));
}

#[test]
fn a_servers_words_are_cut_in_a_nack() {
    let mut client = wanting(&["acme"]);
    let long = "x".repeat(1_000_000);
    let mut response = tenants("1", &[], &[]);
    response.type_url.clone_from(&long);
    assert!(nack_of(&take(&mut client, response)).len() < 200);
    let response = tenants("1", &[], &[&long, &long]);
    assert!(nack_of(&take(&mut client, response)).len() < 200);
}

#[test]
fn a_status_is_what_google_says_it_is() {
    // google.rpc.Status: code 1, message 2, details 3; INVALID_ARGUMENT is 3.
    let status = Status { code: 3, message: "m".into(), details: Vec::new() };
    assert_eq!(status.encode_to_vec(), [0x08, 3, 0x12, 1, b'm']);
}
