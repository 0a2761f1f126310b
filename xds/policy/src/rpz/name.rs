//! Domain names as messages carry them.

use std::fmt;

use smallvec::{SmallVec, smallvec};

/// A domain name in wire form without compression (RFC 1035 §3.1), in lower case: at most 255 octets, the root's included. Any octet may
/// stand in a label (RFC 2181 §11).
///
/// Names of common length are held in place: a query's costs no allocation.
#[derive(PartialEq, Eq, Hash)]
pub struct Name(Octets);

type Octets = SmallVec<[u8; 48]>;

/// Why a text is no domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a label must not be empty")]
    EmptyLabel,
    #[error("a label must have at most 63 octets")]
    LongLabel,
    #[error("a name must have at most 255 octets")]
    LongName,
    #[error(r"an escape must be \DDD with a number up to 255, or a backslash and the octet itself")]
    Escape,
}

impl Name {
    /// Octets of the longest name (RFC 1035 §2.3.4).
    pub const MAX: usize = 255;
    const MAX_LABEL: usize = 63;

    pub fn root() -> Self {
        Self(smallvec![0])
    }

    /// The name at the start of `wire`, which must not be compressed, and how many octets it takes.
    pub fn from_wire(wire: &[u8]) -> Option<(Self, usize)> {
        let mut end = 0;
        loop {
            let length = usize::from(*wire.get(end)?);
            if length > Self::MAX_LABEL {
                return None;
            }
            end += 1 + length;
            if length == 0 {
                break;
            }
        }
        if end > Self::MAX {
            return None;
        }
        let mut octets = Octets::from_slice(&wire[..end]);
        // The lengths of labels, below 64, are no letters.
        octets.make_ascii_lowercase();
        Some((Self(octets), end))
    }

    /// Presentation form (RFC 1035 §5.1). Without a dot at the end the name is relative to `origin`; `@` is `origin`.
    pub fn parse(text: &[u8], origin: &Name) -> Result<Self, NameError> {
        match text {
            b"@" => return Ok(origin.clone()),
            b"." => return Ok(Self::root()),
            b"" => return Err(NameError::EmptyLabel),
            _ => {}
        }
        // The root's octet, and that of the label in hand where no dot ends it.
        let mut octets = Octets::with_capacity((text.len() + 2).min(Self::MAX + 1));
        octets.push(0);
        // Where the length of the label in hand goes.
        let mut start = 0;
        let mut rest = text;
        while let Some((&octet, after)) = rest.split_first() {
            rest = after;
            match octet {
                b'.' => {
                    octets[start] = label_length(octets.len() - start - 1)?;
                    start = octets.len();
                    octets.push(0);
                }
                b'\\' => {
                    let (octet, taken) = unescape(rest).ok_or(NameError::Escape)?;
                    rest = &rest[taken..];
                    octets.push(octet.to_ascii_lowercase());
                }
                octet => octets.push(octet.to_ascii_lowercase()),
            }
            if octets.len() > Self::MAX {
                return Err(NameError::LongName);
            }
        }
        // With a dot at the end, the label in hand is the root.
        if start + 1 < octets.len() {
            octets[start] = label_length(octets.len() - start - 1)?;
            octets.push(0);
            return Self(octets).followed_by(origin).ok_or(NameError::LongName);
        }
        Ok(Self(octets))
    }

    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// From the leftmost to the one before the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(self.as_wire())
    }

    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// Without the leftmost label. `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let wire = self.as_wire();
        let (&length, _) = wire.split_first().filter(|(length, _)| **length != 0)?;
        Self::from_wire(&wire[usize::from(length) + 1..]).map(|(name, _)| name)
    }

    /// The rightmost `count` labels.
    pub fn suffix(&self, count: usize) -> Self {
        let mut wire = self.as_wire();
        for _ in count..self.label_count() {
            wire = &wire[usize::from(wire[0]) + 1..];
        }
        Self::from_wire(wire).map_or(Self::root(), |(name, _)| name)
    }

    /// What stands before `suffix`, as labels without the root. `None` where the name does not end in `suffix`.
    pub fn before(&self, suffix: &Name) -> Option<&[u8]> {
        let (wire, suffix) = (self.as_wire(), suffix.as_wire());
        let mut at = 0;
        while wire.len() - at > suffix.len() {
            at += usize::from(wire[at]) + 1;
        }
        (&wire[at..] == suffix).then_some(&wire[..at])
    }

    /// `self` before `suffix`. `None` where that is too long.
    pub fn followed_by(&self, suffix: &Name) -> Option<Self> {
        let mut octets = Octets::from_slice(&self.0[..self.0.len() - 1]);
        octets.extend_from_slice(&suffix.0);
        (octets.len() <= Self::MAX).then_some(Self(octets))
    }

    /// The labels from right to left, each behind its length: the key of every index. A name stands below another exactly if that one's key
    /// is a prefix of its own.
    pub fn key(&self) -> Key {
        Key::of_labels(&self.0[..self.0.len() - 1])
    }
}

fn label_length(length: usize) -> Result<u8, NameError> {
    match length {
        0 => Err(NameError::EmptyLabel),
        1..=Name::MAX_LABEL => Ok(length as u8),
        _ => Err(NameError::LongLabel),
    }
}

impl Clone for Name {
    /// As one piece: SmallVec's own clone goes octet by octet.
    fn clone(&self) -> Self {
        Self(Octets::from_slice(&self.0))
    }
}

/// See [`Name::key`].
#[derive(Clone)]
pub struct Key(Octets);

impl Key {
    /// `labels`: in wire form, from the left, without the root.
    pub(super) fn of_labels(labels: &[u8]) -> Self {
        let mut key: Octets = smallvec![0; labels.len()];
        let (mut from, mut to) = (0, labels.len());
        while from < labels.len() {
            let length = usize::from(labels[from]) + 1;
            let Some(start) = to.checked_sub(length) else { break };
            key[start..to].copy_from_slice(&labels[from..from + length]);
            (from, to) = (from + length, start);
        }
        Self(key)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The labels of a name in wire form, up to its root or its end.
pub(super) fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&length, after) = rest.split_first().filter(|(length, _)| **length != 0)?;
        let label = after.get(..usize::from(length))?;
        rest = &after[label.len()..];
        Some(label)
    })
}

/// What stands after a backslash (RFC 1035 §5.1): the octet meant, and how many octets say it.
pub(super) fn unescape(text: &[u8]) -> Option<(u8, usize)> {
    match text {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
            let number = u32::from(a - b'0') * 100 + u32::from(b - b'0') * 10 + u32::from(c - b'0');
            Some((u8::try_from(number).ok()?, 3))
        }
        [b'0'..=b'9', ..] | [] => None,
        [octet, ..] => Some((*octet, 1)),
    }
}

/// Canonical order (RFC 4034 §6.1).
impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (mine, others): (Vec<_>, Vec<_>) = (self.labels().collect(), other.labels().collect());
        mine.iter().rev().cmp(others.iter().rev())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    /// Absolute with or without the dot at the end.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text.as_bytes(), &Self::root())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_agree() {
        let origin: Name = "rpz.example".parse().unwrap();
        let long = "a.".repeat(127);
        for (text, expected) in [
            ("@", Ok("rpz.example.")),
            (".", Ok(".")),
            ("*", Ok("*.rpz.example.")),
            ("WWW.Example.COM.", Ok("www.example.com.")),
            ("www", Ok("www.rpz.example.")),
            (r"a\.b.\099.", Ok(r"a\.b.c.")),
            (r"\255.", Ok(r"\255.")),
            (&long, Ok(long.as_str())),
            ("", Err(NameError::EmptyLabel)),
            ("a..b.", Err(NameError::EmptyLabel)),
            (".a.", Err(NameError::EmptyLabel)),
            (r"a\", Err(NameError::Escape)),
            (r"\256", Err(NameError::Escape)),
            (r"\12", Err(NameError::Escape)),
            (&format!("{}.", "x".repeat(64)), Err(NameError::LongLabel)),
            (&format!("{long}b."), Err(NameError::LongName)),
            (&"x".repeat(300), Err(NameError::LongName)),
            (long.trim_end_matches('.'), Err(NameError::LongName)),
        ] {
            let parsed = Name::parse(text.as_bytes(), &origin);
            assert_eq!(parsed.as_ref().map(Name::to_string), expected.as_ref().map(|text| text.to_string()), "{text}");
            if let Ok(name) = parsed {
                assert_eq!(Name::from_wire(name.as_wire()), Some((name.clone(), name.as_wire().len())), "{text}");
            }
        }
        for bad in [&b""[..], b"\x01", b"\x01a", b"\x40a\0", b"\xc0\x00", &[[1, b'a'].as_slice(); 200].concat()] {
            assert_eq!(Name::from_wire(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn parts() {
        let name: Name = "a.b.example".parse().unwrap();
        assert_eq!(name.parent().unwrap(), "b.example".parse().unwrap());
        assert_eq!(name.suffix(1), "example".parse().unwrap());
        assert_eq!(name.suffix(0), Name::root());
        assert_eq!(name.before(&"example".parse().unwrap()), Some(&b"\x01a\x01b"[..]));
        assert_eq!(name.before(&Name::root()), Some(&b"\x01a\x01b\x07example"[..]));
        assert_eq!(name.before(&"b.a.b.example".parse().unwrap()), None);
        assert_eq!(name.before(&"xample".parse().unwrap()), None);
        assert_eq!(name.key().as_bytes(), b"\x07example\x01b\x01a");
        assert_eq!(Name::root().parent(), None);
        let canonical = ["example", "a.example", "yljkjljk.a.example", "z.a.example", "zabc.a.example", "z.example", r"\001.z.example"];
        assert!(canonical.map(|text| text.parse::<Name>().unwrap()).is_sorted());
    }
}
