//! What the control plane says of a custom resource.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::schema;

/// The object is in force as it is written; if not, it is as it was when it last was, if it ever was.
pub const ACCEPTED: &str = "Accepted";
/// Every connected sidecar that the object concerns has acknowledged it as it is written. Unknown where it concerns none: nobody enforces
/// it then, and nobody fails to.
pub const ENFORCED: &str = "Enforced";
/// What the object names elsewhere, a JWK set or a zone, could be had when it was last asked for. Of no other object.
pub const FETCHED: &str = "Fetched";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `metadata.generation` that the conditions are about.
    #[serde(default)]
    pub observed_generation: i64,
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Newest generation that every connected sidecar which it concerns has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_generation: Option<i64>,
    /// Sidecars that enforce what is written, of those connected that it concerns, e.g. 3/4.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sidecars: String,
    /// What is wrong with the object, and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Place>,
    /// What sidecars refused of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejections: Vec<Rejection>,
    /// What is in force instead of an object that is not accepted: for a control plane that starts meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_accepted: Option<LastAccepted>,
}

/// As in `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    pub name: String,
    /// True, False or Unknown.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    #[serde(default)]
    pub observed_generation: i64,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// One word in camel case.
    pub reason: String,
    #[schemars(length(max = 32_768))]
    pub message: String,
}

/// A field, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// From the object's root, e.g. `spec.limits[0].rate`; empty: the whole.
    pub path: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Whose sidecar it was.
    pub workload: String,
    pub path: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastAccepted {
    pub generation: i64,
    pub spec: serde_json::Map<String, Json>,
}

pub(super) fn schema() -> Json {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut status = schema::structural(&settings.into_generator().into_root_schema_for::<Status>().to_value());
    status["description"] = json!("What the control plane says of it.");
    status
}
