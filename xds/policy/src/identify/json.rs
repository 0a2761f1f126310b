//! JSON that means one thing: no member twice (RFC 7519 §4, RFC 7515 §4 leave the choice of refusing to us), nesting at most 128 deep
//! (serde_json's own limit).
//!
//! Documents are checked once and kept as text: a member is looked up where a policy asks for it, without building a tree.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// A string, borrowed from the document unless it holds escapes.
#[derive(Debug, Deserialize, PartialEq, Eq, Hash)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// For an optional member: `null` is a value of the wrong type, not absence.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Refuses what is not one JSON object, and an object at any depth that names a member twice.
pub(super) fn check_object(text: &str) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    (&mut deserializer).deserialize_map(CheckVisitor)?;
    deserializer.end()
}

/// The member `name` of the object `text`, as it is written.
pub(super) fn member<'a>(text: &'a str, name: &str) -> Result<Option<&'a str>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found = (&mut deserializer).deserialize_map(MemberVisitor(name))?;
    Ok(found.map(RawValue::get))
}

/// The value that `path` leads to, as it is written. Descends only: a member whose name holds a dot has no path.
pub(super) fn at<'a, 'p>(text: &'a str, path: impl IntoIterator<Item = &'p str>) -> Option<&'a str> {
    path.into_iter().try_fold(text, |object, name| member(object, name).ok().flatten())
}

/// The string that `written` is.
pub(super) fn string(written: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str(written).ok().map(|Text(text)| text)
}

/// The string, number or boolean that `written` is, the latter two as they stand.
pub(super) fn scalar(written: &str) -> Option<Cow<'_, str>> {
    match written.as_bytes().first()? {
        b'"' => string(written),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(written)),
    }
}

/// Any value whose objects name each member once.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckVisitor).map(|()| Checked)
    }
}

struct CheckVisitor;

impl<'de> Visitor<'de> for CheckVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(Checked) = elements.next_element()? {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<Text<'de>>()? {
            if names.contains(&name) {
                // Cut short: the name may be anybody's text, and this goes to a log.
                let name: String = name.chars().take(32).collect();
                return Err(A::Error::custom(format_args!("member {name:?} stands twice")));
            }
            names.insert(name);
            members.next_value::<Checked>()?;
        }
        Ok(())
    }
}

struct MemberVisitor<'n>(&'n str);

impl<'de> Visitor<'de> for MemberVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<Text<'de>>()? {
            if &*name == self.0 {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_names_each_member_once() {
        let deep = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
        let cases = [
            ("{}", true),
            (r#" {"a":1,"b":[{"a":null},{"a":1.5}],"c":-3,"d":false} "#, true),
            (r#"{"a":{"a":{"a":"a"}}}"#, true),
            (&deep(100), true),
            (&deep(200), false),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":1,"\u0061":2}"#, false),
            (r#"{"b":{"a":1,"a":2}}"#, false),
            (r#"{"b":[[{"a":1,"b":2,"a":2}]]}"#, false),
            ("", false),
            ("[]", false),
            ("null", false),
            (r#""{}""#, false),
            ("{} {}", false),
            ("{}x", false),
            ("\u{feff}{}", false),
            (r#"{"a":1,}"#, false),
            (r#"{"a":NaN}"#, false),
            (r#"{"a":1e999}"#, false),
            (r#"{"a":"\ud800"}"#, false),
            ("{\"a\":\"\n\"}", false),
            (r#"{a:1}"#, false),
        ];
        for (text, good) in cases {
            assert_eq!(check_object(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_path_descends_and_nothing_else() {
        let text = r#"{"app":{"org":"o","n":1.50,"yes":true,"no":null,"list":["x"],"obj":{}},"app.org":"dotted","\u0065sc":"\u0041"}"#;
        let cases = [
            ("app.org", Some("o")),
            ("app.n", Some("1.50")),
            ("app.yes", Some("true")),
            ("esc", Some("A")),
            ("app.no", None),
            ("app.list", None),
            ("app.list.0", None),
            ("app.obj", None),
            ("app", None),
            ("app.org.x", None),
            ("App.org", None),
            ("", None),
            (".", None),
            ("absent", None),
        ];
        for (path, want) in cases {
            assert_eq!(at(text, path.split('.')).and_then(scalar).as_deref(), want, "{path}");
        }
    }
}
