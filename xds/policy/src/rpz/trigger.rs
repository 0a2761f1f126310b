//! What a rule looks at, read from its owner name.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::name::{Key, labels};

/// The kinds of trigger, in order of precedence within one zone (draft-vixie-dnsop-dns-rpz-00 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// The address that asks.
    ClientIp,
    /// The name that is asked for, and every name that a CNAME leads to.
    Qname,
    /// An address in the answer.
    Ip,
    /// The name of a server of the name's zone, or of a zone above it.
    NsDname,
    /// The address of such a server.
    NsIp,
}

impl Trigger {
    pub const ALL: [Trigger; 5] = [Trigger::ClientIp, Trigger::Qname, Trigger::Ip, Trigger::NsDname, Trigger::NsIp];

    pub const fn as_str(self) -> &'static str {
        match self {
            Trigger::ClientIp => "CLIENT-IP",
            Trigger::Qname => "QNAME",
            Trigger::Ip => "IP",
            Trigger::NsDname => "NSDNAME",
            Trigger::NsIp => "NSIP",
        }
    }

    /// The label before the zone's origin that makes a rule one of this kind.
    pub(super) const fn label(self) -> Option<&'static str> {
        match self {
            Trigger::ClientIp => Some("rpz-client-ip"),
            Trigger::Qname => None,
            Trigger::Ip => Some("rpz-ip"),
            Trigger::NsDname => Some("rpz-nsdname"),
            Trigger::NsIp => Some("rpz-nsip"),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule's trigger with what it compares to.
#[derive(Clone)]
pub(super) enum Pattern {
    /// The name itself, or with `wildcard` everything below it.
    Name {
        key: Key,
        wildcard: bool,
    },
    Prefix(IpNet),
}

/// Why an owner name is no trigger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    #[error("an address trigger must be PREFIXLENGTH.REVERSED-ADDRESS, such as 24.0.2.0.192 or 48.zz.1.db8.2001")]
    Shape,
    #[error("a prefix length must be a number from 1 to {0}, without leading zeros")]
    Length(u8),
    #[error("an IPv4 address must be four numbers from 0 to 255 without leading zeros, in reverse order")]
    V4,
    #[error("an IPv6 address must be groups of hexadecimal digits in reverse order, eight of them or one `zz` for the groups of zeros")]
    V6,
    #[error("the address has bits beyond the prefix; {0} would be right")]
    HostBits(String),
    #[error("there must be a name before rpz-nsdname")]
    NoName,
    #[error("`{0}` is no trigger; known are rpz-client-ip, rpz-ip, rpz-nsdname and rpz-nsip")]
    Unknown(String),
}

/// `owner`: the labels before the zone's origin, at least one.
pub(super) fn parse(owner: &[u8]) -> Result<(Trigger, Pattern), TriggerError> {
    let last = labels(owner).last().unwrap_or_default();
    let special = Trigger::ALL.into_iter().find(|trigger| trigger.label().is_some_and(|label| label.as_bytes() == last));
    let Some(trigger) = special else {
        // A name that asks for such a top-level domain does not exist; a trigger that we lack must not become one.
        if last.starts_with(b"rpz-") {
            return Err(TriggerError::Unknown(String::from_utf8_lossy(last).into_owned()));
        }
        return Ok((Trigger::Qname, name(owner)));
    };
    let before = &owner[..owner.len() - last.len() - 1];
    if trigger == Trigger::NsDname {
        return if before.is_empty() { Err(TriggerError::NoName) } else { Ok((trigger, name(before))) };
    }
    prefix(before).map(|prefix| (trigger, Pattern::Prefix(prefix)))
}

fn name(labels: &[u8]) -> Pattern {
    match labels.strip_prefix(b"\x01*") {
        Some(below) => Pattern::Name { key: Key::of_labels(below), wildcard: true },
        None => Pattern::Name { key: Key::of_labels(labels), wildcard: false },
    }
}

/// draft-vixie-dnsop-dns-rpz-00 §4.1.1.
fn prefix(encoded: &[u8]) -> Result<IpNet, TriggerError> {
    let mut parts = labels(encoded).map(|label| std::str::from_utf8(label).unwrap_or_default());
    let length = parts.next().ok_or(TriggerError::Shape)?;
    let mut address: Vec<&str> = parts.collect();
    address.reverse();
    if address.is_empty() {
        return Err(TriggerError::Shape);
    }
    let is_v4 = address.len() == 4 && !address.contains(&"zz");
    let longest = if is_v4 { 32 } else { 128 };
    let length = number(length, 3).filter(|length| (1..=longest).contains(length)).ok_or(TriggerError::Length(longest as u8))? as u8;
    let given = if is_v4 { v4(&address)? } else { v6(&address)? };
    let net = IpNet::new(given, length).map_err(|_| TriggerError::Length(longest as u8))?.trunc();
    if net.addr() == given { Ok(net) } else { Err(TriggerError::HostBits(encode(net))) }
}

fn v4(address: &[&str]) -> Result<IpAddr, TriggerError> {
    let mut octets = [0; 4];
    for (octet, text) in octets.iter_mut().zip(address) {
        *octet = number(text, 3).and_then(|value| u8::try_from(value).ok()).ok_or(TriggerError::V4)?;
    }
    Ok(Ipv4Addr::from(octets).into())
}

fn v6(address: &[&str]) -> Result<IpAddr, TriggerError> {
    let group = |text: &&str| {
        let hexadecimal = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        hexadecimal.then(|| u16::from_str_radix(text, 16).ok()).flatten().ok_or(TriggerError::V6)
    };
    let mut groups = [0; 8];
    match address.iter().position(|part| *part == "zz") {
        None if address.len() == 8 => {
            for (to, from) in groups.iter_mut().zip(address) {
                *to = group(from)?;
            }
        }
        // `zz` stands for at least one group.
        Some(gap) if address.len() <= 8 => {
            for (to, from) in groups.iter_mut().zip(&address[..gap]) {
                *to = group(from)?;
            }
            for (to, from) in groups.iter_mut().rev().zip(address[gap + 1..].iter().rev()) {
                *to = group(from)?;
            }
        }
        _ => return Err(TriggerError::V6),
    }
    Ok(Ipv6Addr::from(groups).into())
}

/// A decimal number in its one form.
fn number(text: &str, digits: usize) -> Option<u16> {
    let plain =
        !text.is_empty() && text.len() <= digits && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// An address trigger as an owner name spells it.
pub(super) fn encode(prefix: IpNet) -> String {
    match prefix {
        IpNet::V4(net) => {
            let [a, b, c, d] = net.addr().octets();
            format!("{}.{d}.{c}.{b}.{a}", net.prefix_len())
        }
        IpNet::V6(net) => {
            let groups = net.addr().segments();
            let (gap, zeros) = longest_zeros(&groups);
            let mut text = net.prefix_len().to_string();
            for (index, group) in groups.iter().enumerate().rev() {
                if zeros > 1 && (gap..gap + zeros).contains(&index) {
                    if index == gap {
                        text.push_str(".zz");
                    }
                } else {
                    text.push_str(&format!(".{group:x}"));
                }
            }
            text
        }
    }
}

/// Where the longest run of zeros begins, and its length.
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let runs = (0..8).map(|start| (start, groups[start..].iter().take_while(|group| **group == 0).count()));
    runs.rev().max_by_key(|(_, length)| *length).unwrap_or((0, 0))
}

/// An IPv4-mapped IPv6 address is the IPv4 address.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// For comparing prefixes of both families: longer ones first, then smaller addresses. IPv4 counts as IPv4-mapped.
pub(super) fn specificity(prefix: IpNet) -> (u8, std::cmp::Reverse<u128>) {
    match prefix {
        IpNet::V4(net) => (net.prefix_len() + 96, std::cmp::Reverse(net.addr().to_ipv6_mapped().to_bits())),
        IpNet::V6(net) => (net.prefix_len(), std::cmp::Reverse(net.addr().to_bits())),
    }
}

pub(super) fn net(address: u128, length: u8, is_v4: bool) -> Option<IpNet> {
    match is_v4 {
        true => Ipv4Net::new(Ipv4Addr::from_bits(u32::try_from(address).ok()?), length).ok().map(IpNet::V4),
        false => Ipv6Net::new(Ipv6Addr::from_bits(address), length).ok().map(IpNet::V6),
    }
}
