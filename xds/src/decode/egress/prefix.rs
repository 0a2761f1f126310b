//! A prefix of addresses as an operator writes it. Stricter than `ipnet`'s own reader, which takes host bits for granted.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// What would be right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PrefixError {
    #[error("must be an address or a prefix, e.g. 10.20.0.0/16 or 2001:db8::/32")]
    Malformed,
    #[error("must have no bits set behind its length: {0}")]
    HostBits(IpNet),
    /// A connection to it is one to the IPv4 address.
    #[error("must be written as IPv4: {0}")]
    Mapped(Ipv4Net),
}

/// An address alone is the prefix of itself.
pub(super) fn prefix(text: &str) -> Result<IpNet, PrefixError> {
    let prefix = match text.split_once('/') {
        None => IpNet::from(text.parse::<IpAddr>().map_err(|_| PrefixError::Malformed)?),
        Some((address, length)) => {
            let address = address.parse::<IpAddr>().map_err(|_| PrefixError::Malformed)?;
            let is_number = length == "0" || (!length.starts_with('0') && length.bytes().all(|b| b.is_ascii_digit()));
            let length = length.parse::<u8>().ok().filter(|_| is_number).ok_or(PrefixError::Malformed)?;
            IpNet::new(address, length).map_err(|_| PrefixError::Malformed)?
        }
    };
    if let Some(v4) = mapped(&prefix) {
        return Err(PrefixError::Mapped(v4));
    }
    if prefix != prefix.trunc() {
        return Err(PrefixError::HostBits(prefix.trunc()));
    }
    Ok(prefix)
}

/// The IPv4 of `::ffff:0:0/96` and what lies in it (RFC 4291 §2.5.5.2).
fn mapped(prefix: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(v6) = prefix else { return None };
    let length = v6.prefix_len().checked_sub(96)?;
    let address: Ipv4Addr = v6.addr().to_ipv4_mapped()?;
    Some(Ipv4Net::new(address, length).ok()?.trunc())
}
