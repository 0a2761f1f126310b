//! Reads where a request goes. Takes a request and the scope of its connection; yields a host and a port, or why they are ambiguous. What
//! names a destination twice must name the same one.
//!
//! | connection | the request says it in | and must agree with |
//! |---|---|---|
//! | explicit, CONNECT | authority-form, port and all | Host, if there is one |
//! | explicit, anything else | the absolute-form's or HTTP/2's authority | Host |
//! | in a tunnel | Host or `:authority` | the CONNECT's host and port |
//! | captured | Host or `:authority` | the original port, and the original address if it is an address |
//!
//! Agreement is between hosts and ports, not between spellings (RFC 9110 §4.2.3). A name in a captured connection is not asked to lead to
//! the original address: it is resolved by this side, and what it leads to is dialled.

use std::net::SocketAddr;

use http::{Method, Request, header, uri};
use ringfence_policy::{
    Deny, Reason, TenantId,
    host::{Authority, Host, HostError},
};

/// Plain HTTP's port (RFC 9110 §4.2.1).
const HTTP: u16 = 80;
/// Of what is asked for in the open and should not be (RFC 9110 §4.2.2).
const HTTPS: u16 = 443;

/// What the requests of a connection may ask for, before policy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Anything: the workload asks a proxy.
    Proxy,
    /// What the CONNECT asked for, on behalf of the same tenant.
    Tunnel { host: Host, port: u16, tenant: TenantId },
    /// Whatever has the port of the original destination.
    Captured(SocketAddr),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) is_connect: bool,
}

impl Target {
    pub(super) fn of<B>(request: &Request<B>, scope: &Scope) -> Result<Self, Deny> {
        let named = request.uri().authority().map(parse).transpose()?;
        let host = match request.headers().get(header::HOST) {
            Some(value) if request.uri().authority().is_some_and(|authority| authority.as_str().as_bytes() == value) => named.clone(),
            Some(value) => Some(value.to_str().map_err(|_| malformed("Host must be ASCII")).and_then(authority)?),
            None => None,
        };
        if *request.method() == Method::CONNECT {
            return connect(named, host, scope);
        }
        if request.uri().scheme().is_some_and(|scheme| *scheme != uri::Scheme::HTTP) {
            return Err(malformed("only http is asked for in the open: use CONNECT for https"));
        }
        let target = match (named, host) {
            (None, _) if *scope == Scope::Proxy => {
                return Err(malformed("a proxy must be asked with an absolute-form target or CONNECT"));
            }
            (Some(named), Some(host)) => {
                let (named, host) = (Self::plain(named), Self::plain(host));
                if named != host {
                    return Err(mismatch("Host must equal the target's authority"));
                }
                named
            }
            (Some(authority), None) | (None, Some(authority)) => Self::plain(authority),
            (None, None) => return Err(malformed("Host or :authority must be present")),
        };
        target.agree(scope)?;
        Ok(target)
    }

    /// Where a request that [`Target::of`] refuses says that it goes, for the access log alone: nothing is dialled by it. `None`: it does not
    /// say, or not legibly.
    pub(super) fn said<B>(request: &Request<B>, scope: &Scope) -> Option<Self> {
        let authority = match (request.uri().authority(), scope) {
            (Some(named), _) => parse(named).ok()?,
            (None, Scope::Proxy) => return None,
            (None, Scope::Tunnel { .. } | Scope::Captured(_)) => authority(request.headers().get(header::HOST)?.to_str().ok()?).ok()?,
        };
        let is_connect = *request.method() == Method::CONNECT;
        let default = match request.uri().scheme_str() {
            _ if is_connect => None,
            Some("https") => Some(HTTPS),
            Some("http") | None => Some(HTTP),
            Some(_) => None,
        };
        Some(Self { host: authority.host, port: authority.port.or(default)?, is_connect })
    }

    fn plain(authority: Authority) -> Self {
        Self { host: authority.host, port: authority.port.unwrap_or(HTTP), is_connect: false }
    }

    fn agree(&self, scope: &Scope) -> Result<(), Deny> {
        match scope {
            Scope::Proxy => Ok(()),
            Scope::Tunnel { host, port, .. } if self.host == *host && self.port == *port => Ok(()),
            Scope::Tunnel { .. } => Err(mismatch("a request in a tunnel must name the CONNECT's host and port")),
            Scope::Captured(original) if self.port != original.port() => {
                Err(mismatch("a captured request must name the port that it was sent to"))
            }
            Scope::Captured(original) => match self.host {
                Host::Address(address) if address != original.ip().to_canonical() => {
                    Err(mismatch("a captured request that names an address must name the one that it was sent to"))
                }
                _ => Ok(()),
            },
        }
    }

    /// As Host says it: the port stands where it is not HTTP's own.
    pub(super) fn authority(&self) -> String {
        if self.port == HTTP { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

fn connect(named: Option<Authority>, host: Option<Authority>, scope: &Scope) -> Result<Target, Deny> {
    if *scope != Scope::Proxy {
        return Err(malformed("CONNECT is served where a proxy is asked, and nowhere else"));
    }
    let Some(Authority { host: name, port: Some(port) }) = named else {
        return Err(malformed("the target of CONNECT must be a host and a port"));
    };
    if host.is_some_and(|host| host.host != name || host.port.is_some_and(|other| other != port)) {
        return Err(mismatch("Host must equal the target of CONNECT"));
    }
    Ok(Target { host: name, port, is_connect: true })
}

fn parse(named: &uri::Authority) -> Result<Authority, Deny> {
    authority(named.as_str())
}

fn authority(text: &str) -> Result<Authority, Deny> {
    text.parse().map_err(|error: HostError| Deny::new(Reason::RequestMalformed, format!("the authority: {error}")))
}

fn malformed(what: &'static str) -> Deny {
    Deny::new(Reason::RequestMalformed, what)
}

fn mismatch(what: &'static str) -> Deny {
    Deny::new(Reason::EgressNameMismatch, what)
}
