//! Takes what was asked for and what was seen, and the tenant whose it is; yields the address that may be dialled. The only place of the
//! route that resolves names.

use std::{net::SocketAddr, sync::Arc};

use ringfence_policy::{
    Deny, Reason, Snapshot, TenantId,
    egress::{AllowedDestination, EgressPolicy, HttpRequest, Permit, Seen},
    host::Host,
    path::NormalPath,
};

use crate::dns::resolve::{ResolveError, Resolvers};

/// What a connection or request asks for. Kept for as long as it lasts, so that another policy can be asked about it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub tenant: TenantId,
    pub host: Host,
    pub port: u16,
    pub seen: Protocol,
}

/// What was seen of it.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// CONNECT, before its tunnel carries anything.
    Nothing,
    Tls,
    Http {
        method: http::Method,
        path: Box<str>,
    },
    Opaque,
}

/// A destination that policy lets this connection or request have.
#[derive(Clone, Debug)]
pub struct Decided {
    pub ask: Ask,
    /// In the order in which to try them; never empty.
    pub destinations: Vec<AllowedDestination>,
    /// What would have been refused, in shadow mode.
    pub shadow: Option<Deny>,
}

/// Decides under one policy from beginning to end. `is_own`: whether an address is one of this sidecar's listeners.
pub async fn decide(
    ask: Ask,
    snapshot: &Arc<Snapshot>,
    resolvers: &Resolvers,
    is_own: impl Fn(SocketAddr) -> bool,
) -> Result<Decided, Deny> {
    let policy = egress_of(snapshot, &ask.tenant)?;
    let permit = permit(policy, &ask)?;
    let addresses = match &ask.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let unresolved = |error: ResolveError| Deny::new(Reason::EgressNameUnresolved, format!("{name}: {error}"));
            let resolver = resolvers.of(snapshot.workload.dns.as_ref()).map_err(unresolved)?;
            resolver.addresses(name).await.map_err(unresolved)?.addresses
        }
    };
    let destinations = permit.destinations(&addresses, &snapshot.platform.egress, is_own)?;
    let shadow = permit.shadow.clone();
    Ok(Decided { ask, destinations, shadow })
}

impl Ask {
    /// Whether another policy would still let it have the address that it has. Nothing is resolved again: a name that leads elsewhere by now
    /// does not cut what stands.
    pub fn still_stands(&self, address: SocketAddr, snapshot: &Snapshot, is_own: impl Fn(SocketAddr) -> bool) -> Result<(), Deny> {
        let policy = egress_of(snapshot, &self.tenant)?;
        permit(policy, self)?.destinations(&[address.ip()], &snapshot.platform.egress, is_own).map(|_| ())
    }
}

fn egress_of<'a>(snapshot: &'a Snapshot, tenant: &TenantId) -> Result<&'a EgressPolicy, Deny> {
    match snapshot.tenants.get(tenant) {
        Some(tenant) => Ok(&tenant.egress),
        None => Err(Deny::new(Reason::ConfigAbsent, "the tenant's policy has not arrived")),
    }
}

fn permit<'a>(policy: &'a EgressPolicy, ask: &Ask) -> Result<Permit<'a>, Deny> {
    let path;
    let seen = match &ask.seen {
        Protocol::Nothing => Seen::Nothing,
        Protocol::Tls => Seen::Tls,
        Protocol::Opaque => Seen::Opaque,
        Protocol::Http { method, path: text } => {
            path = NormalPath::new(text).map_err(|why| Deny::new(Reason::RequestMalformed, why))?;
            Seen::Http(HttpRequest { method: method.as_str(), path: &path })
        }
    };
    policy.permit(&ask.host, ask.port, seen, &ask.tenant)
}
