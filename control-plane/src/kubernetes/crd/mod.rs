//! The kinds as custom resources, generated from the types that the YAML files are read by.
//!
//! Unknown fields: an API server prunes them, and refuses them where it is asked to be strict (`kubectl` asks by default). What a schema
//! cannot say is told in `status`, by the same decoder that reads files.

mod schema;
pub mod status;

use serde_json::{Value as Json, json};

use crate::spec::{API_VERSION, Kind};

/// What the API server has to know of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub plural: &'static str,
    pub singular: &'static str,
    pub short: &'static str,
}

impl Names {
    pub const fn of(kind: Kind) -> Self {
        let (plural, singular, short) = match kind {
            Kind::Platform => ("platforms", "platform", "rfp"),
            Kind::Issuer => ("issuers", "issuer", "rfi"),
            Kind::PolicyZone => ("policyzones", "policyzone", "rpz"),
            Kind::Tenant => ("tenants", "tenant", "rft"),
            Kind::Workload => ("workloads", "workload", "rfw"),
        };
        Self { plural, singular, short }
    }
}

/// Group and version of [`API_VERSION`].
pub fn group_version() -> (&'static str, &'static str) {
    API_VERSION.split_once('/').unwrap_or((API_VERSION, ""))
}

/// The CustomResourceDefinition of a kind.
pub fn definition(kind: Kind) -> Json {
    let (group, version) = group_version();
    let Names { plural, singular, short } = Names::of(kind);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}"), "labels": { "app.kubernetes.io/part-of": "ringfence" } },
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {
                "kind": kind.as_str(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": singular,
                "shortNames": [short],
                "categories": ["ringfence"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": schema::of(kind) },
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns(kind),
            }],
        },
    })
}

/// All of them as YAML, in the order of [`Kind::ALL`].
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    let each = Kind::ALL.iter().map(|kind| one_as_yaml(*kind)).collect::<Result<Vec<_>, _>>()?;
    Ok(each.join("---\n"))
}

pub fn one_as_yaml(kind: Kind) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(&definition(kind))
}

/// What `kubectl get` shows; `-o wide` shows those of priority 1 too.
fn columns(kind: Kind) -> Vec<Json> {
    let column = |name: &str, path: &str, priority: u8| json!({ "name": name, "type": "string", "jsonPath": path, "priority": priority });
    let own = match kind {
        Kind::Platform => Vec::new(),
        Kind::Issuer => vec![column("Issuer", ".spec.issuer", 0), column("JWKS", ".spec.jwks.uri", 1)],
        Kind::PolicyZone => vec![column("Override", ".spec.override", 0), column("Primary", ".spec.transfer.primary", 1)],
        Kind::Tenant => vec![column("Display name", ".spec.displayName", 1)],
        Kind::Workload => vec![column("Tenant", ".spec.tenant", 0), column("Tenants", ".spec.tenants", 1)],
    };
    let condition = |name: &str, what: &str| format!(".status.conditions[?(@.type==\"{name}\")].{what}");
    let state = [
        column("Accepted", &condition(status::ACCEPTED, "status"), 0),
        column("Enforced", &condition(status::ENFORCED, "status"), 0),
        column("Sidecars", ".status.sidecars", 0),
        column("Reason", &condition(status::ACCEPTED, "message"), 1),
        json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }),
    ];
    own.into_iter().chain(state).collect()
}

#[cfg(test)]
mod tests;
