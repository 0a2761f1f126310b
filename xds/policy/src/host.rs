//! Hosts: DNS names and IP addresses, normalised once into a type.
//!
//! What an attacker may spell in many ways (`0x7f.1`, `127.1`, `①②⑦.0.0.1`, `example.com.`) has one form here or none: a host is a canonical
//! IP address or an ASCII DNS name whose last label is no number. Nothing is guessed at, percent-decoded or mapped.

use std::{
    borrow::Borrow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

/// Why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("must be a DNS name or an IP address")]
    Malformed,
    /// `127.1`, `0x7f000001`, `2130706433`: some resolvers take these for addresses.
    #[error("must write an IPv4 address as four decimal numbers without leading zeros")]
    Number,
    /// `xn--a`: what a reader shows for it is not what a resolver looks up, or nothing at all.
    #[error("must have valid A-labels (UTS 46, RFC 5890 §2.3.2.1)")]
    ALabel,
}

/// A DNS name in lower case, without the dot of the root: 1 to 253 octets of labels of 1 to 63 letters, digits, `-` and `_`
/// (RFC 1035 §2.3.4, RFC 2181 §11; internationalised names in their ASCII form, RFC 5890).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label; `None` of a single label.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, parent)| Self(parent.into()))
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = HostError;

    /// One dot at the end is the root's and is dropped. Upper case is accepted: names have no case (RFC 4343).
    fn from_str(text: &str) -> Result<Self, HostError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > 253 || !labels(name).all(is_label) {
            return Err(HostError::Malformed);
        }
        // WHATWG URL, "ends in a number": what a lenient reader takes for an IPv4 address is no name.
        let last = name.rsplit('.').next().unwrap_or(name);
        let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        if last.bytes().all(|b| b.is_ascii_digit()) || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(HostError::Number);
        }
        let name = name.to_ascii_lowercase();
        // What an A-label says may not be ASCII spelled in another way, nor something that it would be mapped to.
        if labels(&name).any(|label| label.starts_with(b"xn--")) && idna::domain_to_ascii(&name).ok().as_ref() != Some(&name) {
            return Err(HostError::ALabel);
        }
        Ok(Self(name.into()))
    }
}

fn labels(name: &str) -> impl Iterator<Item = &[u8]> {
    name.as_bytes().split(|octet| *octet == b'.')
}

fn is_label(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The host of a URI's authority (RFC 3986 §3.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(HostName),
    Address(IpAddr),
}

impl FromStr for Host {
    type Err = HostError;

    /// IPv6 stands in brackets, without a zone.
    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Some(rest) = text.strip_prefix('[') {
            let address = rest.strip_suffix(']').ok_or(HostError::Malformed)?;
            return address.parse::<Ipv6Addr>().map(|address| Host::Address(address.into())).map_err(|_| HostError::Malformed);
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Host::Address(address.into()));
        }
        text.parse().map(Host::Name)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => name.fmt(f),
            Host::Address(IpAddr::V4(address)) => address.fmt(f),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// `host` or `host:port`, without userinfo.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    pub host: Host,
    pub port: Option<u16>,
}

impl FromStr for Authority {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (host, port) = match text.rsplit_once(':') {
            // The colons of an IPv6 address stand before its bracket.
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => None,
            Some(port) if !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => {
                Some(port.parse::<u16>().ok().filter(|port| *port != 0).ok_or(HostError::Malformed)?)
            }
            Some(_) => return Err(HostError::Malformed),
        };
        Ok(Self { host: host.parse()?, port })
    }
}

/// Which names a rule means: `api.example.com` itself, or `*.example.com`: everything below, at any depth, and not `example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(HostName),
    /// The suffix without its asterisk.
    Below(HostName),
}

impl HostPattern {
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            HostPattern::Exact(exact) => exact == name,
            HostPattern::Below(suffix) => {
                name.as_str().strip_suffix(suffix.as_str()).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix("*.") {
            Some(suffix) => suffix.parse().map(HostPattern::Below),
            None => text.parse().map(HostPattern::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => name.fmt(f),
            HostPattern::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests;
