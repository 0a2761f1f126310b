use std::{fmt, str::FromStr};

use super::{EMPTY_SEGMENT, NO_SLASH, NormalPath, check_segment, is_text};
use crate::TenantId;

/// A path pattern, written decoded:
/// - `*` is exactly one segment, and not an empty one;
/// - `**`, as the last segment only, is the rest, which may be empty: `/a/**` is `/a/`, `/a/x` and `/a/x/y`, but not `/a`;
/// - `{tenant}` is the verified tenant's name;
/// - everything else is itself, byte for byte; a slash at the end too: `/a/` is not `/a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    /// Octets of `text` before the first segment that is no literal: a path that does not begin with them need not be taken apart.
    literal: usize,
    segments: Vec<Segment>,
    /// Ends with `**`.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Any,
    Tenant,
}

impl PathPattern {
    /// `tenant`: `None` on a public path, where nobody is identified; `{tenant}` then matches nothing.
    pub fn matches(&self, path: &NormalPath<'_>, tenant: Option<&TenantId>) -> bool {
        if !path.as_str().as_bytes().starts_with(&self.text.as_bytes()[..self.literal]) {
            return false;
        }
        let mut rest = path.segments();
        let begins = self.segments.iter().all(|segment| {
            rest.next().is_some_and(|text| match segment {
                Segment::Literal(literal) => literal.as_bytes() == text,
                Segment::Any => !text.is_empty(),
                // A tenant's name is a DNS label: it has no other spelling.
                Segment::Tenant => tenant.is_some_and(|tenant| tenant.as_str().as_bytes() == text),
            })
        });
        // The slash before `**` is part of the pattern: an empty rest is still a segment.
        begins && rest.next().is_some() == self.open
    }
}

impl FromStr for PathPattern {
    /// What would be right.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix('/').ok_or(NO_SLASH)?;
        let (rest, open) = match rest.strip_suffix("**") {
            Some("") => return Ok(Self { text: text.into(), literal: 1, segments: Vec::new(), open: true }),
            Some(before) => (before.strip_suffix('/').ok_or(WHOLE_SEGMENT)?, true),
            None => (rest, false),
        };
        let mut segments = Vec::new();
        let mut parts = rest.split('/').peekable();
        while let Some(part) = parts.next() {
            // Only the very last may be empty: a slash at the end.
            if part.is_empty() && (open || parts.peek().is_some()) {
                return Err(EMPTY_SEGMENT);
            }
            segments.push(segment(part)?);
        }
        let lengths = segments.iter().map_while(|segment| match segment {
            // With the slash before it.
            Segment::Literal(text) => Some(1 + text.len()),
            Segment::Any | Segment::Tenant => None,
        });
        let literal = lengths.sum();
        Ok(Self { text: text.into(), literal, segments, open })
    }
}

const WHOLE_SEGMENT: &str = "must have '*' and '**' as whole segments only, '**' as the last one";

fn segment(text: &str) -> Result<Segment, &'static str> {
    match text {
        "*" => Ok(Segment::Any),
        "{tenant}" => Ok(Segment::Tenant),
        _ if text.contains('*') => Err(WHOLE_SEGMENT),
        _ if text.contains(['{', '}']) => Err("must have no other braces than {tenant}, as a whole segment"),
        _ if text.contains('%') => Err("must be written decoded, without '%'"),
        // Else the pattern could never match.
        _ if !text.chars().all(is_text) => Err("must have no character that a request's path may not have"),
        _ => check_segment(text).map(|()| Segment::Literal(text.into())),
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
