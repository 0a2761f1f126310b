//! What bears our name already: ours from an earlier pass, or somebody else's.

use serde_json::Value;

/// What is to be done with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is what we would put there.
    Ours,
    /// It is, with additions: another webhook's, say, that adds to every container.
    Embellished,
    /// It is something else; the field that tells, relative to it.
    Foreign(String),
}

/// What the API server adds to, where a LimitRange knows of more than CPU and memory.
const RESOURCES: &str = ".resources";

pub(super) fn compare(found: &Value, wanted: &Value) -> Found {
    let mut embellished = false;
    match differs(found, wanted, String::new(), &mut embellished) {
        Some(field) => Found::Foreign(field),
        None if embellished => Found::Embellished,
        None => Found::Ours,
    }
}

/// Where `found` lacks what is wanted.
fn differs(found: &Value, wanted: &Value, at: String, embellished: &mut bool) -> Option<String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let is_added = |(name, value): (&String, &Value)| !wanted.contains_key(name) && !value.is_null();
            *embellished |= !at.starts_with(RESOURCES) && found.iter().any(is_added);
            wanted.iter().find_map(|(name, wanted)| {
                let at = format!("{at}.{name}");
                match found.get(name) {
                    Some(found) => differs(found, wanted, at, embellished),
                    // Where none are wanted they need not be there.
                    None if at == RESOURCES && wanted.as_object().is_some_and(serde_json::Map::is_empty) => None,
                    None => Some(at),
                }
            })
        }
        // Lists of named things may have been added to; others are what they are.
        (Value::Array(found), Value::Array(wanted)) if wanted.iter().all(|wanted| wanted.get("name").is_some()) => {
            *embellished |= found.len() != wanted.len();
            wanted.iter().enumerate().find_map(|(i, wanted)| match find(found, wanted) {
                Some(found) => differs(found, wanted, format!("{at}[{i}]"), embellished),
                None => Some(format!("{at}[{i}]")),
            })
        }
        _ => (found != wanted).then_some(at),
    }
}

fn find<'a>(found: &'a [Value], wanted: &Value) -> Option<&'a Value> {
    // Two mounts of one volume, or none of the kind: told apart by where they are.
    let key = |value: &Value| (value.get("name").cloned(), value.get("mountPath").cloned());
    found.iter().find(|found| key(found) == key(wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_bears_our_name_is_ours_embellished_or_foreign() {
        let wanted =
            json!({"name": "p", "args": ["run"], "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "1"}}, "s": {}});
        let with = |path: &str, value: Value| {
            let mut found = wanted.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            match found.pointer_mut(parent).unwrap() {
                Value::Array(items) => items.push(value),
                parent => parent[key] = value,
            }
            compare(&found, &wanted)
        };
        let foreign = |field: &str| Found::Foreign(field.into());
        assert_eq!(compare(&wanted, &wanted), Found::Ours);
        assert_eq!(with("/lifecycle", Value::Null), Found::Ours);
        assert_eq!(with("/resources/limits/ephemeral-storage", json!("1Gi")), Found::Ours);
        assert_eq!(with("/lifecycle", json!({"postStart": {}})), Found::Embellished);
        assert_eq!(with("/env/-", json!({"name": "B"})), Found::Embellished);
        assert_eq!(with("/args/-", json!("--more")), foreign(".args"));
        assert_eq!(with("/env", json!([{"name": "A", "value": "2"}])), foreign(".env[0].value"));
        assert_eq!(with("/env", json!([])), foreign(".env[0]"));
        assert_eq!(with("/env", json!("A")), foreign(".env"));
        assert_eq!(with("/resources/limits", json!({"cpu": "9"})), foreign(".resources.limits.cpu"));
        assert_eq!(with("/args", Value::Null), foreign(".args"));
        assert_eq!(compare(&json!({"hostPath": {}}), &json!({"emptyDir": {}})), foreign(".emptyDir"));
    }
}
