//! Wildcards under which anyone may have a name: no rule may mean them without saying so.
//!
//! Both halves of the Public Suffix List count. Below a registry's suffix (`co.uk`) anyone registers a name, and below a provider's
//! (`s3.amazonaws.com`, `github.io`) anyone opens an account: either way a stranger's server would be on the tenant's list. A suffix that the
//! list does not know (`svc`, `internal`, `corp`) belongs to whoever runs the resolver, and may be named.
//!
//! Known to the control plane alone: the list ages, and a sidecar must not refuse what an older or newer control plane accepted.

use ringfence_xds::policy::host::{HostName, HostPattern};

use crate::spec::{Fault, Object, Spec, quoted};

pub(super) fn check(object: &Object, faults: &mut Vec<Fault>) {
    let Spec::Tenant(tenant) = &object.spec else { return };
    let rules = tenant.egress.iter().flat_map(|egress| &egress.allow).enumerate();
    for (i, rule) in rules.filter(|(_, rule)| !rule.dangerous_public_suffix) {
        for (j, text) in rule.hosts.iter().flatten().enumerate() {
            // What is no pattern is the decoder's to tell.
            let Ok(HostPattern::Below(suffix)) = text.parse() else { continue };
            if is_public(&suffix) {
                faults.push(object.fault(
                    format!("spec.egress.allow[{i}].hosts[{j}]"),
                    format!(
                        "{} is whatever anyone has under the public suffix {suffix}: name the hosts, or write dangerousPublicSuffix: true",
                        quoted(text)
                    ),
                ));
            }
        }
    }
}

fn is_public(name: &HostName) -> bool {
    let name = name.as_str().as_bytes();
    psl::suffix(name).is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_list_knows_is_public() {
        let public = ["com", "uk", "co.uk", "xn--p1ai", "github.io", "s3.amazonaws.com", "foo.ck"];
        let not = ["example.com", "www.ck", "amazonaws.com", "svc", "internal", "cluster.local", "svc.cluster.local", "stripe.com"];
        for (names, wanted) in [(&public[..], true), (&not[..], false)] {
            for name in names {
                assert_eq!(is_public(&name.parse().unwrap()), wanted, "{name}");
            }
        }
    }
}
