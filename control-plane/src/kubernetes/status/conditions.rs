//! A verdict and the replicas' reports -> the status of one object.

use super::report::Acknowledged;
use crate::{
    kubernetes::crd::status::{ACCEPTED, Condition, ENFORCED, FETCHED, Place, Status},
    store::kube::ledger::Verdict,
};

/// Refusals told of one object.
const MAX_REJECTIONS: usize = 16;

/// `before`: as it stands there; what has not changed in it keeps its time.
pub(super) fn status(before: &Status, verdict: &Verdict, unfed: Option<&Place>, reports: &[Acknowledged], now: &str) -> Status {
    let generation = verdict.generation;
    let condition = |name: &str, (status, reason, message): (&str, &str, String)| {
        let old = before.conditions.iter().find(|condition| condition.name == name);
        let since = old.filter(|old| old.status == status).map_or(now, |old| &old.last_transition_time);
        Condition {
            name: name.to_owned(),
            status: status.to_owned(),
            observed_generation: generation,
            last_transition_time: since.to_owned(),
            reason: reason.to_owned(),
            message,
        }
    };
    let sum = |of: fn(&Acknowledged) -> u32| reports.iter().map(of).sum::<u32>();
    let concerned = sum(|report| report.concerned);
    // A replica that has not taken this generation up speaks of another.
    let current: Vec<&Acknowledged> = reports.iter().filter(|report| report.generation == generation).collect();
    let enforcing = if verdict.is_in_force { current.iter().map(|report| report.enforcing).sum() } else { 0 };
    let mut rejections: Vec<_> = reports.iter().flat_map(|report| report.rejections.iter().cloned()).collect();
    rejections.sort();
    rejections.dedup();
    rejections.truncate(MAX_REJECTIONS);
    let is_enforced = verdict.is_in_force && concerned > 0 && enforcing == concerned;
    let sidecars = |n: u32| format!("{n} of {concerned} {}", if concerned == 1 { "sidecar" } else { "sidecars" });
    let enforced = match () {
        () if !verdict.is_in_force => ("False", "NotAccepted", "what is written is not in force".to_owned()),
        () if concerned == 0 => ("Unknown", "NoSidecars", "no connected sidecar is concerned".to_owned()),
        () if is_enforced => ("True", "Acknowledged", sidecars(enforcing)),
        () => match rejections.first() {
            Some(first) => {
                let place = said(&Place { path: first.path.clone(), message: first.message.clone() });
                ("False", "Refused", format!("{}; refused by a sidecar of {}: {place}", sidecars(enforcing), first.workload))
            }
            None => ("False", "Pending", sidecars(enforcing)),
        },
    };
    let fetched = match unfed {
        None => ("True", "Fetched", "what was fetched last is in force".to_owned()),
        Some(place) => ("False", "Unavailable", format!("{}; what was fetched before stays", said(place))),
    };
    let fetched = verdict.is_fed.then(|| condition(FETCHED, fetched));
    let conditions = [condition(ACCEPTED, accepted(verdict)), condition(ENFORCED, enforced)].into_iter().chain(fetched).collect();
    Status {
        observed_generation: generation,
        conditions,
        acknowledged_generation: if is_enforced { Some(generation) } else { before.acknowledged_generation },
        sidecars: if concerned == 0 { String::new() } else { format!("{enforcing}/{concerned}") },
        faults: verdict.faults.clone(),
        rejections,
        last_accepted: verdict.last_accepted.clone(),
    }
}

fn accepted(verdict: &Verdict) -> (&'static str, &'static str, String) {
    let more = match verdict.faults.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    match (verdict.is_in_force, verdict.faults.first()) {
        (true, _) => ("True", "Accepted", "in force as it is written".to_owned()),
        (false, Some(first)) => ("False", "Invalid", format!("{}{more}", said(first))),
        // It goes with others that are at fault.
        (false, None) => ("False", "Waiting", "waits for an object that it refers to, or that refers to it, to be mended".to_owned()),
    }
}

fn said(place: &Place) -> String {
    if place.path.is_empty() { place.message.clone() } else { format!("{}: {}", place.path, place.message) }
}

#[cfg(test)]
mod tests;
