//! What a compiled zone is searched by. Read in place: what `open` has walked once needs no further decoding.

pub(super) mod names;
pub(super) mod prefixes;
pub(super) mod rules;

/// What an index entry points at: 0 is nothing, 1 to 5 are the simple actions at the zone's usual TTL, and from [`FIRST_RULE`] on follow the
/// rows of the rule table.
pub(super) type Code = u32;

pub(super) const NOTHING: Code = 0;
pub(super) const FIRST_RULE: Code = 16;

/// Whether `code` means something in a zone with that many rows in its rule table.
pub(super) fn is_rule(code: Code, rows: u32) -> bool {
    matches!(code, 1..=5) || code.checked_sub(FIRST_RULE).is_some_and(|row| row < rows)
}

/// Why bytes are no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("an entry is cut off")]
    CutOff,
    #[error("blocks do not follow each other")]
    Blocks,
    #[error("entries are not in order")]
    Order,
    #[error("a key is no name or prefix")]
    Key,
    #[error("an entry points at no rule")]
    Rule,
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|octets| u16::from_le_bytes(*octets))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|octets| u32::from_le_bytes(*octets))
}

/// LEB128, at most five octets.
pub(super) fn push_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The value and where the next one begins. A value that another form would say shorter is none.
#[inline]
pub(super) fn varint_at(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let first = *bytes.get(at)?;
    if first < 0x80 {
        return Some((u32::from(first), at + 1));
    }
    let mut value = u32::from(first & 0x7f);
    for index in 1..5 {
        let octet = *bytes.get(at + index)?;
        if index == 4 && octet > 0x0f {
            return None;
        }
        value |= u32::from(octet & 0x7f) << (7 * index);
        if octet < 0x80 {
            return (octet != 0).then_some((value, at + index + 1));
        }
    }
    None
}
