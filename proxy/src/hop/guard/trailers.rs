//! The trailer section behind the last chunk: same field rules as a head, and no field that would change what was decided on the head.

use super::{
    Violation,
    syntax::{is_field_value, is_token, line_end},
};
use crate::hop::{
    headers::is_forbidden_trailer,
    limits::{MAX_FIELDS, MAX_TRAILERS},
};

/// Offsets count from the section's first octet.
#[derive(Debug)]
pub(super) struct Trailers {
    line: usize,
    searched: usize,
    fields: usize,
}

impl Trailers {
    pub(super) fn new() -> Self {
        Self { line: 0, searched: 0, fields: 0 }
    }

    /// The section's length once it is complete.
    pub(super) fn scan(&mut self, octets: &[u8]) -> Result<Option<usize>, Violation> {
        loop {
            let end = line_end(&octets[self.searched..]);
            self.searched += end.distance();
            if self.searched + 2 > MAX_TRAILERS {
                return Err(Violation::HeadTooLarge);
            }
            if !end.proceed()? {
                return Ok(None);
            }
            let line = &octets[self.line..self.searched];
            self.searched += 2;
            self.line = self.searched;
            if line.is_empty() {
                return Ok(Some(self.line));
            }
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(Violation::HeadTooLarge);
            }
            check(line)?;
        }
    }
}

fn check(line: &[u8]) -> Result<(), Violation> {
    let Some(colon) = memchr::memchr(b':', line) else { return Err(Violation::Malformed("a trailer field must have a colon")) };
    let name = &line[..colon];
    if !is_token(name) {
        return Err(Violation::Malformed("a trailer's name must be a token directly before its colon"));
    }
    if !is_field_value(&line[colon + 1..]) {
        return Err(Violation::Malformed("a trailer's value must have no control characters"));
    }
    if is_forbidden_trailer(name) {
        return Err(Violation::Malformed("fields of framing, routing, authentication or content must not stand in trailers"));
    }
    Ok(())
}
