//! The path of a request in its one normal form, and patterns over it.
//!
//! A path is never rewritten: where a proxy and a workload could read two paths in the same bytes, the request is refused. What remains
//! is text that stays itself however often it is decoded, normalised or parsed again, so that what was matched is what is served.

mod pattern;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use unicode_normalization::UnicodeNormalization;

pub use pattern::PathPattern;

/// A request path as policies see it: percent-decoded, without dot segments, single slashes, beginning with `/`.
///
/// A slash at the end is kept: `/a/` is another path than `/a`. Case is kept too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a>(Cow<'a, str>);

impl<'a> NormalPath<'a> {
    /// `raw`: the path of the request target, without the query (RFC 9112 §3.2). Borrows it where nothing is encoded.
    ///
    /// Refused, with what would be right:
    /// - what RFC 3986 §3.3 does not allow, save `[`, `]`, `^` and `|`, which browsers send as they are (WHATWG URL);
    /// - dot segments and empty segments, plain or encoded, since resolving them is what parsers differ in;
    /// - `/`, `\`, `%`, `?`, `#`, `;` and control characters in encoded form: another decoding would change where a segment or the path ends;
    /// - `;` as it is: legitimate in RFC 3986, but servlet containers cut the segment there before they compare it, and others do not;
    /// - bytes that are no UTF-8, overlong forms among them;
    /// - characters that a best-fit code page, NFKC or a filter of invisible characters turns into ASCII or into nothing;
    /// - segments that begin or end with a space, which file systems and header parsers trim.
    pub fn new(raw: &'a str) -> Result<Self, &'static str> {
        check_encoding(raw)?;
        let text = match memchr::memchr(b'%', raw.as_bytes()) {
            None => Cow::Borrowed(raw),
            Some(_) => percent_decode_str(raw).decode_utf8().map_err(|_| "must decode to UTF-8")?,
        };
        let mut rest = text.strip_prefix('/').ok_or(NO_SLASH)?;
        // Octets are looked at: `str::split` takes three times the instructions for segments as short as these.
        while let Some(end) = rest.bytes().position(|octet| octet == b'/') {
            if end == 0 {
                return Err(EMPTY_SEGMENT);
            }
            check_segment(&rest[..end])?;
            rest = &rest[end + 1..];
        }
        check_segment(rest)?;
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const NO_SLASH: &str = "must begin with '/'";
const EMPTY_SEGMENT: &str = "must have no empty segment ('//')";

/// That every byte may stand where it stands, and every triplet decodes to one that may.
fn check_encoding(raw: &str) -> Result<(), &'static str> {
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else { return Err("must have two hex digits after every '%'") };
                let decoded = high * 16 + low;
                if let Some(c) = char::from_u32(decoded).filter(|c| c.is_ascii() && (*c == '/' || !is_text(*c))) {
                    return Err(match c {
                        '/' | '\\' => "must have no encoded slash or backslash",
                        '%' => "must not be encoded twice ('%25')",
                        ';' => NO_PARAMETERS,
                        '?' | '#' => "must have no encoded '?' or '#'",
                        _ => NO_CONTROLS,
                    });
                }
            }
            b';' => return Err(NO_PARAMETERS),
            b'\\' => return Err("must have no backslash"),
            b'#' | b'?' => return Err("must be a path alone, without query and fragment"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {}
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => {}
            b'[' | b']' | b'^' | b'|' => {}
            _ => return Err("must be percent-encoded outside of RFC 3986's path characters"),
        }
    }
    Ok(())
}

const NO_PARAMETERS: &str = "must have no path parameters (';')";
const NO_CONTROLS: &str = "must have no control characters";

/// Whether a character of a decoded path is one under every further parsing.
fn is_text(c: char) -> bool {
    if c.is_ascii() { !c.is_control() && !matches!(c, '\\' | '%' | ';' | '?' | '#') } else { !c.is_control() && !is_deceptive(c) }
}

/// A segment of a decoded path or of a pattern.
fn check_segment(segment: &str) -> Result<(), &'static str> {
    // Windows drops dots and spaces at the end of a name, and some filters what cannot be seen: all of these may come down to "..".
    let vanishes = |c| matches!(c, '.' | ' ' | '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}');
    if !segment.is_empty() && segment.chars().all(vanishes) {
        return Err("must have no dot segments, or segments of dots and blanks alone");
    }
    if segment.starts_with(' ') || segment.ends_with(' ') {
        return Err("must have no segment that begins or ends with a space");
    }
    if !segment.is_ascii() && !segment.chars().all(is_text) {
        return Err("must have no characters that look like, or may turn into, ASCII ones or nothing");
    }
    Ok(())
}

/// Characters beyond ASCII that another program may take for ASCII or drop.
fn is_deceptive(c: char) -> bool {
    match c {
        // `\`, `/` and `%` by the best-fit tables of Windows code pages 932, 949, 1250-1258; Unicode itself maps none of them.
        '\u{A5}' | '\u{20A9}' | '\u{20E5}' | '\u{2216}' | '\u{2044}' | '\u{2215}' | '\u{66A}' => true,
        // Default_Ignorable_Code_Point, without the joiners and emoji selectors that written languages need.
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' => true,
        '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' => true,
        '\u{FFA0}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}' => true,
        // Line separators; private use, which code pages fill as they like; specials and what an earlier decoder could not read.
        '\u{2028}' | '\u{2029}' | '\u{E000}'..='\u{F8FF}' | '\u{FFF0}'..='\u{FFFF}' | '\u{F0000}'.. => true,
        // Full-width and small forms, ligatures, "…", the Kelvin sign and the like.
        _ => std::iter::once(c).nfkc().any(|mapped| mapped.is_ascii()),
    }
}
