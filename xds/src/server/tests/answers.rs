//! ACK, NACK, and answers that come late.

use super::*;
use crate::seal::SigningKey;
use crate::{decode::Fault, decode::Rejection, nack};

fn acked(names: &[&str]) -> Event {
    Event::Acked { kind: Kind::Tenant, names: crate::tests::fixtures::names(names) }
}

fn rejected(names: &[&str], message: &str) -> Event {
    Event::Rejected(names.iter().map(|name| rejection(name, message)).collect())
}

fn rejection(name: &str, message: &str) -> Rejection {
    Rejection { kind: Kind::Tenant, name: name.into(), faults: vec![Fault { path: String::new(), message: message.into() }] }
}

#[test]
pub(crate) fn an_ack_is_not_answered() {
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    served.send(tenants().subscribe(&["acme", "globex"]));
    assert_eq!(served.acked(), NOTHING, "what was sent is not yet in force");
    assert_eq!(served.send(tenants().nonce("1")), NOTHING);
    assert_eq!(served.events, [acked(&["acme"])]);
    assert_eq!(served.send(tenants().nonce("2")), NOTHING);
    assert_eq!(served.events, [acked(&["globex"])], "its absence was acknowledged");
    assert_eq!(served.acked(), [format!("Tenant/acme@{}", served.version(Kind::Tenant, "acme"))]);
    assert_eq!(served.send(tenants().nonce("1")), NOTHING);
    assert_eq!(served.events, [], "an answer given twice is heard once");
}

#[test]
pub(crate) fn a_nack_is_not_answered_until_something_changes() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    served.send(tenants().nonce("1"));
    let first = served.acked();
    assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
    assert_eq!(served.send(tenants().nonce("2").nack("no")), NOTHING);
    assert_eq!(served.events, [rejected(&["acme"], "no")]);
    assert_eq!(served.acked(), first, "the version before stays in force");
    assert!(!served.stream.in_sync(&served.view()));
    served.stream.touch(Kind::Tenant, "acme", &served.set.view(NODE));
    assert_eq!(served.tell(), NOTHING, "no hot loop");
    assert_eq!(served.publish(tenant("acme", 3)), ["Tenant acme=3"]);
    assert_eq!(served.send(tenants().nonce("3")), NOTHING);
    assert_eq!(served.events, [acked(&["acme"])]);
    assert_eq!(served.acked(), [format!("Tenant/acme@{}", served.version(Kind::Tenant, "acme"))]);
}

#[test]
pub(crate) fn an_edit_taken_back_after_a_nack_is_in_force_again() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    served.send(tenants().nonce("1"));
    served.publish(tenant("acme", 2));
    served.send(tenants().nonce("2").nack("no"));
    assert_eq!(served.publish(tenant("acme", 1)), ["Tenant acme=1"]);
    served.send(tenants().nonce("3"));
    assert_eq!(served.events, [acked(&["acme"])]);
}

/// Of the same content by an earlier seal the client says that it is outdated: the version is that which was refused.
#[test]
fn what_was_refused_for_its_age_is_told_again_when_it_is_signed_anew() {
    let key = SigningKey::generate().unwrap().0;
    let at = |epoch| key.seal(tenant("acme", 2), epoch).unwrap();
    let mut served = Served::new(&["acme"], &[]);
    served.insert(at(1));
    assert_eq!(served.send(tenants().subscribe(&["acme"])), ["Tenant acme=2"]);
    assert_eq!(served.send(tenants().nonce("1").nack("outdated")), NOTHING);
    served.stream.touch_all();
    assert_eq!(served.tell(), NOTHING);
    let sign_anew = |served: &mut Served, epoch| {
        served.insert(at(epoch));
        served.stream.touch_all();
        served.tell()
    };
    assert_eq!(sign_anew(&mut served, 2), ["Tenant acme=2"]);
    served.send(tenants().nonce("2"));
    assert_eq!(served.acked(), [format!("Tenant/acme@{}", served.version(Kind::Tenant, "acme"))]);
    assert_eq!(sign_anew(&mut served, 3), NOTHING, "it has that");
}

#[test]
pub(crate) fn a_nack_that_names_resources_accepts_the_others() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme", "globex"]));
    let mut answer = tenants().nonce("1");
    answer.0.error_detail = Some(nack::write(&[rejection("globex", "cannot be read"), rejection("initech", "was not sent")]));
    assert_eq!(served.send(answer), NOTHING);
    assert_eq!(served.events, [acked(&["acme"]), rejected(&["globex"], "cannot be read")]);
    assert_eq!(served.acked(), [format!("Tenant/acme@{}", served.version(Kind::Tenant, "acme"))]);
}

#[test]
pub(crate) fn answers_may_come_in_any_order() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme"]));
    served.send(tenants().subscribe(&["globex"]));
    served.send(tenants().nonce("2"));
    assert_eq!(served.events, [acked(&["globex"])]);
    served.send(tenants().nonce("1"));
    assert_eq!(served.events, [acked(&["acme"])]);
    assert_eq!(served.acked().len(), 2);
}

#[test]
pub(crate) fn an_answer_to_a_version_sent_anew_is_no_news() {
    for refuse in [false, true] {
        let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
        served.send(tenants().subscribe(&["acme", "globex"]));
        assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
        served.send(tenants().nonce("2"));
        let late = tenants().nonce("1");
        served.send(if refuse { late.nack("no") } else { late });
        let expected = if refuse { rejected(&["globex"], "no") } else { acked(&["globex"]) };
        assert_eq!(served.events, [expected]);
        assert!(served.acked().contains(&format!("Tenant/acme@{}", served.version(Kind::Tenant, "acme"))));
    }
}

#[test]
pub(crate) fn a_version_accepted_late_is_in_force_while_the_next_is_refused() {
    for order in [["1", "2"], ["2", "1"]] {
        let mut served = Served::new(&["acme"], &["acme"]);
        served.send(tenants().subscribe(&["acme"]));
        let first = served.version(Kind::Tenant, "acme");
        served.publish(tenant("acme", 2));
        for nonce in order {
            let answer = tenants().nonce(nonce);
            served.send(if nonce == "2" { answer.nack("no") } else { answer });
        }
        assert_eq!(served.acked(), [format!("Tenant/acme@{first}")]);
        assert!(!served.stream.in_sync(&served.view()));
    }
}

#[test]
pub(crate) fn a_stale_nonce_is_no_answer_but_its_subscription_counts() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    served.send(tenants().subscribe(&["acme"]));
    for nonce in ["7", "0", "", "-1", "1x", "99999999999999999999999999"] {
        assert_eq!(served.send(tenants().nonce(nonce).nack("no")), NOTHING);
        assert_eq!(served.events, [], "{nonce}");
    }
    assert_eq!(served.send(tenants().nonce("7").subscribe(&["globex"])), ["Tenant globex=1"]);
    assert_eq!(served.events, []);
}

#[test]
pub(crate) fn an_answer_for_what_was_given_up_is_forgotten() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    served.send(tenants().unsubscribe(&["acme"]));
    served.send(tenants().nonce("1"));
    assert_eq!((served.events.as_slice(), served.acked().as_slice()), ([].as_slice(), [].as_slice()));
}

/// Given up and asked for again before the client looked at the response that was on its way: that one it takes, and refuses the next. There
/// is no room to send that until the first is answered.
#[test]
pub(crate) fn an_answer_that_comes_before_what_was_asked_for_again_is_sent_counts() {
    let mut served = Served::new(&["acme", "globex"], &["acme", "globex"]);
    let first = served.version(Kind::Tenant, "acme");
    served.send(tenants().subscribe(&["acme"]));
    served.send(tenants().subscribe(&["globex"]));
    for version in 2..4 {
        served.publish(tenant("globex", version));
    }
    served.send(tenants().unsubscribe(&["acme"]));
    served.publish(tenant("acme", 2));
    assert_eq!(served.send(tenants().subscribe(&["acme"])), NOTHING);
    assert_eq!(served.send(tenants().nonce("1")), ["Tenant acme=2"]);
    served.send(tenants().nonce("5").nack("no"));
    assert_eq!(served.acked(), [format!("Tenant/acme@{first}")]);
    assert!(!served.stream.in_sync(&served.view()));
}

#[test]
pub(crate) fn kinds_are_independent() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    assert_eq!(served.send(request(Kind::Workload).subscribe(&[NODE])), ["Workload api"]);
    // Response 2 was the Workload's: as an answer about Tenants it is none.
    served.send(tenants().nonce("2").nack("no"));
    assert_eq!(served.events, []);
    served.send(request(Kind::Workload).nonce("2").nack("no"));
    assert!(matches!(&served.events[..], [Event::Rejected(r)] if r[0].kind == Kind::Workload));
    served.send(tenants().nonce("1"));
    assert_eq!(served.events, [acked(&["acme"])]);
    assert_eq!(served.publish(tenant("acme", 2)), ["Tenant acme=2"]);
}

#[test]
pub(crate) fn streams_of_one_node_are_independent() {
    let mut served = Served::new(&["acme"], &["acme"]);
    served.send(tenants().subscribe(&["acme"]));
    let mut other = Stream::default();
    other.receive(tenants().subscribe(&["acme"]).0).unwrap();
    let told: Vec<_> = other.due(&served.view()).iter().map(told).collect();
    assert_eq!(told, ["Tenant acme=1"]);
    served.ack();
    assert_eq!((served.acked().len(), other.acked().count()), (1, 0));
}

#[test]
pub(crate) fn what_is_referred_to_goes_first_and_leaves_last() {
    let mut served = Served::new(&["acme"], &["acme"]);
    for (kind, name) in [(Kind::Workload, NODE), (Kind::Tenant, "acme"), (Kind::Tenant, "globex"), (Kind::Platform, "platform")] {
        served.send(request(kind).subscribe(&[name]));
    }
    served.ack();
    served.insert(tenant("globex", 1));
    served.insert(workload(NODE, &["globex"]));
    served.insert(platform(2));
    assert_eq!(served.tell(), ["Platform platform=2", "Tenant globex=1", "Workload api", "Tenant -acme"]);
    served.ack();
    assert_eq!(
        served.withdraw(Kind::Workload, NODE),
        ["Workload -api", "Tenant -globex", "Platform -platform"],
        "who has no workload sees nothing"
    );
}

#[test]
pub(crate) fn in_sync_means_acknowledged_in_the_present_version() {
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    let mut steps = vec![(Kind::Platform, "platform"), (Kind::Workload, NODE), (Kind::Issuer, "sso"), (Kind::Tenant, "acme")];
    steps.push((Kind::Tenant, "globex"));
    for (nonce, (kind, name)) in (1..).zip(steps) {
        assert!(!served.stream.in_sync(&served.view()), "{kind} {name} was not asked for");
        assert_eq!(served.send(request(kind).subscribe(&[name])).len(), 1);
        assert!(!served.stream.in_sync(&served.view()), "{kind} {name} was not acknowledged, be it there or absent");
        served.send(request(kind).nonce(&nonce.to_string()));
    }
    assert!(served.stream.in_sync(&served.view()));
    served.set.insert(tenant("initech", 1));
    served.stream.touch(Kind::Tenant, "initech", &served.set.view(NODE));
    assert!(served.stream.in_sync(&served.view()), "of no concern to this node");
    served.publish(tenant("acme", 2));
    assert!(!served.stream.in_sync(&served.view()));
    served.send(tenants().nonce("6"));
    assert!(served.stream.in_sync(&served.view()));
    served.withdraw(Kind::Tenant, "acme");
    assert!(!served.stream.in_sync(&served.view()));
    served.send(tenants().nonce("7"));
    assert!(served.stream.in_sync(&served.view()));
}

#[test]
pub(crate) fn a_wildcard_is_in_sync_without_being_told_of_what_never_was() {
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    for (nonce, kind) in [("1", Kind::Platform), ("2", Kind::Workload), ("", Kind::Issuer), ("3", Kind::Tenant)] {
        served.send(request(kind));
        served.send(request(kind).nonce(nonce));
    }
    assert!(served.stream.in_sync(&served.view()));
}

#[test]
fn without_its_workload_nobody_is_in_sync() {
    let mut served = Served::new(&["acme", "globex"], &["acme"]);
    for (nonce, kind) in [("1", Kind::Platform), ("2", Kind::Workload), ("", Kind::Issuer), ("3", Kind::Tenant)] {
        served.send(request(kind));
        served.send(request(kind).nonce(nonce));
    }
    assert!(served.stream.in_sync(&served.view()));
    let told = served.withdraw(Kind::Workload, NODE);
    for nonce in 4..4 + told.len() {
        for kind in Kind::ALL {
            served.send(request(kind).nonce(&nonce.to_string()));
        }
    }
    assert!(!served.stream.in_sync(&served.view()), "what it enforces is not published any more");
}
