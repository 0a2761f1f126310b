//! The schema of a kind -> a structural schema (apiextensions/v1): one type for each value, nothing but checks beside it.

use serde_json::{Map, Value as Json, json};

use super::status;
use crate::spec::{
    Kind,
    vocabulary::{FILE, RULES},
};

/// Where the types set no bound of their own. An API server estimates what a rule costs by the longest value there may be, and takes none
/// that could cost too much.
const MAX_ITEMS: u32 = 1024;
const MAX_LENGTH: u32 = 2048;

/// Of a whole object.
pub(super) fn of(kind: Kind) -> Json {
    let document = kind.schema();
    let name = match kind {
        Kind::Platform => {
            json!({ "rule": "self.metadata.name == 'platform'", "message": "must be named platform: there is one per installation" })
        }
        _ => json!({
            "rule": "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
            "message": "metadata.name must be a DNS label: 1 to 63 of a-z, 0-9 and '-', neither beginning nor ending with '-'",
        }),
    };
    json!({
        "type": "object",
        "description": document["properties"]["spec"]["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": structural(&document["properties"]["spec"]),
            "status": status::schema(),
        },
        RULES: [name],
    })
}

/// What [`schemars`] makes of a type -> what an API server takes.
pub(super) fn structural(schema: &Json) -> Json {
    // An optional field allows null too; that of a structure as a choice.
    let of = schema.get("anyOf").and_then(|choices| choices.get(0)).unwrap_or(schema);
    let kind = of["type"].as_str().or_else(|| of["type"][0].as_str()).unwrap_or("object");
    let mut read = Map::new();
    read.insert("type".into(), kind.into());
    let layers: &[&Json] = if std::ptr::eq(of, schema) { &[schema] } else { &[of, schema] };
    for from in layers {
        for keyword in ["description", "pattern", "enum", "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength"] {
            copy(from, keyword, &mut read);
        }
        for keyword in ["x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields"] {
            copy(from, keyword, &mut read);
        }
        // An empty list, false and null say no more than that the field is not there.
        if from.get("default").is_some_and(|default| default.is_string()) {
            copy(from, "default", &mut read);
        }
        from[RULES].as_array().into_iter().flatten().for_each(|rule| add_rule(&mut read, rule));
    }
    if let Some(choices) = of["oneOf"].as_array() {
        add_rule(&mut read, &exactly_one(of, choices));
    }
    if let Some(instead) = schema[FILE].as_str() {
        add_rule(&mut read, &json!({ "rule": "false", "message": instead }));
    }
    match kind {
        "object" => object(of, &mut read),
        "array" => {
            read.insert("items".into(), structural(&of["items"]));
            read.entry("maxItems").or_insert_with(|| MAX_ITEMS.into());
        }
        "string" if !read.contains_key("enum") => {
            read.entry("maxLength").or_insert_with(|| MAX_LENGTH.into());
        }
        "integer" => drop(read.insert("format".into(), "int64".into())),
        _ => {}
    }
    read.into()
}

fn object(of: &Json, read: &mut Map<String, Json>) {
    if let Some(fields) = of["properties"].as_object() {
        let fields: Map<String, Json> = fields.iter().map(|(name, field)| (name.clone(), structural(field))).collect();
        read.insert("properties".into(), fields.into());
        copy(of, "required", read);
    } else {
        // Whatever stands there, such as a JWK set as its publisher has it.
        read.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
}

fn copy(from: &Json, keyword: &str, to: &mut Map<String, Json>) {
    if let Some(value) = from.get(keyword) {
        to.insert(keyword.to_owned(), value.clone());
    }
}

fn add_rule(read: &mut Map<String, Json>, rule: &Json) {
    if let Some(rules) = read.entry(RULES).or_insert_with(|| json!([])).as_array_mut() {
        rules.push(rule.clone());
    }
}

/// `oneOf` has no message that says what would be right. Files do not count: they are refused where they stand.
fn exactly_one(of: &Json, choices: &[Json]) -> Json {
    let names = choices.iter().filter_map(|choice| choice["required"][0].as_str());
    let names: Vec<&str> = names.filter(|name| of["properties"][name].get(FILE).is_none()).collect();
    let present: Vec<String> = names.iter().map(|name| format!("(has(self.{name}) ? 1 : 0)")).collect();
    json!({ "rule": format!("{} == 1", present.join(" + ")), "message": format!("must have exactly one of {}", names.join(", ")) })
}
