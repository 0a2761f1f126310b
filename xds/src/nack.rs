//! `error_detail` of a NACK: which resources of a response are refused, and where in them. The sidecar writes it, the control plane
//! reads it; both sides are bounded, whatever stands in a resource or is sent by a stranger.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use crate::{
    decode::{Fault, Rejection},
    generated::{discovery::Status, resource as proto},
    resource::Kind,
};

/// Type of the message in `details` that names the refused resources.
const TYPE_URL: &str = "type.googleapis.com/ringfence.v1.Rejections";
/// google.rpc.Code INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;
/// Faults told or kept of one NACK.
const MAX_FAULTS: usize = 256;
/// Rejections that the message spells out, for control planes that do not read `details`.
const MAX_SPELLED: usize = 8;
/// Longest text kept of what a peer says, in characters.
const MAX_TEXT: usize = 512;

/// Refuses a response as a whole: nothing of it is used.
pub(crate) fn whole(message: &str) -> Status {
    Status { code: INVALID_ARGUMENT, message: message.to_owned(), details: Vec::new() }
}

/// Refuses single resources. All of them are named, for the reader takes the others as accepted; past `MAX_FAULTS` without their faults.
pub(crate) fn write(rejections: &[Rejection]) -> Status {
    let mut message = rejections.iter().take(MAX_SPELLED).map(Rejection::to_string).collect::<Vec<_>>().join("; ");
    if rejections.len() > MAX_SPELLED {
        message.push_str(&format!("; and {} more", rejections.len() - MAX_SPELLED));
    }
    let mut room = MAX_FAULTS;
    let rejections = rejections.iter().map(|rejection| {
        let faults = &rejection.faults[..rejection.faults.len().min(room)];
        room -= faults.len();
        proto::Rejection {
            type_url: rejection.kind.type_url().into(),
            name: rejection.name.clone(),
            faults: faults.iter().map(|fault| proto::Fault { path: fault.path.clone(), message: fault.message.clone() }).collect(),
        }
    });
    let details = proto::Rejections { rejections: rejections.collect() };
    let details = prost_types::Any { type_url: TYPE_URL.into(), value: details.encode_to_vec() };
    Status { code: INVALID_ARGUMENT, message, details: vec![details] }
}

/// Which of the names in `told` a NACK refuses: those that its details name, or, from a client that gives none, all of them.
pub(crate) fn read(kind: Kind, detail: &Status, told: &BTreeSet<&str>) -> Vec<Rejection> {
    let mut room = MAX_FAULTS;
    let mut refused: BTreeMap<String, Vec<Fault>> = BTreeMap::new();
    let listed = detail
        .details
        .iter()
        .filter(|any| any.type_url == TYPE_URL)
        .filter_map(|any| proto::Rejections::decode(any.value.as_slice()).ok())
        .flat_map(|details| details.rejections)
        .filter(|rejection| rejection.type_url == kind.type_url() && told.contains(rejection.name.as_str()));
    for rejection in listed {
        let faults = refused.entry(rejection.name).or_default();
        let kept = rejection.faults.into_iter().take(room);
        let before = faults.len();
        faults.extend(kept.map(|fault| Fault { path: text(&fault.path), message: text(&fault.message) }));
        room -= faults.len() - before;
    }
    if refused.is_empty() {
        refused = told.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
    }
    let message = text(&detail.message);
    let rejection = |(name, mut faults): (String, Vec<Fault>)| {
        if faults.is_empty() {
            faults.push(Fault { path: String::new(), message: message.clone() });
        }
        Rejection { kind, name, faults }
    };
    refused.into_iter().map(rejection).collect()
}

/// A peer's words, fit to stand in a line of a log.
fn text(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(name: &str, faults: &[(&str, &str)]) -> Rejection {
        let fault = |(path, message): &(&str, &str)| Fault { path: (*path).into(), message: (*message).into() };
        Rejection { kind: Kind::Tenant, name: name.into(), faults: faults.iter().map(fault).collect() }
    }

    fn names(rejections: &[Rejection]) -> Vec<&str> {
        rejections.iter().map(|rejection| rejection.name.as_str()).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let written =
            [rejection("acme", &[("limits[0].rate", "must be a rate"), ("", "is odd")]), rejection("globex", &[("inFlight", "too many")])];
        let status = write(&written);
        assert_eq!(status.message, "Tenant/acme: limits[0].rate: must be a rate; Tenant/acme: is odd; Tenant/globex: inFlight: too many");
        assert_eq!(read(Kind::Tenant, &status, &BTreeSet::from(["acme", "globex", "initech"])), written);
    }

    #[test]
    fn only_what_the_response_told_can_be_refused() {
        let status = write(&[rejection("acme", &[("", "a")]), rejection("globex", &[("", "b")])]);
        assert_eq!(names(&read(Kind::Tenant, &status, &BTreeSet::from(["acme", "initech"]))), ["acme"]);
        // A list that names nothing of this response is no list.
        assert_eq!(names(&read(Kind::Issuer, &status, &BTreeSet::from(["acme", "initech"]))), ["acme", "initech"]);
    }

    #[test]
    fn a_nack_without_details_refuses_everything_with_its_message() {
        let garbage = prost_types::Any { type_url: TYPE_URL.into(), value: vec![0xff; 7] };
        let other = prost_types::Any { type_url: "type.googleapis.com/google.rpc.Help".into(), value: Vec::new() };
        for details in [vec![], vec![garbage], vec![other]] {
            let status = Status { code: 13, message: "no\nthanks".into(), details };
            assert_eq!(
                read(Kind::Tenant, &status, &BTreeSet::from(["acme", "globex"])),
                [rejection("acme", &[("", "nothanks")]), rejection("globex", &[("", "nothanks")])]
            );
        }
    }

    #[test]
    fn a_long_nack_names_every_resource_and_stays_small() {
        let faults: Vec<_> = (0..100).map(|_| ("limits[0].match.paths[1023]", "must be a path pattern")).collect();
        let written: Vec<_> = (0..4096).map(|i| rejection(&format!("t{i:060}"), &faults)).collect();
        let status = write(&written);
        assert!(status.message.ends_with("; and 4088 more"), "{}", status.message.len());
        assert!(status.encoded_len() < 1024 * 1024, "{}", status.encoded_len());
        let told = written.iter().map(|rejection| rejection.name.as_str()).collect();
        let read = read(Kind::Tenant, &status, &told);
        assert_eq!(read.len(), 4096);
        assert_eq!(read[0].faults.len(), 100);
        assert!(read.iter().all(|rejection| !rejection.faults.is_empty()));
    }

    #[test]
    fn a_strangers_words_are_cut() {
        let long = "x".repeat(100_000);
        let many: Vec<_> = (0..10_000).map(|_| (long.as_str(), "\r\n\0bad")).collect();
        let read = read(Kind::Tenant, &write_unbounded(&rejection("acme", &many[..300])), &BTreeSet::from(["acme"]));
        assert_eq!(read[0].faults.len(), MAX_FAULTS);
        assert!(read[0].faults.iter().all(|fault| fault.path.len() == MAX_TEXT && fault.message == "bad"));
    }

    /// As a peer would that keeps to no bound.
    fn write_unbounded(rejection: &Rejection) -> Status {
        let faults = rejection.faults.iter().map(|fault| proto::Fault { path: fault.path.clone(), message: fault.message.clone() });
        let listed =
            proto::Rejection { type_url: rejection.kind.type_url().into(), name: rejection.name.clone(), faults: faults.collect() };
        let value = proto::Rejections { rejections: vec![listed] }.encode_to_vec();
        Status { code: 3, message: String::new(), details: vec![prost_types::Any { type_url: TYPE_URL.into(), value }] }
    }
}
