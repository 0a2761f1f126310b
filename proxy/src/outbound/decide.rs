//! Takes what was asked for and what was seen, and the tenant whose it is; yields the address that may be dialled. The only place of the
//! route that resolves names.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_policy::{
    Deny, Reason, Snapshot, SpiffeId, TenantId,
    egress::{AllowedDestination, EgressPolicy, HttpRequest, Permit, Seen},
    host::{Host, HostName},
    path::NormalPath,
};
use tokio::time::timeout;

use super::own::Own;
use crate::{
    bindings::Bindings,
    dns::{Dns, own::ResolveError},
    limiter::Limiter,
};

/// How long it may take to find a name's addresses, waiting for the turn to ask included.
pub(super) const RESOLVE: Duration = Duration::from_secs(10);

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

impl Protocol {
    /// As the access log tells it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Protocol::Nothing => "connect",
            Protocol::Tls => "tls",
            Protocol::Http { .. } => "http",
            Protocol::Opaque => "tcp",
        }
    }
}

/// A destination that policy lets this connection or request have.
#[derive(Clone, Debug)]
pub struct Decided {
    pub ask: Ask,
    /// In the order in which to try them; never empty.
    pub destinations: Vec<AllowedDestination>,
    /// Of a request: who must be there, and is asked over mTLS. `None`: whoever is.
    pub peer: Option<SpiffeId>,
    /// What would have been refused, in shadow mode.
    pub shadow: Option<Deny>,
    /// Of the policy that was asked.
    pub generation: u64,
}

/// What is asked besides the policy itself.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    pub dns: &'a Dns,
    pub own: &'a Own,
    pub bindings: &'a Bindings,
    pub limiter: &'a Limiter,
}

impl Places<'_> {
    pub async fn resolve(&self, name: &HostName, tenant: &TenantId, snapshot: &Snapshot) -> Result<Vec<IpAddr>, Deny> {
        let now = Instant::now();
        // Takes no turn, for nobody is asked.
        if let Some(addresses) = self.dns.remembered(name, snapshot, now) {
            return Ok(addresses);
        }
        let unresolved = |error: ResolveError| {
            let reason = match error {
                ResolveError::NoZones => return Deny::new(Reason::ConfigAbsent, error.to_string()),
                ResolveError::Blocked(_) => Reason::NameBlocked,
                ResolveError::Absent | ResolveError::Failed(_) => Reason::EgressNameUnresolved,
            };
            Deny::new(reason, format!("{name}: {error}"))
        };
        let found = timeout(RESOLVE, async {
            let _turn = self.limiter.lookup(tenant, now).await;
            // In a box, for it would be most of every connection's future.
            Box::pin(self.dns.addresses(name, snapshot)).await
        });
        match found.await {
            Ok(found) => found.map_err(unresolved),
            Err(_) => Err(Deny::new(Reason::EgressNameUnresolved, format!("{name}: nothing within {RESOLVE:?}"))),
        }
    }
}

/// Decides under one policy from beginning to end. `permit`: what it says to `ask`.
pub async fn decide(ask: Ask, permit: Permit<'_>, snapshot: &Arc<Snapshot>, places: Places<'_>) -> Result<Decided, Deny> {
    let peer = ask.peer(&permit, snapshot)?;
    let addresses = match &ask.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => places.resolve(name, &ask.tenant, snapshot).await?,
    };
    let destinations = permit.destinations(&addresses, &snapshot.platform.egress, |address| places.own.holds(address))?;
    Ok(Decided { ask, destinations, peer, shadow: permit.shadow, generation: snapshot.generation })
}

/// Decides for an address that is given: by the kernel, or by what was dialled already.
pub fn decide_at(ask: Ask, permit: Permit<'_>, address: IpAddr, snapshot: &Snapshot, own: &Own) -> Result<Decided, Deny> {
    let peer = ask.peer(&permit, snapshot)?;
    let destinations = permit.destinations(&[address], &snapshot.platform.egress, |address| own.holds(address))?;
    Ok(Decided { ask, destinations, peer, shadow: permit.shadow, generation: snapshot.generation })
}

impl Ask {
    /// Whether some rule lists it, whatever shadow mode lets through besides.
    pub fn listed<'a>(&self, snapshot: &'a Snapshot) -> Result<Permit<'a>, Deny> {
        let mut permit = self.permit(snapshot)?;
        permit.shadow.take().map_or(Ok(permit), Err)
    }

    /// Whether some rule lists it, or shadow mode lets it through.
    pub fn permit<'a>(&self, snapshot: &'a Snapshot) -> Result<Permit<'a>, Deny> {
        let path;
        let seen = match &self.seen {
            Protocol::Nothing => Seen::Nothing,
            Protocol::Tls => Seen::Tls,
            Protocol::Opaque => Seen::Opaque,
            Protocol::Http { method, path: text } => {
                path = NormalPath::new(text).map_err(|why| Deny::new(Reason::RequestMalformed, why))?;
                Seen::Http(HttpRequest { method: method.as_str(), path: &path })
            }
        };
        egress_of(snapshot, &self.tenant)?.permit(&self.host, self.port, seen, &self.tenant)
    }

    /// Who must be at the other end of a request. What else leaves is the workload's from end to end, and may be let to a peer's address in
    /// shadow mode alone.
    fn peer(&self, permit: &Permit<'_>, snapshot: &Snapshot) -> Result<Option<SpiffeId>, Deny> {
        match (&self.seen, permit.peer) {
            (Protocol::Http { .. }, Some(peer)) => snapshot.peer_id(peer, &self.tenant).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether another policy would still let it have the address and the peer that it has. Nothing is resolved again: a name that leads
    /// elsewhere by now does not cut what stands.
    pub fn still_stands(&self, address: SocketAddr, peer: Option<&SpiffeId>, snapshot: &Snapshot, own: &Own) -> Result<(), Deny> {
        let permit = self.permit(snapshot)?;
        if self.peer(&permit, snapshot)?.as_ref() != peer {
            return Err(Deny::new(Reason::PeerNotAllowed, "another peer is asked for this by now"));
        }
        permit.destinations(&[address.ip()], &snapshot.platform.egress, |address| own.holds(address)).map(|_| ())
    }
}

/// Where `tenant` may go from this workload at all.
pub fn egress_of<'a>(snapshot: &'a Snapshot, tenant: &TenantId) -> Result<&'a EgressPolicy, Deny> {
    if snapshot.workload.outbound.is_none() {
        return Err(Deny::new(Reason::ConfigAbsent, "the workload's egress is withdrawn"));
    }
    match snapshot.tenants.get(tenant) {
        Some(tenant) => Ok(&tenant.egress),
        None => Err(Deny::new(Reason::ConfigAbsent, "the tenant's policy has not arrived")),
    }
}
