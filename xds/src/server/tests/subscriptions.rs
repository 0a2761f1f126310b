//! What is asked for is what is told.

use super::*;

#[test]
pub(crate) fn the_first_request_brings_what_it_names() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.stream.receive(tenants().subscribe(&["acme", "globex"]).0).unwrap();
    let responses = served.due();
    assert_eq!(responses.iter().map(told).collect::<Vec<_>>(), ["Tenant acme=1 globex=1"]);
    assert_eq!(responses[0].nonce, "1");
    assert!(responses[0].resources.iter().all(|resource| resource.version.len() == 32));
    // A version of the whole would date what others publish.
    assert_eq!(responses[0].system_version_info, "");
    assert_eq!(served.tell(), NOTHING);
}

#[test]
pub(crate) fn only_what_changed_is_sent() {
    let listed: Vec<String> = (0..100).map(|i| format!("t{i}")).collect();
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    let mut served = Served::new(&listed, &listed);
    served.send(tenants().subscribe(&listed));
    served.send(tenants().nonce("1"));
    assert_eq!(served.publish(tenant("t7", 2)), ["Tenant t7=2"]);
    assert_eq!(served.publish(tenant("t7", 2)), NOTHING, "the same content is no change");
}

#[test]
pub(crate) fn a_removal_is_told_once() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme", "globex"]));
    assert_eq!(served.withdraw(Kind::Tenant, "globex"), ["Tenant -globex"]);
    served.stream.touch_all();
    assert_eq!(served.tell(), NOTHING);
    assert_eq!(served.publish(tenant("globex", 1)), ["Tenant globex=1"], "it came back");
}

#[test]
pub(crate) fn an_unknown_name_is_told_absent_and_sent_when_it_comes() {
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    assert_eq!(served.send(tenants().subscribe(&["acme", "globex"])), ["Tenant acme=1", "Tenant -globex"]);
    assert_eq!(served.publish(tenant("globex", 1)), ["Tenant globex=1"]);
    let mut served = Served::new(&["globex"], &[]);
    assert_eq!(served.send(tenants().subscribe(&["globex"])), ["Tenant -globex"]);
}

#[test]
pub(crate) fn a_name_more_brings_that_name() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme"]));
    // As an ACK that asks for more, and by itself.
    assert_eq!(served.send(tenants().nonce("1").subscribe(&["globex"])), ["Tenant globex=1"]);
    assert_eq!(served.send(tenants().subscribe(&["initech"])), ["Tenant -initech"]);
}

#[test]
pub(crate) fn a_name_held_and_asked_for_again_is_answered() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme", "globex"]));
    assert_eq!(served.send(tenants().subscribe(&["acme"])), ["Tenant acme=1"]);
    assert_eq!(served.send(tenants().subscribe(&["globex"])), ["Tenant -globex"], "also if the answer is that there is none");
}

#[test]
pub(crate) fn a_name_sent_and_asked_for_again_is_to_be_refreshed() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    let none: [Event; 0] = [];
    served.send(tenants().subscribe(&["acme", "acme", "initech"]));
    assert_eq!(served.events, none, "the first request asks for nothing again");
    served.send(tenants().subscribe(&["globex", "globex"]));
    assert_eq!(served.events, none);
    served.ack();
    served.send(tenants().subscribe(&["initech", "foreign"]));
    assert_eq!(served.events, none, "there is none to be stale");
    served.send(tenants().subscribe(&["acme"]).unsubscribe(&["acme"]));
    assert_eq!(served.events, none, "asked for anew");
    served.ack();
    served.send(tenants().subscribe(&["acme", "globex", "acme", "foreign"]));
    assert_eq!(served.events, [Event::Refresh { kind: Kind::Tenant, names: vec!["acme".into(), "globex".into()] }]);
    let (_, nonce) = served.unanswered.pop().unwrap();
    served.send(tenants().nonce(&nonce).subscribe(&["acme"]));
    assert!(matches!(&served.events[..], [Event::Acked { .. }, Event::Refresh { .. }]), "also with an ACK: {:?}", served.events);
    served.withdraw(Kind::Tenant, "acme");
    served.send(tenants().subscribe(&["acme"]));
    assert_eq!(served.events, none, "it was told to be gone");
}

#[test]
pub(crate) fn what_is_no_longer_asked_for_is_no_longer_told() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme", "globex"]));
    assert_eq!(served.send(tenants().unsubscribe(&["globex"])), NOTHING);
    assert_eq!(served.publish(tenant("globex", 2)), NOTHING);
    assert_eq!(served.withdraw(Kind::Tenant, "globex"), NOTHING);
    assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
    // The last name gone is no wildcard begun, nor is the ACK that names nothing.
    assert_eq!(served.send(tenants().unsubscribe(&["acme"])), NOTHING);
    assert_eq!(served.send(tenants().nonce("2")), NOTHING);
    assert_eq!(served.publish(tenant("acme", 3)), NOTHING);
    assert_eq!(served.send(tenants().subscribe(&["acme"])), ["Tenant acme=3"], "and it may begin anew");
}

#[test]
pub(crate) fn a_change_still_unsent_is_dropped_with_its_subscription() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme", "globex"]));
    served.insert(tenant("acme", 2));
    assert_eq!(served.send(tenants().unsubscribe(&["acme"])), NOTHING);
}

#[test]
pub(crate) fn unsubscribing_what_was_never_asked_for_changes_nothing() {
    let mut served = Served::new(&["acme"], &["acme"]);
    assert_eq!(served.send(tenants().unsubscribe(&["globex"])), NOTHING, "and as a first request it is no wildcard");
    served.send(tenants().subscribe(&["acme"]));
    assert_eq!(served.send(tenants().unsubscribe(&["globex", "*"])), NOTHING);
    assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
}

#[test]
pub(crate) fn a_name_in_both_lists_is_asked_for_anew() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    assert_eq!(served.send(tenants().subscribe(&["acme"]).unsubscribe(&["acme"])), ["Tenant acme=1"]);
    assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
}

#[test]
pub(crate) fn an_empty_first_request_is_a_wildcard() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex", "initech"]);
    assert_eq!(served.send(tenants()), ["Tenant acme=1 globex=1"], "all that this node may see");
    assert_eq!(served.publish(tenant("globex", 2)), ["Tenant globex=2"]);
}

#[test]
pub(crate) fn a_wildcard_is_told_what_comes_and_goes() {
    let mut served = Served::new(&["*"], &["acme"]);
    assert_eq!(served.send(tenants().subscribe(&["*"])), ["Tenant acme=1"]);
    assert_eq!(served.publish(tenant("globex", 1)), ["Tenant globex=1"]);
    assert_eq!(served.withdraw(Kind::Tenant, "acme"), ["Tenant -acme"]);
    served.stream.touch_all();
    assert_eq!(served.tell(), NOTHING);
}

#[test]
pub(crate) fn a_wildcard_ends_and_the_names_stay() {
    let mut served = Served::new(&["*"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["*", "acme"]));
    assert_eq!(served.send(tenants().unsubscribe(&["*"])), NOTHING);
    assert_eq!(served.publish(tenant("initech", 1)), NOTHING);
    assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
    assert_eq!(served.send(tenants().subscribe(&["*"])), ["Tenant globex=1 initech=1"], "only what this client does not hold");
    served.insert(tenant("globex", 2));
    assert_eq!(served.send(tenants().unsubscribe(&["*"])), NOTHING, "nor what had changed before it ended");
}

#[test]
pub(crate) fn a_name_given_up_under_a_wildcard_is_answered_and_stays() {
    let mut served = Served::new(&["*"], &["acme"]);
    served.send(tenants().subscribe(&["*", "acme", "globex"]));
    assert_eq!(served.send(tenants().unsubscribe(&["acme"])), ["Tenant acme=1"]);
    assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
    served.ack();
    assert_eq!(served.send(tenants().unsubscribe(&["globex"])), ["Tenant -globex"]);
}

#[test]
pub(crate) fn the_node_is_named_first_and_bound() {
    let node = |id: Option<&str>| {
        let mut request = tenants().0;
        request.node = id.map(|id| crate::generated::discovery::Node { id: id.into(), ..Default::default() });
        request
    };
    let mut stream = Stream::default();
    assert_eq!(stream.introduce(&node(None)), Err(StreamError::NoNode));
    assert_eq!(stream.introduce(&node(Some(""))), Err(StreamError::NoNode));
    assert_eq!(stream.introduce(&node(Some("api"))), Ok(Some("api".into())));
    assert_eq!(stream.introduce(&node(None)), Ok(None));
    assert_eq!(stream.introduce(&node(Some("other"))), Ok(None), "a later node is not looked at");
}

#[test]
pub(crate) fn a_type_that_we_have_not_got_disturbs_nothing() {
    let mut served = Served::new(&["acme"], &["acme"]);
    let mut stranger = tenants().subscribe(&["acme"]);
    stranger.0.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
    assert_eq!(served.send(stranger), NOTHING);
    assert_eq!(served.send(tenants().subscribe(&["acme"])), ["Tenant acme=1"]);
    let mut untyped = tenants();
    untyped.0.type_url.clear();
    assert_eq!(served.stream.receive(untyped.0), Err(StreamError::NoType));
}
