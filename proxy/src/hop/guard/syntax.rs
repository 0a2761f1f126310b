//! The characters and small grammars of RFC 9110 and RFC 3986 that the guard asks for.

use std::net::Ipv6Addr;

use super::Violation;

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;
const REG_NAME: u8 = 8;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet = 0x21_u8;
    while octet < 0x7f {
        let mut class = 0;
        let alphanumeric = octet.is_ascii_alphanumeric();
        if alphanumeric || is_one_of(octet, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        // RFC 3986 pchar and `/`, and what browsers leave unescaped. A backslash is a `/` to some, so it is none to us.
        if alphanumeric || is_one_of(octet, b"-._~!$&'()*+,;=:@%/[]^|{}") {
            class |= PATH;
        }
        if !is_one_of(octet, b"\"#<>") {
            class |= QUERY;
        }
        // RFC 3986 reg-name without `%` (a second spelling) and `,` (two hosts in one field).
        if alphanumeric || is_one_of(octet, b"-._~!$&'()*+;=") {
            class |= REG_NAME;
        }
        table[octet as usize] = class;
        octet += 1;
    }
    table
}

const fn is_one_of(octet: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == octet {
            return true;
        }
        at += 1;
    }
    false
}

fn all(octets: &[u8], class: u8) -> bool {
    octets.iter().all(|&octet| CLASS[octet as usize] & class != 0)
}

/// How the first line of some octets ends, and how far away.
#[derive(Clone, Copy, Debug)]
pub(super) enum LineEnd {
    CrLf(usize),
    /// Further on; perhaps with a CR already here.
    Open(usize),
    /// A CR or LF that stands alone: neither an end nor content.
    Broken(usize),
}

pub(super) fn line_end(octets: &[u8]) -> LineEnd {
    let Some(end) = memchr::memchr2(b'\r', b'\n', octets) else { return LineEnd::Open(octets.len()) };
    match octets[end..] {
        [b'\r', b'\n', ..] => LineEnd::CrLf(end),
        [b'\r'] => LineEnd::Open(end),
        _ => LineEnd::Broken(end),
    }
}

impl LineEnd {
    /// Octets of the line.
    pub(super) fn distance(self) -> usize {
        let (LineEnd::CrLf(octets) | LineEnd::Open(octets) | LineEnd::Broken(octets)) = self;
        octets
    }

    pub(super) fn is_found(self) -> bool {
        matches!(self, LineEnd::CrLf(_))
    }

    /// Whether the line is whole; refused where it cannot become so.
    pub(super) fn proceed(self) -> Result<bool, Violation> {
        match self {
            LineEnd::CrLf(_) => Ok(true),
            LineEnd::Open(_) => Ok(false),
            LineEnd::Broken(_) => Err(Violation::Malformed("every line must end with CR LF, and neither may stand alone")),
        }
    }
}

/// A token (RFC 9110 §5.6.2): methods, field names.
pub(super) fn is_token(octets: &[u8]) -> bool {
    !octets.is_empty() && all(octets, TOKEN)
}

/// A field value: visible characters, SP, HTAB, obs-text (RFC 9110 §5.5); no other control character.
pub(super) fn is_field_value(octets: &[u8]) -> bool {
    // Without an early exit the compiler compares sixteen octets at a time.
    !octets.iter().fold(false, |bad, &octet| bad | ((octet < 0x20) & (octet != b'\t')) | (octet == 0x7f))
}

/// `absolute-path [ "?" query ]` (RFC 9112 §3.2.1). The path's meaning is judged elsewhere; this is its alphabet.
pub(super) fn is_origin_form(target: &[u8]) -> bool {
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[][..]),
    };
    path.first() == Some(&b'/') && all(path, PATH) && all(query, QUERY)
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2): a name without empty labels or escapes (one trailing dot is the root), an
/// address, an IPv6 address in brackets without a zone. No userinfo. The port may be empty, as RFC 3986 has it.
pub(crate) fn is_authority(octets: &[u8]) -> bool {
    let (host, port) = if octets.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', octets) else { return false };
        let is_address = std::str::from_utf8(&octets[1..end]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
        if !is_address {
            return false;
        }
        (None, &octets[end + 1..])
    } else {
        let end = memchr::memchr(b':', octets).unwrap_or(octets.len());
        (Some(&octets[..end]), &octets[end..])
    };
    host.is_none_or(is_reg_name) && is_port(port)
}

fn is_reg_name(host: &[u8]) -> bool {
    let labels = host.strip_suffix(b".").unwrap_or(host);
    !labels.is_empty() && all(labels, REG_NAME) && labels.split(|&octet| octet == b'.').all(|label| !label.is_empty())
}

fn is_port(port: &[u8]) -> bool {
    match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit) && std::str::from_utf8(digits).is_ok_and(|text| text.parse::<u16>().is_ok())
        }
        _ => false,
    }
}
