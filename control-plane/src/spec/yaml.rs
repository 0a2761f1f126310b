//! YAML 1.2 (core schema) as a tree in which every value knows its place in the file.
//!
//! Built on the parser's events, because a loader stops at the first fault and drops the first of two duplicate keys; here each
//! document stands for itself, and duplicate keys are kept to be told.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::fault::Position;

/// Deepest nesting of lists and mappings; the kinds need fewer than ten.
const MAX_DEPTH: usize = 64;
/// Values in one document, those that aliases repeat included: bounds what a small file may unfold to.
const MAX_VALUES: usize = 100_000;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `null`, `~` or nothing at all.
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the file's order, duplicates included; a key may be any value.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// The value of a key that is there; the first where it is there twice.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| matches!(&key.value, Value::Text(text) if text == name)).map(|(_, value)| value)
    }
}

/// A document that came as JSON has no places.
impl From<&serde_json::Value> for Node {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(number.to_string()),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Node::from).collect()),
            Json::Object(fields) => {
                Value::Map(fields.iter().map(|(name, field)| (Node::from(&Json::from(name.as_str())), field.into())).collect())
            }
        };
        Self { at: Position::NOWHERE, value }
    }
}

/// A document that cannot be read as YAML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) at: Position,
    pub(super) message: String,
}

/// Reads document after document. After one that is broken, goes on at the next line that begins with `---`.
pub(super) fn documents(text: &str, mut each: impl FnMut(Result<Node, Broken>)) {
    let mut rest = text;
    let mut lines_before = 0;
    loop {
        let mut document = Document::default();
        let mut first_line = 1;
        let mut broken = None;
        for event in Parser::new_from_str(rest) {
            let (at, fault) = match event {
                Err(error) => (position(error.marker(), lines_before), format!("not YAML: {}", error.info())),
                Ok((event, span)) => {
                    let at = position(&span.start, lines_before);
                    match event {
                        Event::DocumentStart(_) => {
                            first_line = span.start.line();
                            document = Document::default();
                            continue;
                        }
                        Event::DocumentEnd => {
                            if let Some(root) = document.root.take() {
                                each(Ok(root));
                            }
                            continue;
                        }
                        event => match document.event(event, at) {
                            Ok(()) => continue,
                            Err(fault) => (at, fault),
                        },
                    }
                }
            };
            broken = Some(Broken { at, message: fault });
            break;
        }
        let Some(fault) = broken else { return };
        let broken_line = (fault.at.line as usize).saturating_sub(lines_before);
        each(Err(fault));
        // The parser often notices only at the separator that a document is broken.
        let Some((offset, lines)) = next_separator(rest, broken_line.max(first_line + 1)) else { return };
        rest = &rest[offset..];
        lines_before += lines;
    }
}

/// The first line from `line` on (counted from 1) that begins a document: its offset, and the lines before it.
fn next_separator(text: &str, line: usize) -> Option<(usize, usize)> {
    let mut offset = 0;
    for (before, text_line) in text.split_inclusive('\n').enumerate() {
        if before + 1 >= line && is_separator(text_line) {
            return Some((offset, before));
        }
        offset += text_line.len();
    }
    None
}

/// Whether a line begins a document, wherever it stands (YAML 1.2.2 §9.1.2).
pub(super) fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn position(marker: &saphyr_parser::Marker, lines_before: usize) -> Position {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: count(marker.line() + lines_before), col: count(marker.col() + 1) }
}

/// A document under construction.
#[derive(Default)]
struct Document {
    open: Vec<Collection>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    values: usize,
}

struct Collection {
    at: Position,
    anchor: usize,
    /// In a mapping, keys and values by turns.
    items: Vec<Node>,
}

impl Document {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_deref())?;
                let value = if style == ScalarStyle::Plain { resolve(&text) } else { Value::Text(text.into_owned()) };
                self.add(Node { at, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref())?;
                if self.open.len() == MAX_DEPTH {
                    return Err(format!("nested too deep: at most {MAX_DEPTH} levels are read"));
                }
                self.open.push(Collection { at, anchor, items: Vec::new() });
                Ok(())
            }
            Event::SequenceEnd => self.close(Value::List),
            Event::MappingEnd => self.close(|items| Value::Map(pairs(items))),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).ok_or("the alias names no value that stands before it in this document")?;
                // Before the copy is made, not after.
                self.values += size(node);
                let node = node.clone();
                self.add(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn close(&mut self, value: impl FnOnce(Vec<Node>) -> Value) -> Result<(), String> {
        let Some(Collection { at, anchor, items }) = self.open.pop() else { return Ok(()) };
        self.add(Node { at, value: value(items) }, anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("too large: at most {MAX_VALUES} values are read in one document, repeated ones included"));
        }
        if anchor != 0 {
            self.values += size(&node);
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            Some(collection) => collection.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

fn pairs(items: Vec<Node>) -> Vec<(Node, Node)> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(mut value)) = (items.next(), items.next()) {
        // Nothing has no place of its own.
        if matches!(value.value, Value::Null) {
            value.at = key.at;
        }
        pairs.push((key, value));
    }
    pairs
}

/// Values in `node`, itself included. Recursion is bounded by `MAX_DEPTH` at each level of aliasing and by `MAX_VALUES` in all.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| size(key) + size(value)).sum(),
        _ => 0,
    }
}

fn refuse_tag(tag: Option<&saphyr_parser::Tag>) -> Result<(), String> {
    match tag {
        Some(_) => Err("tags are not read: remove it (quotes make a string)".to_owned()),
        None => Ok(()),
    }
}

/// A plain scalar by the core schema (YAML 1.2.2 §10.3.2): `no` and `1_000` are strings, `010` is a number.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let all = |digits: &str, is_digit: fn(&u8) -> bool| !digits.is_empty() && digits.as_bytes().iter().all(is_digit);
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, |b| matches!(b, b'0'..=b'7'));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, u8::is_ascii_hexdigit);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let mantissa_is_number = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    mantissa_is_number && exponent.is_none_or(|e| all(e, u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for text in ["0", "-1", "+1", "010", "0o17", "0xfF", "1.5", "1.", ".5", "1e3", "1.5E-3", ".inf", "-.INF", ".nan"] {
            assert!(matches!(resolve(text), Value::Number(_)), "{text}");
        }
        for text in ["no", "on", "y", "1_000", "0b1", "0o8", "0x", "0x-1", "+-5", ".", "e5", "1e", "1.2.3", "inf", "-.nan", "1:30", "5/s"] {
            assert!(matches!(resolve(text), Value::Text(_)), "{text}");
        }
        for text in ["", "~", "null", "NULL"] {
            assert!(matches!(resolve(text), Value::Null), "{text}");
        }
        assert!(matches!((resolve("true"), resolve("False")), (Value::Bool(true), Value::Bool(false))));
    }

    #[test]
    fn a_broken_document_does_not_hide_the_next() {
        let mut seen = Vec::new();
        documents("a: 1\n---\nb: [\n---\nc: 3\n--- \nd: }\n---\ne: 5\n", |document| {
            seen.push(match document {
                Ok(node) => (node.at.line, "read"),
                Err(broken) => (broken.at.line, "broken"),
            });
        });
        assert_eq!(seen.iter().map(|(_, what)| *what).collect::<Vec<_>>(), ["read", "broken", "read", "broken", "read"], "{seen:?}");
        assert_eq!((seen[0].0, seen[2].0, seen[4].0), (1, 5, 9));
    }
}
