//! Resource records, as far as policy looks into them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::Name;

/// Record types that mean something here (IANA DNS parameters).
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const RP: u16 = 17;
    pub const SIG: u16 = 24;
    pub const KEY: u16 = 25;
    pub const AAAA: u16 = 28;
    pub const NXT: u16 = 30;
    pub const SRV: u16 = 33;
    pub const NAPTR: u16 = 35;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const NSEC3: u16 = 50;
    pub const NSEC3PARAM: u16 = 51;
    pub const CDS: u16 = 59;
    pub const CDNSKEY: u16 = 60;
    pub const ZONEMD: u16 = 63;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const ANY: u16 = 255;
}

/// Whether records of a type can stand in a zone: the other numbers are for queries and messages (RFC 6895 §3.1).
pub(super) fn is_data_type(of: u16) -> bool {
    !matches!(of, 0 | rtype::OPT | 249..=255)
}

/// Whether data can be those of a rule's record.
pub(super) fn is_sound(of: u16, rdata: &[u8]) -> bool {
    match of {
        rtype::SOA => false,
        _ if !is_data_type(of) => false,
        rtype::A => rdata.len() == 4,
        rtype::AAAA => rdata.len() == 16,
        rtype::CNAME | rtype::NS | rtype::PTR => Name::from_wire(rdata).is_some_and(|(_, length)| length == rdata.len()),
        _ => rdata.len() <= usize::from(u16::MAX),
    }
}

/// A record of class IN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In lower case, even where the question was asked in another.
    pub owner: Name,
    pub rtype: u16,
    /// Seconds.
    pub ttl: u32,
    /// In wire form, names in it not compressed. Of records from upstream only those of the types A, AAAA, CNAME, NS, SVCB and HTTPS are
    /// looked into.
    pub rdata: Vec<u8>,
}

impl Record {
    /// The name that the record consists of: of CNAME and NS.
    pub(super) fn target(&self) -> Option<Name> {
        Name::from_wire(&self.rdata).filter(|(_, length)| *length == self.rdata.len()).map(|(name, _)| name)
    }

    /// The addresses that the record tells: its own, or the hints of a service binding.
    pub(super) fn addresses(&self, mut each: impl FnMut(IpAddr)) {
        match self.rtype {
            rtype::A => _ = <[u8; 4]>::try_from(&*self.rdata).map(|octets| each(Ipv4Addr::from(octets).into())),
            rtype::AAAA => _ = <[u8; 16]>::try_from(&*self.rdata).map(|octets| each(Ipv6Addr::from(octets).into())),
            rtype::SVCB | rtype::HTTPS => {
                for (key, value) in service_parameters(&self.rdata) {
                    match key {
                        IPV4_HINT => value.as_chunks::<4>().0.iter().for_each(|octets| each(Ipv4Addr::from(*octets).into())),
                        IPV6_HINT => value.as_chunks::<16>().0.iter().for_each(|octets| each(Ipv6Addr::from(*octets).into())),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes the key for Encrypted Client Hello out of an SVCB or HTTPS record: behind it, a connection hides the host that it is for.
    /// Whether there was one.
    pub fn strip_ech(&mut self) -> bool {
        if !matches!(self.rtype, rtype::SVCB | rtype::HTTPS) {
            return false;
        }
        let Some(head) = parameters_start(&self.rdata) else { return false };
        let mut kept = self.rdata[..head].to_vec();
        let mut found = false;
        for (key, value) in service_parameters(&self.rdata) {
            match key {
                ECH => found = true,
                // What is mandatory and gone would make the whole record unusable (RFC 9460 §8).
                MANDATORY => {
                    let keys: Vec<u8> =
                        value.as_chunks::<2>().0.iter().filter(|key| **key != ECH.to_be_bytes()).flatten().copied().collect();
                    if !keys.is_empty() {
                        push_parameter(&mut kept, MANDATORY, &keys);
                    }
                }
                _ => push_parameter(&mut kept, key, value),
            }
        }
        if found {
            self.rdata = kept;
        }
        found
    }
}

// RFC 9460 §14.3.2
const MANDATORY: u16 = 0;
const IPV4_HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6_HINT: u16 = 6;

/// Where the parameters begin: behind priority and target (RFC 9460 §2.2).
fn parameters_start(rdata: &[u8]) -> Option<usize> {
    Name::from_wire(rdata.get(2..)?).map(|(_, length)| 2 + length)
}

/// Up to where they are malformed.
fn service_parameters(rdata: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = parameters_start(rdata).and_then(|start| rdata.get(start..)).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d, after @ ..] = rest else { return None };
        let value = after.get(..usize::from(u16::from_be_bytes([*c, *d])))?;
        rest = &after[value.len()..];
        Some((u16::from_be_bytes([*a, *b]), value))
    })
}

fn push_parameter(rdata: &mut Vec<u8>, key: u16, value: &[u8]) {
    rdata.extend(key.to_be_bytes());
    rdata.extend((value.len() as u16).to_be_bytes());
    rdata.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn https(parameters: &[(u16, &[u8])]) -> Record {
        let mut rdata = b"\0\x01\0".to_vec();
        parameters.iter().for_each(|(key, value)| push_parameter(&mut rdata, *key, value));
        Record { owner: Name::root(), rtype: rtype::HTTPS, ttl: 1, rdata }
    }

    fn addresses(record: &Record) -> Vec<String> {
        let mut found = Vec::new();
        record.addresses(|address| found.push(address.to_string()));
        found
    }

    #[test]
    fn hints_are_addresses() {
        let v6 = Ipv6Addr::LOCALHOST.octets();
        assert_eq!(addresses(&https(&[(1, b"\x02h2"), (4, &[192, 0, 2, 1, 192, 0, 2, 2]), (6, &v6)])), ["192.0.2.1", "192.0.2.2", "::1"]);
        assert_eq!(addresses(&https(&[(4, &[192, 0, 2, 1, 9])])), ["192.0.2.1"]);
        let mut cut = https(&[(4, &[192, 0, 2, 1]), (6, &v6)]);
        cut.rdata.pop();
        assert_eq!(addresses(&cut), ["192.0.2.1"]);
        cut.rdata.clear();
        assert_eq!(addresses(&cut), [""; 0]);
    }

    #[test]
    fn ech_is_taken_out_with_its_mention() {
        for (given, left) in [
            (&[(0, &b"\0\x05"[..]), (5, b"key")][..], &[][..]),
            (&[(0, b"\0\x01\0\x05"), (1, b"\x02h2"), (5, b"key")], &[(0, &b"\0\x01"[..]), (1, b"\x02h2")]),
            (&[(4, &[192, 0, 2, 1]), (5, b"")], &[(4, &[192, 0, 2, 1])]),
        ] {
            let mut record = https(given);
            assert!(record.strip_ech());
            assert_eq!(record, https(left));
            assert!(!record.strip_ech());
            assert_eq!(record, https(left));
        }
    }
}
