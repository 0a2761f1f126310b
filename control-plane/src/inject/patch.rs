//! What was changed, as a JSON Patch (RFC 6902).

use serde::Serialize;
use serde_json::Value;

/// `add`, which takes the place of a member that is there (§4.1), or `remove`.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Operation<'a> {
    Add { path: String, value: &'a Value },
    Remove { path: String },
}

/// One operation for each field of the pod's `spec` that differs; injection changes nothing else. Whole fields, because the order of init
/// containers is what it is about.
pub(super) fn of_spec<'a>(before: &Value, after: &'a Value) -> Vec<Operation<'a>> {
    let (Some(before), Some(after)) = (before["spec"].as_object(), after["spec"].as_object()) else { return Vec::new() };
    let path = |field: &str| format!("/spec/{}", field.replace('~', "~0").replace('/', "~1"));
    let removed = before.keys().filter(|field| !after.contains_key(*field)).map(|field| Operation::Remove { path: path(field) });
    let changed = after.iter().filter(|(field, value)| before.get(*field) != Some(value));
    removed.chain(changed.map(|(field, value)| Operation::Add { path: path(field), value })).collect()
}
