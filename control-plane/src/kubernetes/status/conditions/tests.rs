use serde_json::json;

use super::*;
use crate::kubernetes::crd::status::{LastAccepted, Rejection};

fn verdict(is_in_force: bool, faults: &[(&str, &str)]) -> Verdict {
    let faults = faults.iter().map(|(path, message)| Place { path: (*path).into(), message: (*message).into() }).collect();
    Verdict { uid: "u".into(), generation: 3, is_in_force, is_fed: false, faults, last_accepted: None }
}

/// `generation: enforcing/concerned` of each replica.
fn reports(texts: &[(i64, u32, u32)]) -> Vec<Acknowledged> {
    texts.iter().map(|(generation, enforcing, concerned)| Acknowledged::of("u", *generation, *enforcing, *concerned)).collect()
}

fn told(status: &Status, name: &str) -> (String, String, String) {
    let condition = status.conditions.iter().find(|condition| condition.name == name).unwrap();
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

#[test]
fn what_is_enforced_is_what_every_replicas_sidecars_acknowledged_of_this_generation() {
    let cases = [
        (true, vec![], ("Unknown", "NoSidecars", "no connected sidecar is concerned"), "", None),
        (true, vec![(3, 1, 1)], ("True", "Acknowledged", "1 of 1 sidecar"), "1/1", Some(3)),
        (true, vec![(3, 3, 3), (3, 1, 1)], ("True", "Acknowledged", "4 of 4 sidecars"), "4/4", Some(3)),
        (true, vec![(3, 2, 3), (3, 1, 1)], ("False", "Pending", "3 of 4 sidecars"), "3/4", None),
        // A replica that is behind speaks of what was before.
        (true, vec![(3, 3, 3), (2, 1, 1)], ("False", "Pending", "3 of 4 sidecars"), "3/4", None),
        (true, vec![(3, 3, 3), (0, 1, 1)], ("False", "Pending", "3 of 4 sidecars"), "3/4", None),
        (false, vec![(0, 3, 3)], ("False", "NotAccepted", "what is written is not in force"), "0/3", None),
        // The replica that writes has not taken it up; another has.
        (false, vec![(3, 1, 1)], ("False", "NotAccepted", "what is written is not in force"), "0/1", None),
    ];
    for (is_in_force, of, (state, reason, message), sidecars, acknowledged) in cases {
        let status = status(&Status::default(), &verdict(is_in_force, &[]), None, &reports(&of), "now");
        assert_eq!(told(&status, ENFORCED), (state.into(), reason.into(), message.into()), "{of:?}");
        assert_eq!((status.sidecars.as_str(), status.acknowledged_generation), (sidecars, acknowledged), "{of:?}");
    }
}

#[test]
fn a_fault_is_told_with_its_place_and_what_was_acknowledged_before_is_kept() {
    let before = Status { acknowledged_generation: Some(2), ..Status::default() };
    let mut verdict = verdict(false, &[("spec.limits[0].rate", "must be N/s"), ("", "is too large")]);
    verdict.last_accepted = Some(LastAccepted { generation: 2, spec: json!({ "peers": [] }).as_object().unwrap().clone() });
    let status = status(&before, &verdict, None, &reports(&[(0, 1, 1)]), "now");
    let message = "spec.limits[0].rate: must be N/s (and 1 more)";
    assert_eq!(told(&status, ACCEPTED), ("False".into(), "Invalid".into(), message.into()));
    assert_eq!((status.acknowledged_generation, status.faults.len()), (Some(2), 2));
    assert_eq!(status.last_accepted, verdict.last_accepted);
}

#[test]
fn what_a_sidecar_refused_is_told_with_its_place() {
    let rejection = Rejection { workload: "acme-api".into(), path: "spec.dns".into(), message: "is not built".into() };
    let refused = Acknowledged { rejections: vec![rejection.clone(), rejection.clone()], ..Acknowledged::of("u", 3, 0, 1) };
    let status = status(&Status::default(), &verdict(true, &[]), None, &[refused], "now");
    let message = "0 of 1 sidecar; refused by a sidecar of acme-api: spec.dns: is not built";
    assert_eq!(told(&status, ENFORCED), ("False".into(), "Refused".into(), message.into()));
    assert_eq!(status.rejections, [rejection]);
}

/// What is written again and again would be told to every watch.
#[test]
fn a_condition_keeps_its_time_until_it_turns_and_nothing_new_is_nothing_to_write() {
    let (all, none) = (reports(&[(3, 1, 1)]), reports(&[(3, 0, 1)]));
    let first = status(&Status::default(), &verdict(true, &[]), None, &all, "first");
    assert_eq!(status(&first, &verdict(true, &[]), None, &all, "later"), first);
    let turned = status(&first, &verdict(true, &[]), None, &none, "later");
    let times: Vec<&str> = turned.conditions.iter().map(|condition| condition.last_transition_time.as_str()).collect();
    assert_eq!(times, ["first", "later"]);
}

#[test]
fn what_cannot_be_fetched_is_told_of_what_is_fetched_alone() {
    let unfed = Place { path: "spec.jwks.uri".into(), message: "answered 503".into() };
    assert_eq!(status(&Status::default(), &verdict(true, &[]), Some(&unfed), &[], "now").conditions.len(), 2);
    let fed = Verdict { is_fed: true, ..verdict(true, &[]) };
    let of = |unfed| told(&status(&Status::default(), &fed, unfed, &[], "now"), FETCHED);
    assert_eq!(of(None), ("True".into(), "Fetched".into(), "what was fetched last is in force".into()));
    let message = "spec.jwks.uri: answered 503; what was fetched before stays";
    assert_eq!(of(Some(&unfed)), ("False".into(), "Unavailable".into(), message.into()));
}
