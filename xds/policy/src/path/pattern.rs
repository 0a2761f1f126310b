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
    /// As written: segments are looked at where they stand, for there may be a pattern for each of thousands of tenants.
    text: Box<str>,
    /// Octets of `text` before the first segment that is no literal, with the slash before it; the whole length where each is one.
    literal: usize,
}

/// As a whole segment.
const ANY: &str = "*";
const REST: &str = "**";
const TENANT: &str = "{tenant}";

impl PathPattern {
    /// `tenant`: `None` on a public path, where nobody is identified; `{tenant}` then matches nothing.
    pub fn matches(&self, path: &NormalPath<'_>, tenant: Option<&TenantId>) -> bool {
        // Octets: most of a long list of rules end here, and segments are told apart with less than `str::split` takes.
        let (path, text) = (path.as_str().as_bytes(), self.text.as_bytes());
        let Some(path) = path.strip_prefix(&text[..self.literal]) else { return false };
        let mut segments = path.split(is_slash);
        for part in text[self.literal..].split(is_slash) {
            // The slash before `**` is part of the pattern: an empty rest is still a segment.
            let Some(segment) = segments.next() else { return false };
            if part == REST.as_bytes() {
                return true;
            }
            let is_met = if part == ANY.as_bytes() {
                !segment.is_empty()
            } else if part == TENANT.as_bytes() {
                // A tenant's name is a DNS label: it has no other spelling.
                tenant.is_some_and(|tenant| tenant.as_str().as_bytes() == segment)
            } else {
                part == segment
            };
            if !is_met {
                return false;
            }
        }
        segments.next().is_none()
    }
}

fn is_slash(octet: &u8) -> bool {
    *octet == b'/'
}

impl FromStr for PathPattern {
    /// What would be right.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.strip_prefix('/').ok_or(NO_SLASH)?.split('/').peekable();
        let mut at = 1;
        let mut literal = None;
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            match part {
                REST if is_last => {}
                // Only the very last may be empty: a slash at the end.
                "" if !is_last => return Err(EMPTY_SEGMENT),
                _ => check(part)?,
            }
            if matches!(part, ANY | REST | TENANT) {
                literal.get_or_insert(at);
            }
            at += part.len() + 1;
        }
        Ok(Self { text: text.into(), literal: literal.unwrap_or(text.len()) })
    }
}

const WHOLE_SEGMENT: &str = "must have '*' and '**' as whole segments only, '**' as the last one";

/// What stands between two slashes, but for `**`.
fn check(part: &str) -> Result<(), &'static str> {
    match part {
        ANY | TENANT => Ok(()),
        _ if part.contains('*') => Err(WHOLE_SEGMENT),
        _ if part.contains(['{', '}']) => Err("must have no other braces than {tenant}, as a whole segment"),
        _ if part.contains('%') => Err("must be written decoded, without '%'"),
        // Else the pattern could never match.
        _ if !part.chars().all(is_text) => Err("must have no character that a request's path may not have"),
        _ => check_segment(part),
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
