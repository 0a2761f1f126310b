//! The way of what leaves the workload.
//!
//! ```text
//! listener   accept, count, drain
//!    |
//! capture    where was it going?  the kernel's word, or an explicit proxy's client asks
//!    |
//!    +-- captured ---------------------------- sniff ----+     explicit: HTTP/1 or HTTP/2
//!    |                                           |       |         |
//!    |                                     TLS, opaque  HTTP ---- http     CONNECT, absolute-form, one request at a time
//!    |                                           |                 |
//! tenant     whose is it?  the workload's tenant, or of a shared one the context that the inbound side minted
//!    |
//! decide     may it?  policy, the name resolved once, the address judged -> AllowedDestination
//!    |
//! connect    dials that address and no other
//!    |
//! splice     octets both ways, until either end or policy has had enough  (HTTP: forward)
//!
//! any Deny -> refuse: a reply, a TLS alert or the end of the connection; and the access log
//! ```
//!
//! The octets inside a CONNECT tunnel come by here too: they are sniffed and decided like captured ones, with the CONNECT's host for a claim.
//!
//! One thread serves a connection from accept to close: nothing here is `Send`.

pub mod listener;
// In the order of the route.
pub mod capture;
mod connection;
pub mod sniff;

mod http;

pub mod tenant;

mod candidates;
pub mod decide;
pub mod own;

pub mod connect;

mod splice;

mod flow;
mod stream;

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use ringfence_policy::{Deny, Reason, Snapshot, TenantId, egress::AllowedDestination, host::Host, tenant::Capture};
use tokio::net::TcpStream;

use self::{
    decide::{Ask, Decided, Places},
    flow::Flow,
};
use crate::{data::Shared, dns::Dns, in_flight::InFlightGuard, listeners::ListenerKey};

/// One outbound listener, as one thread has it.
pub struct Outbound {
    key: ListenerKey,
    capture: Capture,
    shared: Shared,
    dns: Rc<Dns>,
}

/// How a connection that speaks HTTP came here.
enum Origin {
    /// The workload asks a proxy.
    Explicit,
    /// Inside a CONNECT, whose tunnel speaks HTTP.
    Tunnel(Box<Tunnel>),
    /// The kernel brought it; where it was going.
    Captured(SocketAddr),
}

/// A CONNECT that was let through and answered, before its tunnel is looked into.
struct Tunnel {
    host: Host,
    port: u16,
    /// Who asked: everything in the tunnel is theirs.
    tenant: TenantId,
    upstream: Dialled,
    flow: Flow,
}

/// A connection to an allowed address. It counts for its tenant until this is dropped.
struct Dialled {
    stream: TcpStream,
    destination: AllowedDestination,
    place: InFlightGuard,
}

impl Outbound {
    pub fn new(key: ListenerKey, capture: Capture, shared: Shared, dns: Rc<Dns>) -> Self {
        Self { key, capture, shared, dns }
    }

    /// The policy to decide a connection or request under.
    fn pin(&self) -> Result<Arc<Snapshot>, Deny> {
        self.shared.current.pin().ok_or_else(|| Deny::new(Reason::ConfigAbsent, "there is no policy yet"))
    }

    fn places(&self) -> Places<'_> {
        let Shared { own, bindings, limiter, .. } = &self.shared;
        Places { dns: &self.dns, own, bindings, limiter }
    }

    async fn decide(&self, ask: Ask, snapshot: &Arc<Snapshot>) -> Result<Decided, Deny> {
        let permit = ask.permit(snapshot)?;
        decide::decide(ask, permit, snapshot, self.places()).await
    }

    /// Opens a connection for what was decided, within its tenant's limits.
    async fn dial(&self, decided: &Decided, snapshot: &Snapshot) -> Result<Dialled, Deny> {
        let tenant = &decided.ask.tenant;
        let place = self.shared.limiter.connect(tenant, decide::egress_of(snapshot, tenant)?, Instant::now())?;
        let (stream, destination) = connect::connect(&decided.destinations).await?;
        let destination = destination.clone();
        Ok(Dialled { stream, destination, place })
    }

    /// Resolves once policy no longer lets `ask` have the address that it has. Asked at once too, unless policy is still the one of the
    /// generation that it was decided under. Costs nothing until a policy is pushed.
    async fn revoked(&self, ask: &Ask, address: SocketAddr, mut decided: Option<u64>) -> Deny {
        let mut changes = self.shared.current.changes();
        loop {
            let stands = self.pin().and_then(|snapshot| match decided.take() {
                // Its listeners are opened a moment after it is in force.
                Some(generation) if generation == snapshot.generation && !self.shared.own.holds(address) => Ok(()),
                _ => ask.still_stands(address, None, &snapshot, &self.shared.own),
            });
            if let Err(deny) = stands {
                return deny;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
