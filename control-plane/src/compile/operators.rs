//! `Platform.spec.operators`: what its fields must be, and that no tenant's users are operators by accident.

use std::collections::BTreeSet;

use super::issuers_of;
use crate::{
    admin::roles::Role,
    spec::{Fault, Object, OperatorSpec, Spec, quoted},
};

/// Longest `sub` of a token (as identify has it), in bytes.
const MAX_SUBJECT_BYTES: usize = 256;

pub(super) fn check(standing: &[(usize, &Object)], faults: &mut [Vec<Fault>]) {
    for &(i, object) in standing {
        let Spec::Platform(platform) = &object.spec else { continue };
        if platform.operators.is_empty() {
            continue;
        }
        let tenants = standing.iter().filter_map(|(_, object)| match &object.spec {
            Spec::Tenant(tenant) => Some(tenant),
            _ => None,
        });
        let of_tenants: BTreeSet<&str> = tenants.flat_map(issuers_of).collect();
        for (n, operator) in platform.operators.iter().enumerate() {
            for (field, message) in wrong(operator, &of_tenants) {
                faults[i].push(object.fault(format!("spec.operators[{n}]{field}"), message));
            }
        }
        // Both are at fault, so that whichever was edited is what has no effect: a tenant must not hold up the platform's edits.
        let of_operators: BTreeSet<&str> = platform.operators.iter().map(|operator| operator.issuer.as_str()).collect();
        for &(j, object) in standing {
            let Spec::Tenant(tenant) = &object.spec else { continue };
            for (n, _) in tenant.identity.iter().enumerate().filter(|(_, identity)| of_operators.contains(identity.issuer.as_str())) {
                let message = "vouches for the platform's operators, and so for no tenant: use another Issuer";
                faults[j].push(object.fault(format!("spec.identity[{n}].issuer"), message));
            }
        }
    }
}

fn wrong(operator: &OperatorSpec, of_tenants: &BTreeSet<&str>) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    let mut say = |field: &str, message: String| wrong.push((field.to_owned(), message));
    // Whoever vouches for tenants' users could make any of them an operator by a `sub`.
    if of_tenants.contains(operator.issuer.as_str()) {
        say(
            ".issuer",
            format!("{} vouches for tenants: operators need an Issuer of their own, with an audience of its own", quoted(&operator.issuer)),
        );
    }
    let role = Role::read(&operator.role, operator.tenant.as_deref());
    if let Err((field, message)) = role {
        say(field, message);
    }
    for (m, subject) in operator.subjects.iter().enumerate() {
        if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES || subject.chars().any(char::is_control) {
            say(&format!(".subjects[{m}]"), format!("must be 1 to {MAX_SUBJECT_BYTES} bytes without control characters"));
        }
    }
    wrong
}
