//! Where a JWK set is fetched from, checked when it is read: what is wrong with it is the operator's to know before anything is dialled.

use std::{fmt, str::FromStr};

use hyper::{
    Uri,
    http::uri::{PathAndQuery, Scheme},
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, pem::PemObject};

pub(super) const MAX_URI_BYTES: usize = 2048;
const HTTPS_PORT: u16 = 443;

/// `jwks: { uri, caFile, dangerousAllowPrivate }`.
///
/// Any port will do (identity providers within a cluster rarely have 443), and so will an IP address for a host: what it is dialled by is
/// checked as a resolved one is, and the certificate must name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUri {
    uri: Uri,
    name: ServerName<'static>,
    port: u16,
    /// `None`: the public authorities.
    authorities: Option<Vec<TrustAnchor<'static>>>,
    allow_private: bool,
}

/// Why a text is no URI that a JWK set is fetched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksUriError {
    #[error("must be a URI of at most {MAX_URI_BYTES} bytes: https://host/path")]
    Syntax,
    #[error("must be https, not http: over http anybody on the way could answer with keys of their own")]
    Http,
    #[error("must be https: https://host/path")]
    Scheme,
    #[error("must have no user and no password: they would stand in every log")]
    User,
    #[error("must have no fragment: it is never sent")]
    Fragment,
    #[error("must name a host by its DNS name (an internationalised one in its xn-- form) or by an IP address")]
    Host,
    #[error("must have a port from 1 to 65535, or none for {HTTPS_PORT}")]
    Port,
}

/// Why a file names no authority to trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    #[error("must hold at least one PEM certificate: -----BEGIN CERTIFICATE-----")]
    None,
    #[error("holds PEM that cannot be read: {0}")]
    Pem(String),
    #[error("certificate {0} cannot be an authority: {1}")]
    Unusable(usize, String),
}

impl FromStr for JwksUri {
    type Err = JwksUriError;

    fn from_str(text: &str) -> Result<Self, JwksUriError> {
        if text.len() > MAX_URI_BYTES {
            return Err(JwksUriError::Syntax);
        }
        if text.contains('#') {
            return Err(JwksUriError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| JwksUriError::Syntax)?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP => return Err(JwksUriError::Http),
            _ => return Err(JwksUriError::Scheme),
        }
        let authority = uri.authority().ok_or(JwksUriError::Host)?;
        if authority.as_str().contains('@') {
            return Err(JwksUriError::User);
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| JwksUriError::Host)?;
        // `port_u16` takes what is no port for none at all.
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => HTTPS_PORT,
            Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0).ok_or(JwksUriError::Port)?,
            None => return Err(JwksUriError::Host),
        };
        Ok(Self { uri, name, port, authorities: None, allow_private: false })
    }
}

impl fmt::Display for JwksUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

impl JwksUri {
    /// Trusts the authorities whose certificates stand in `pem`, and no public one.
    pub fn trust_only(self, pem: &[u8]) -> Result<Self, AuthorityError> {
        Ok(Self { authorities: Some(authorities(pem)?), ..self })
    }

    /// Lets the name lead to a private or loopback address. Never to a link-local one or a cloud's metadata.
    pub fn dangerous_allow_private(self) -> Self {
        Self { allow_private: true, ..self }
    }

    /// Whether the two name the same set, however much they trust who answers for it.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        self.uri == other.uri
    }

    pub(super) fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn authorities(&self) -> Vec<TrustAnchor<'static>> {
        self.authorities.clone().unwrap_or_else(|| webpki_roots::TLS_SERVER_ROOTS.to_vec())
    }

    pub(super) fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// The request target in origin form (RFC 9112 §3.2.1).
    pub(super) fn target(&self) -> &str {
        self.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

/// The authorities whose certificates stand in `pem`, one at least.
pub(super) fn authorities(pem: &[u8]) -> Result<Vec<TrustAnchor<'static>>, AuthorityError> {
    let mut store = RootCertStore::empty();
    for (i, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| AuthorityError::Pem(error.to_string()))?;
        store.add(certificate).map_err(|error| AuthorityError::Unusable(i + 1, error.to_string()))?;
    }
    if store.is_empty() { Err(AuthorityError::None) } else { Ok(store.roots) }
}
