//! What kind of address an IP address is. Not every special one is unreachable: the question is whether a name that somebody else
//! controls may lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use AddressClass::{EmbeddedV4, LinkLocal, Loopback, Metadata, Private, Public, Reserved};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Globally reachable unicast.
    Public,
    /// Somebody's own network: RFC 1918, the carriers' shared space (RFC 6598), IPv6 unique local (RFC 4193).
    Private,
    Loopback,
    LinkLocal,
    /// Where a cloud answers its machines, credentials included.
    Metadata,
    /// IPv6 that a gateway turns into whichever IPv4 address it carries.
    EmbeddedV4,
    /// The rest of what the registries set aside, and all that no registry has given out: documentation, benchmarks, multicast.
    Reserved,
}

impl AddressClass {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Public => "public",
            Private => "private",
            Loopback => "loopback",
            LinkLocal => "link-local",
            Metadata => "metadata",
            EmbeddedV4 => "embedded IPv4",
            Reserved => "reserved",
        }
    }
}

/// Whether any host may be dialled there without further leave.
pub fn is_public(address: IpAddr) -> bool {
    AddressClass::of(address) == Public
}

/// The IPv4 address that an [`EmbeddedV4`] one leads to, by what makes it: 6to4 (RFC 3056 §2), Teredo (RFC 4380 §4), and for all others the
/// last 32 bits, as mapped addresses, ISATAP and NAT64 with a prefix of 96 bits have it (RFC 6052 §2.2). How long the prefix of a NAT64 of
/// one's own is cannot be seen; with a shorter one these bits are mostly zeros, which are no address that anyone may dial.
pub fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let last = v6.to_bits() as u32;
    match v6.segments() {
        _ if of_v6(v6) != EmbeddedV4 => None,
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last)),
        _ => Some(Ipv4Addr::from_bits(last)),
    }
}

/// Whether a prefix says by itself that a private network is meant: `10.20.0.0/16`, and not `0.0.0.0/0`.
pub fn is_private(prefix: &IpNet) -> bool {
    let length = u32::from(prefix.prefix_len());
    match prefix.addr() {
        IpAddr::V4(address) => V4.iter().any(|row| row.2 == Private && row.1 <= length && is_within_v4(address, row.0, row.1)),
        IpAddr::V6(address) => V6.iter().any(|row| row.2 == Private && row.1 <= length && is_within_v6(address, row.0, row.1)),
    }
}

/// What is public but for [`special_prefixes`], as far as prefixes can say it: an ISATAP address is told by its end.
pub fn public_prefixes() -> Vec<IpNet> {
    rows().filter(|(_, class)| *class == Public).map(|(prefix, _)| prefix).collect()
}

/// What is set aside, whatever stands around it.
pub fn special_prefixes() -> Vec<IpNet> {
    IpNet::aggregate(&rows().filter(|(prefix, class)| *class != Public && prefix.prefix_len() > 0).map(|(prefix, _)| prefix).collect())
}

fn rows() -> impl Iterator<Item = (IpNet, AddressClass)> {
    let v4 = V4.iter().map(|&(address, length, class)| (address.into(), length, class));
    let v6 = V6.iter().map(|&(address, length, class)| (address.into(), length, class));
    v4.chain(v6).filter_map(|(address, length, class): (IpAddr, u32, _)| {
        // A table's length is one of its family's.
        Some((IpNet::new(address, u8::try_from(length).ok()?).ok()?, class))
    })
}

/// The IANA IPv4 Special-Purpose Address Registry, multicast (RFC 5771) and the clouds' own addresses. The first match holds.
/// Not split: pieces of a block that the registry calls reachable (192.0.0.9, .10) are anycast addresses of routers, not of servers.
const V4: &[(Ipv4Addr, u32, AddressClass)] = &[
    (v4(0, 0, 0, 0), 8, Reserved), // "this network", RFC 791; Linux connects 0.0.0.0 to itself
    (v4(10, 0, 0, 0), 8, Private),
    (v4(100, 100, 100, 200), 32, Metadata), // Alibaba
    (v4(100, 64, 0, 0), 10, Private),
    (v4(127, 0, 0, 0), 8, Loopback),
    (v4(168, 63, 129, 16), 32, Metadata), // Azure; its block is public
    (v4(169, 254, 169, 254), 32, Metadata),
    (v4(169, 254, 170, 2), 32, Metadata),  // AWS ECS
    (v4(169, 254, 170, 23), 32, Metadata), // AWS EKS
    (v4(169, 254, 0, 0), 16, LinkLocal),
    (v4(172, 16, 0, 0), 12, Private),
    (v4(192, 0, 0, 192), 32, Metadata), // Oracle
    (v4(192, 0, 0, 0), 24, Reserved),   // protocol assignments, RFC 6890
    (v4(192, 0, 2, 0), 24, Reserved),   // documentation, RFC 5737
    (v4(192, 88, 99, 0), 24, Reserved), // 6to4 relays, RFC 7526
    (v4(192, 168, 0, 0), 16, Private),
    (v4(198, 18, 0, 0), 15, Reserved),   // benchmarks, RFC 2544
    (v4(198, 51, 100, 0), 24, Reserved), // documentation
    (v4(203, 0, 113, 0), 24, Reserved),  // documentation
    (v4(224, 0, 0, 0), 3, Reserved),     // multicast; future use (RFC 1112) with broadcast
    (v4(0, 0, 0, 0), 0, Public),
];

/// The IANA IPv6 Special-Purpose Address Registry, the transition mechanisms and the clouds' own addresses. The first match holds.
const V6: &[(Ipv6Addr, u32, AddressClass)] = &[
    (v6(0, 0, 0, 1), 128, Loopback),
    (v6(0, 0, 0, 0), 128, Reserved),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, EmbeddedV4), // mapped, RFC 4291
    (v6(0, 0, 0, 0), 96, EmbeddedV4),                             // compatible, deprecated
    (v6(0x64, 0xff9b, 0, 0), 96, EmbeddedV4),                     // NAT64, RFC 6052
    (v6(0x64, 0xff9b, 1, 0), 48, EmbeddedV4),                     // NAT64 of one's own, RFC 8215
    (v6(0xfd00, 0xec2, 0, 0x254), 128, Metadata),                 // AWS
    (v6(0xfd00, 0xec2, 0, 0x23), 128, Metadata),                  // AWS EKS
    (v6(0xfd20, 0xce, 0, 0x254), 128, Metadata),                  // Google
    (v6(0xfd00, 0x42, 0, 0x42), 128, Metadata),                   // Scaleway
    (v6(0xfc00, 0, 0, 0), 7, Private),
    (v6(0xfe80, 0, 0, 0), 10, LinkLocal),
    (v6(0x2001, 0, 0, 0), 32, EmbeddedV4),   // Teredo, RFC 4380
    (v6(0x2001, 0, 0, 0), 23, Reserved),     // protocol assignments, RFC 2928
    (v6(0x2001, 0xdb8, 0, 0), 32, Reserved), // documentation, RFC 3849
    (v6(0x2002, 0, 0, 0), 16, EmbeddedV4),   // 6to4, RFC 3056
    (v6(0x3fff, 0, 0, 0), 20, Reserved),     // documentation, RFC 9637
    (v6(0x2000, 0, 0, 0), 3, Public),
    (v6(0, 0, 0, 0), 0, Reserved), // not given out for unicast, RFC 4291 §2.4
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// The first three groups and the last.
const fn v6(a: u16, b: u16, c: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last)
}

fn of_v4(address: Ipv4Addr) -> AddressClass {
    V4.iter().find(|(network, length, _)| is_within_v4(address, *network, *length)).map_or(Reserved, |(.., class)| *class)
}

fn of_v6(address: Ipv6Addr) -> AddressClass {
    // ISATAP (RFC 5214 §6.1) may stand below any prefix of 64 bits.
    if matches!(address.segments(), [.., 0 | 0x200, 0x5efe, _, _]) {
        return EmbeddedV4;
    }
    V6.iter().find(|(network, length, _)| is_within_v6(address, *network, *length)).map_or(Reserved, |(.., class)| *class)
}

fn is_within_v4(address: Ipv4Addr, network: Ipv4Addr, length: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
}

fn is_within_v6(address: Ipv6Addr, network: Ipv6Addr, length: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
}

#[cfg(test)]
mod tests;
