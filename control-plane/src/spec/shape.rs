//! A document against the schema of its kind: fields, types, counts. Every fault is told, not the first alone, which is why this
//! stands before serde and not inside it: a deserializer ends at its first error.

use std::collections::HashMap;

use serde_json::{Map, Number, Value as Json};

use super::{
    fault::{Position, quoted},
    position::{push_field, push_index},
    yaml::{Node, Value},
};

/// A fault without the object that it is in.
pub(super) struct Misshapen {
    pub(super) at: Position,
    pub(super) path: String,
    pub(super) message: String,
}

/// Every fault of `root`, and, unless a value that its type needs is faulty or missing, the JSON that the type deserializes from:
/// a field too many is a fault, but it takes nothing away, so that the rest can be looked at further.
pub(super) fn check(root: &Node, schema: &Json) -> (Option<Json>, Vec<Misshapen>) {
    let mut check = Check { path: String::new(), faults: Vec::new() };
    (check.value(root, schema), check.faults)
}

struct Check {
    path: String,
    faults: Vec<Misshapen>,
}

impl Check {
    fn fault(&mut self, at: Position, message: impl Into<String>) -> Option<Json> {
        self.faults.push(Misshapen { at, path: self.path.clone(), message: message.into() });
        None
    }

    /// `None`: the value is of no use, and its fault was told.
    fn value(&mut self, node: &Node, schema: &Json) -> Option<Json> {
        let schema = without_null(schema);
        match (type_of(schema), &node.value) {
            // Empty never stands for absent: `allow:` with its rules commented out must not come to mean "everywhere".
            (Some(wanted), Value::Null) => self.fault(node.at, format!("is empty: must be {}", described(wanted))),
            (Some("object"), Value::Map(entries)) => self.object(node.at, entries, schema),
            (Some("array"), Value::List(items)) => self.list(node.at, items, schema),
            (Some("string"), Value::Text(text)) => Some(text.clone().into()),
            (Some("string"), Value::Number(text)) => {
                self.fault(node.at, format!("must be a string, not a number: put it in quotes, {text:?}"))
            }
            (Some("string"), Value::Bool(value)) => {
                self.fault(node.at, format!("must be a string, not a boolean: put it in quotes, \"{value}\""))
            }
            (Some("boolean"), Value::Bool(value)) => Some((*value).into()),
            (Some("boolean"), Value::Text(text)) => self.fault(node.at, format!("must be true or false, not the string {}", quoted(text))),
            (Some("integer"), Value::Number(text)) => self.integer(node.at, text, schema),
            (Some("integer"), Value::Text(text)) => {
                self.fault(node.at, format!("must be a whole number without quotes, not the string {}", quoted(text)))
            }
            (Some(wanted), found) => self.fault(node.at, format!("must be {}, not {}", described(wanted), found.described())),
            (None, _) => self.any(node),
        }
    }

    fn object(&mut self, at: Position, entries: &[(Node, Node)], schema: &Json) -> Option<Json> {
        let none = Map::new();
        let fields = schema["properties"].as_object().unwrap_or(&none);
        let of_other_fields = schema.get("additionalProperties").filter(|schema| **schema != Json::Bool(false));
        let faults_before = self.faults.len();
        let mut whole = true;
        let mut read = Map::new();
        let mut seen = HashMap::new();
        for (key, value) in entries {
            let Some(name) = self.key(key, &mut seen) else { continue };
            let schema = fields.get(name).or(of_other_fields);
            self.at_field(name, |check| match schema {
                Some(schema) => match check.value(value, schema) {
                    Some(json) => drop(read.insert(name.to_owned(), json)),
                    None => whole = false,
                },
                None => drop(check.fault(key.at, unknown_field(name, fields))),
            });
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).filter(|name| !seen.contains_key(name)) {
            whole = false;
            let wanted = type_of(without_null(&fields[name])).map_or("a value", described);
            self.at_field(name, |check| check.fault(at, format!("is missing: must be {wanted}")));
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let choices: Vec<&str> = choices.iter().filter_map(|choice| choice["required"][0].as_str()).collect();
            if choices.iter().filter(|name| seen.contains_key(**name)).count() != 1 {
                whole = false;
                // Where a field is faulty already, a count would only blur what is wrong.
                if self.faults.len() == faults_before {
                    self.fault(at, format!("must have exactly one of {}", choices.join(", ")));
                }
            }
        }
        whole.then_some(Json::Object(read))
    }

    fn at_field<T>(&mut self, name: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let parent = self.path.len();
        push_field(&mut self.path, name);
        let seen = look(self);
        self.path.truncate(parent);
        seen
    }

    fn key<'a>(&mut self, key: &'a Node, seen: &mut HashMap<&'a str, Position>) -> Option<&'a str> {
        let name = match &key.value {
            Value::Text(name) => name,
            Value::Number(text) => {
                self.fault(key.at, format!("a key must be a string: put it in quotes, {text:?}"));
                return None;
            }
            other => {
                self.fault(key.at, format!("a key must be a string, not {}", other.described()));
                return None;
            }
        };
        if let Some(first) = seen.get(name.as_str()) {
            let message = format!("stands here twice: remove it, or the first on line {}", first.line);
            self.at_field(name, |check| check.fault(key.at, message));
            return None;
        }
        seen.insert(name, key.at);
        Some(name)
    }

    fn list(&mut self, at: Position, items: &[Node], schema: &Json) -> Option<Json> {
        if items.is_empty() && schema["minItems"].as_u64().is_some_and(|least| least > 0) {
            return self.fault(at, "must have at least one entry");
        }
        let mut read = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let parent = self.path.len();
            push_index(&mut self.path, index);
            read.extend(self.value(item, &schema["items"]));
            self.path.truncate(parent);
        }
        // With an entry less, the others would stand at other indices than in the file.
        (read.len() == items.len()).then_some(Json::Array(read))
    }

    fn integer(&mut self, at: Position, text: &str, schema: &Json) -> Option<Json> {
        let least = schema["minimum"].as_u64().unwrap_or(0);
        let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
        match whole(text) {
            // YAML 1.1 reads octal, 1.2 decimal: nobody should have to know which.
            _ if text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) => {
                self.fault(at, "must be written without a leading 0 (octal is 0o…)")
            }
            Some(value) if (least..=most).contains(&value) => Some(value.into()),
            _ => self.fault(at, format!("must be a whole number from {least} to {most}")),
        }
    }

    /// Where the schema asks for nothing: JSON as it stands.
    fn any(&mut self, node: &Node) -> Option<Json> {
        match &node.value {
            Value::Null => Some(Json::Null),
            Value::Bool(value) => Some((*value).into()),
            Value::Text(text) => Some(text.clone().into()),
            Value::Number(text) => {
                let number = whole(text).map(Number::from).or_else(|| Number::from_f64(text.parse().ok()?));
                number.map_or_else(|| self.fault(node.at, "must be a number that JSON can express"), |n| Some(Json::Number(n)))
            }
            Value::List(items) => self.list(node.at, items, &Json::Null),
            Value::Map(entries) => {
                let anything = serde_json::json!({ "additionalProperties": true });
                self.object(node.at, entries, &anything)
            }
        }
    }
}

/// A non-negative whole number by the core schema.
fn whole(text: &str) -> Option<u64> {
    let (digits, radix) = match (text.strip_prefix("0o"), text.strip_prefix("0x")) {
        (Some(octal), _) => (octal, 8),
        (_, Some(hex)) => (hex, 16),
        _ => (text, 10),
    };
    u64::from_str_radix(digits, radix).ok()
}

/// An optional field's schema allows null too (`type: [T, null]`, or `anyOf: [T, null]`): the T of it.
fn without_null(schema: &Json) -> &Json {
    schema.get("anyOf").and_then(|choices| choices.get(0)).unwrap_or(schema)
}

fn type_of(schema: &Json) -> Option<&str> {
    let declared = schema.get("type")?;
    declared.as_str().or_else(|| declared.get(0)?.as_str())
}

fn described(type_name: &str) -> &'static str {
    match type_name {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a string",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a value",
    }
}

impl Value {
    fn described(&self) -> &'static str {
        match self {
            Value::Null => "empty",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

fn names(fields: &Map<String, Json>, separator: &str) -> String {
    fields.keys().map(String::as_str).collect::<Vec<_>>().join(separator)
}

fn unknown_field(name: &str, fields: &Map<String, Json>) -> String {
    match nearest(name, fields.keys().map(String::as_str)) {
        Some(meant) => format!("unknown field: did you mean {meant}?"),
        None => format!("unknown field: known here are {}", names(fields, ", ")),
    }
}

/// The known name that `name` was probably meant to be: two slips at most, case and `_` not counted.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let name = plain(name);
    let distance = |other: &str| strsim::damerau_levenshtein(&name, &plain(other));
    known.map(|other| (distance(other), other)).filter(|(d, other)| *d <= 2 && *d * 2 < other.len()).min().map(|(_, other)| other)
}
