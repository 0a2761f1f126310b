//! Where a zone is transferred from, checked when it is read.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ringfence_policy::rpz::Name;
use rustls::RootCertStore;
use rustls_pki_types::{ServerName, TrustAnchor};

use super::tsig::TsigKey;
use crate::feed::uri::{AuthorityError, authorities};

const PORT: u16 = 53;
/// RFC 9103 §7.1.
const TLS_PORT: u16 = 853;

/// `transfer: { primary, zone, tsig, tls }`.
///
/// An address and no name: what it would resolve to is what the zone is there to judge. It may be a private one, since the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    pub(super) address: SocketAddr,
    pub(super) zone: Name,
    pub(super) tsig: Option<TsigKey>,
    pub(super) tls: Option<Tls>,
}

/// Over TLS (RFC 9103): who must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub(super) server_name: ServerName<'static>,
    /// `None`: the public authorities.
    authorities: Option<Vec<TrustAnchor<'static>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrimaryError {
    #[error("must be an IP address, with a port or without: 192.0.2.53:53, [2001:db8::53]:53 or 192.0.2.53")]
    Address,
    #[error("must be the DNS name, or the IP address, that the primary's certificate is for")]
    ServerName,
}

impl Primary {
    /// `address`: with or without a port.
    pub fn new(address: &str, zone: Name, tsig: Option<TsigKey>, tls: Option<Tls>) -> Result<Self, PrimaryError> {
        let port = if tls.is_some() { TLS_PORT } else { PORT };
        Ok(Self { address: parse_address(address, port)?, zone, tsig, tls })
    }

    /// The zone's own name.
    pub fn zone(&self) -> &Name {
        &self.zone
    }
}

/// Whether `text` can be a primary's address.
pub fn check_address(text: &str) -> Result<(), PrimaryError> {
    parse_address(text, PORT).map(drop)
}

fn parse_address(text: &str, port: u16) -> Result<SocketAddr, PrimaryError> {
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, port)));
    address.ok().filter(|address| address.port() != 0 && !address.ip().is_unspecified()).ok_or(PrimaryError::Address)
}

impl fmt::Display for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Tls {
    pub fn new(server_name: &str) -> Result<Self, PrimaryError> {
        let server_name = ServerName::try_from(server_name.to_owned()).map_err(|_| PrimaryError::ServerName)?;
        Ok(Self { server_name, authorities: None })
    }

    /// Trusts the authorities whose certificates stand in `pem`, and no public one.
    pub fn trust_only(self, pem: &[u8]) -> Result<Self, AuthorityError> {
        Ok(Self { authorities: Some(authorities(pem)?), ..self })
    }

    pub(super) fn roots(&self) -> RootCertStore {
        RootCertStore { roots: self.authorities.clone().unwrap_or_else(|| webpki_roots::TLS_SERVER_ROOTS.to_vec()) }
    }
}
