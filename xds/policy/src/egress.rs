//! Where a tenant's workload may connect to.
//!
//! A decision is taken in two steps, and the second cannot be taken without the first:
//!
//! 1. [`EgressPolicy::permit`]: which rule lists the host, port, protocol and, of plain HTTP, method and path. Yields a [`Permit`].
//! 2. [`Permit::destinations`]: given what the host resolved to, the addresses that may be dialled. Yields [`AllowedDestination`]s, the only
//!    thing that the sidecar's `connect` takes. A name is resolved once, between the two; nothing is resolved again after them.
//!
//! In this order, for an enforced policy:
//!
//! 1. a rule must list the host: by name for a name, by prefix for an address (`egress_host_not_listed`)
//! 2. such a rule must list the port (`egress_port_not_listed`)
//! 3. such a rule must be of the protocol that was seen (`egress_protocol_not_allowed`)
//! 4. of plain HTTP, such a rule must list the request (`egress_request_denied`)
//! 5. the address must not be the sidecar's own or in the platform's `deny`, and must be public, or opened by the platform
//!    (`dangerousAllowPrivate`), or private and in a prefix of such a rule that is itself all private (`egress_address_forbidden`)
//! 6. where such rules bind their hosts to `cidrs`, the address must be in them (`egress_address_forbidden`)
//!
//! An IPv6 address that leads to an IPv4 one is judged as both: what either may not be, it may not be.
//!
//! A host at a port is one peer or none: where a rule that lists them names a peer, only rules that name the same one let anything through,
//! and what they let through goes to that peer alone, whatever the mode.
//!
//! Shadow mode suspends 1 to 4 and 6. It never suspends 5: those addresses are the platform's and other tenants'.

mod rules;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

pub use self::rules::EgressRules;
use crate::{
    Deny, PeerWorkload, Reason, RuleRef, TenantId,
    address::{self, AddressClass},
    host::{Host, HostPattern},
    path::NormalPath,
    ratelimit::{Mode, Rate},
    scope::RequestMatch,
};

/// `Tenant.spec.egress`. The default allows nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EgressPolicy {
    pub mode: Mode,
    pub rules: EgressRules,
    /// Connections open at once at one sidecar; `None`: [`DEFAULT_CONNECTIONS`].
    pub max_connections: Option<u32>,
    /// New connections; `None`: [`DEFAULT_CONNECTION_RATE`] a second.
    pub connection_rate: Option<Rate>,
}

pub const DEFAULT_CONNECTIONS: u32 = 1024;
pub const DEFAULT_CONNECTION_RATE: u32 = 200;

/// One `allow` entry. `hosts` alone: these names. `cidrs` alone: these addresses, asked for as addresses. Both: these names, as long as they
/// lead to these addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct EgressRule {
    pub hosts: Vec<HostPattern>,
    pub cidrs: Vec<IpNet>,
    pub ports: Vec<u16>,
    pub protocol: Protocol,
    /// Of plain HTTP; empty: every request.
    pub requests: Vec<RequestMatch>,
    /// Of plain HTTP: the workload that must be there, and that is asked over mTLS.
    pub peer: Option<PeerWorkload>,
    pub rule: RuleRef,
}

/// What a rule lets a connection speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS whose ClientHello names the host openly. It is not terminated.
    Tls,
    /// Plain HTTP/1 or HTTP/2, looked at request by request.
    Http,
    /// Anything.
    Tcp,
}

/// `Platform.spec.egress`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlatformEgress {
    pub deny: Vec<IpNet>,
    /// Ranges that are not public and may be reached all the same, if a rule allows it.
    pub dangerous_allow_private: Vec<IpNet>,
}

/// What was seen of a connection so far.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// CONNECT, before its tunnel carries anything: some rule must list host and port.
    Nothing,
    Tls,
    Http(HttpRequest<'a>),
    /// Neither TLS nor HTTP, or the other side speaks first.
    Opaque,
}

#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    pub method: &'a str,
    pub path: &'a NormalPath<'a>,
}

/// Leave to resolve a host and to dial one of its addresses.
#[derive(Clone, Debug)]
#[must_use]
pub struct Permit<'a> {
    /// Empty where shadow mode lets through what no rule lists.
    rules: Vec<&'a EgressRule>,
    port: u16,
    mode: Mode,
    /// The workload that must be there.
    pub peer: Option<&'a PeerWorkload>,
    /// What would have been refused, in shadow mode.
    pub shadow: Option<Deny>,
}

/// An address that may be dialled for one connection. Only [`Permit::destinations`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedDestination {
    address: SocketAddr,
    rule: Option<RuleRef>,
    shadow: Option<Deny>,
}

impl AllowedDestination {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `None`: let through by shadow mode alone.
    pub fn rule(&self) -> Option<&RuleRef> {
        self.rule.as_ref()
    }

    /// What would have been refused, in shadow mode.
    pub fn shadow(&self) -> Option<&Deny> {
        self.shadow.as_ref()
    }
}

impl EgressPolicy {
    /// Whether `host` may be asked for at `port`, by what was seen. `tenant`: for `{tenant}` in paths, and for the operator's eyes.
    pub fn permit<'a>(&'a self, host: &Host, port: u16, seen: Seen<'_>, tenant: &TenantId) -> Result<Permit<'a>, Deny> {
        let rules = self.rules.listing(host);
        let peer = rules.iter().filter(|rule| rule.ports.contains(&port)).find_map(|rule| rule.peer.as_ref());
        let (rules, shadow) = match narrowed(rules, host, port, seen, peer, tenant) {
            Ok(rules) => (rules, None),
            Err(deny) if self.mode == Mode::Shadow => (Vec::new(), Some(deny)),
            Err(deny) => return Err(deny),
        };
        Ok(Permit { rules, port, mode: self.mode, peer, shadow })
    }

    /// Names that rules of protocol `tcp` list one by one for `port`: an opaque connection that was captured says no name, and may go where
    /// one of these leads.
    pub fn opaque_names(&self, port: u16) -> impl Iterator<Item = &crate::host::HostName> {
        let rules = self.rules.iter().filter(move |rule| rule.protocol == Protocol::Tcp && rule.ports.contains(&port));
        rules.flat_map(|rule| &rule.hosts).filter_map(|pattern| match pattern {
            HostPattern::Exact(name) => Some(name),
            HostPattern::Below(_) => None,
        })
    }
}

/// Those of `rules`, which list the host, that let it through; never none.
fn narrowed<'a>(
    mut rules: Vec<&'a EgressRule>,
    host: &Host,
    port: u16,
    seen: Seen<'_>,
    peer: Option<&PeerWorkload>,
    tenant: &TenantId,
) -> Result<Vec<&'a EgressRule>, Deny> {
    if rules.is_empty() {
        let list = RuleRef::new(format!("Tenant/{tenant}: egress.allow"));
        return Err(Deny::new(Reason::EgressHostNotListed, format!("no rule names {host}")).by(&list));
    }
    narrow(
        &mut rules,
        |rule| rule.ports.contains(&port),
        Reason::EgressPortNotListed,
        || format!("{host} is listed with other ports than {port}"),
    )?;
    narrow(
        &mut rules,
        |rule| rule.speaks(seen) && rule.peer.as_ref() == peer,
        Reason::EgressProtocolNotAllowed,
        || format!("{host}:{port} is listed for another protocol than {}", seen.as_str()),
    )?;
    if let Seen::Http(request) = seen {
        narrow(
            &mut rules,
            |rule| rule.lists_request(request, tenant),
            Reason::EgressRequestDenied,
            || format!("{host}:{port} is listed for other requests than {} {}", request.method, request.path.as_str()),
        )?;
    }
    Ok(rules)
}

/// Leaves the rules that let something through. Where none does, the first of them is the one that refuses.
fn narrow(
    rules: &mut Vec<&EgressRule>,
    lets_through: impl Fn(&EgressRule) -> bool,
    reason: Reason,
    why: impl FnOnce() -> String,
) -> Result<(), Deny> {
    let first = rules.first().copied();
    rules.retain(|rule| lets_through(rule));
    match first {
        Some(first) if rules.is_empty() => Err(Deny::new(reason, why()).by(&first.rule)),
        _ => Ok(()),
    }
}

impl Seen<'_> {
    fn as_str(self) -> &'static str {
        match self {
            Seen::Nothing => "CONNECT",
            Seen::Tls => "TLS",
            Seen::Http(_) => "HTTP",
            Seen::Opaque => "one that is neither TLS nor HTTP",
        }
    }
}

impl EgressRule {
    fn speaks(&self, seen: Seen<'_>) -> bool {
        match seen {
            // A tunnel's octets are the workload's; to a peer this side speaks TLS.
            Seen::Nothing => self.peer.is_none(),
            Seen::Tls => matches!(self.protocol, Protocol::Tls | Protocol::Tcp),
            Seen::Http(_) => matches!(self.protocol, Protocol::Http | Protocol::Tcp),
            Seen::Opaque => self.protocol == Protocol::Tcp,
        }
    }

    fn lists_request(&self, request: HttpRequest<'_>, tenant: &TenantId) -> bool {
        self.requests.is_empty() || self.requests.iter().any(|matcher| matcher.matches(request.method, request.path, tenant))
    }
}

impl Permit<'_> {
    /// Those by which it was given, in their order; none where shadow mode lets through what no rule lists.
    pub fn rules(&self) -> impl Iterator<Item = &RuleRef> {
        self.rules.iter().map(|rule| &rule.rule)
    }

    /// Those of `addresses` that may be dialled, in their order and never none; the reason why not, where none may. `is_own`: whether it is
    /// one of the sidecar's own listeners.
    pub fn destinations(
        &self,
        addresses: &[IpAddr],
        platform: &PlatformEgress,
        is_own: impl Fn(SocketAddr) -> bool,
    ) -> Result<Vec<AllowedDestination>, Deny> {
        let mut allowed = Vec::with_capacity(addresses.len());
        let mut refused = None;
        for &address in addresses {
            match self.judge(address, platform, &is_own) {
                Ok(destination) => allowed.push(destination),
                Err(deny) => drop(refused.get_or_insert(deny)),
            }
        }
        match refused {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(deny) => Err(deny),
            None => Err(Deny::new(Reason::EgressNameUnresolved, "the name has no address")),
        }
    }

    fn judge(&self, ip: IpAddr, platform: &PlatformEgress, is_own: impl Fn(SocketAddr) -> bool) -> Result<AllowedDestination, Deny> {
        let address = SocketAddr::new(ip, self.port);
        let forbidden = |why: String| Deny::new(Reason::EgressAddressForbidden, format!("{address} {why}"));
        let embedded = address::embedded_v4(ip).map(IpAddr::V4);
        for ip in std::iter::once(ip).chain(embedded) {
            if is_own(SocketAddr::new(ip, self.port)) {
                return Err(forbidden("is this sidecar's own".into()));
            }
            if let Some((i, prefix)) = platform.deny.iter().enumerate().find(|(_, prefix)| prefix.contains(&ip)) {
                let rule = RuleRef::new(format!("Platform/platform: egress.deny.cidrs[{i}]"));
                return Err(forbidden(format!("lies in {prefix}")).by(&rule));
            }
        }
        let class = AddressClass::of(ip);
        let is_open = platform.opens(ip) && embedded.is_none_or(|v4| platform.opens(v4));
        let allow = |rule, shadow| Ok(AllowedDestination { address, rule, shadow });
        let rule = match class {
            _ if is_open => self.rules.iter().find(|rule| rule.cidrs.is_empty() || rule.cidrs.iter().any(|prefix| prefix.contains(&ip))),
            AddressClass::Private => {
                self.rules.iter().find(|rule| rule.cidrs.iter().any(|prefix| prefix.contains(&ip) && address::is_private(prefix)))
            }
            _ => None,
        };
        match (rule, self.rules.first()) {
            (Some(rule), _) => allow(Some(rule.rule.clone()), None),
            (None, _) if !is_open => Err(forbidden(format!("is {}", class.as_str()))),
            // Let through by shadow mode alone.
            (None, None) => allow(None, self.shadow.clone()),
            (None, Some(first)) => {
                let deny = forbidden("is in none of the rule's cidrs".into()).by(&first.rule);
                if self.mode == Mode::Shadow { allow(None, Some(deny)) } else { Err(deny) }
            }
        }
    }
}

impl PlatformEgress {
    /// Whether a rule that names no prefix may lead there.
    fn opens(&self, ip: IpAddr) -> bool {
        // The unspecified address is dialled as loopback: one that is reached so could not be told from the sidecar's own.
        let is_dangerous = || !ip.is_unspecified() && self.dangerous_allow_private.iter().any(|prefix| prefix.contains(&ip));
        AddressClass::of(ip) == AddressClass::Public || is_dangerous()
    }
}

#[cfg(test)]
mod tests;
