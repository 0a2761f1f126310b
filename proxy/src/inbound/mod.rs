//! The way of a request from a client to the workload.
//!
//! ```text
//! listener    accept, count, drain
//!    |
//!   tls       where the listener has a certificate: ALPN h2 or http/1.1   (mutual: the sidecar's SVID, and peers alone)
//!    |
//! connection  which protocol is it?  ----------------+
//!    |                                               |
//!  guard      HTTP/1: one reading or none          check   HTTP/2: the same rules   (`hop`)
//!    |                                               |
//!  hyper      -------------------- handle -----------+
//!                                    |
//!                                identify   whose request is it?  (the verified token, nothing else)
//!                                    |
//!                                  limit    may they ask so often?
//!                                    |
//!                                authorize  may they ask for this?
//!                                    |
//!                                 forward   headers, pool, body -> workload
//!                                    |
//!                                 upgrade   a WebSocket, once the workload agrees
//!
//! any Deny -> refuse: one door out
//! ```
//!
//! One thread serves a connection from accept to close, with an upstream pool of its own: nothing here is `Send`.

pub mod identify;
pub mod listener;
pub mod tls;
// In the order of the route.
mod authorize;
mod connection;
mod exchange;
mod headers;
mod limit;

mod forward;
mod moved;
mod mutual;
mod upgrade;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use ringfence_policy::{Deny, Reason, Snapshot, path::NormalPath, peer::AcceptedPeer, tenant::InboundPolicy};
use tokio_rustls::TlsAcceptor;

use self::{authorize::Authorized, connection::Downstream, exchange::Exchange, identify::Identify, mutual::Mutual};
use crate::{
    data::Shared,
    hop::{ResponseBody, Timeouts, Upstream, body::Content, check},
    limiter::Exceeded,
    listeners::{InboundRoute, ListenerKey},
    refuse::{ends_connection, refuse},
};

/// One inbound listener, as one thread has it.
pub struct Inbound {
    key: ListenerKey,
    transport: Transport,
    /// The workload where the last request found it, with this thread's connections to it.
    workload: RefCell<Option<(SocketAddr, Rc<Upstream>)>>,
    timeouts: Timeouts,
    enforce: Rc<Enforce>,
}

/// What carries HTTP.
enum Transport {
    Tcp,
    Tls(TlsAcceptor),
    /// TLS with peers, whose certificates and whose own change while the listener stays.
    Mutual,
}

impl Transport {
    fn of(route: &InboundRoute) -> Self {
        match &route.tls {
            _ if route.mtls => Transport::Mutual,
            Some(identity) => Transport::Tls(identity.config.clone().into()),
            None => Transport::Tcp,
        }
    }
}

/// What one thread enforces policy with.
pub struct Enforce {
    shared: Shared,
    identify: Identify,
    mutual: Mutual,
}

impl Enforce {
    pub fn new(shared: Shared) -> Self {
        let identify = Identify::new(shared.learner.clone(), shared.used.clone(), shared.current.clone(), shared.metrics.clone());
        let mutual = Mutual::new(shared.svid.clone(), shared.current.clone());
        Self { shared, identify, mutual }
    }
}

impl Inbound {
    pub fn new(key: ListenerKey, route: &InboundRoute, timeouts: Timeouts, enforce: Rc<Enforce>) -> Self {
        Self { key, transport: Transport::of(route), workload: RefCell::default(), timeouts, enforce }
    }

    /// The workload at `address`. What is under way to where it was before goes on there until the drain time is over.
    fn upstream(&self, address: SocketAddr) -> Rc<Upstream> {
        let mut workload = self.workload.borrow_mut();
        match &*workload {
            Some((known, upstream)) if *known == address && !upstream.leaving().has_begun() => upstream.clone(),
            _ => {
                let upstream = Rc::new(Upstream::new(address, self.timeouts.connect));
                let Shared { current, drain_for, .. } = &self.enforce.shared;
                let leaving = Rc::downgrade(upstream.leaving());
                tokio::task::spawn_local(moved::leave(self.key, address, leaving, current.clone(), *drain_for));
                *workload = Some((address, upstream.clone()));
                upstream
            }
        }
    }
}

/// A request that does not reach the workload, or whose answer does not come back.
enum Refusal {
    Deny(Deny),
    Exceeded(Exceeded),
}

impl From<Deny> for Refusal {
    fn from(deny: Deny) -> Self {
        Refusal::Deny(deny)
    }
}

impl From<Exceeded> for Refusal {
    fn from(exceeded: Exceeded) -> Self {
        Refusal::Exceeded(exceeded)
    }
}

/// Answers one request. The route ends here either way: with the workload's response, or with a refusal.
async fn handle(request: Request<Incoming>, downstream: Rc<Downstream>) -> Response<ResponseBody<Box<Exchange>>> {
    let number = downstream.activity.begin();
    // In a box, for the response that it goes along with is moved many times; made first, as in `hop::connection`.
    let mut exchange = Box::write(Box::new_uninit(), Exchange::begin(&request, &downstream));
    let is_upgrade = downstream.signals.asks_for_upgrade(number);
    let is_http1 = request.version() != Version::HTTP_2;
    let response = match route(request, number, is_upgrade, &downstream, &mut exchange).await {
        Ok(response) => response,
        Err(refusal) => {
            let deny = match &refusal {
                Refusal::Deny(deny) => deny,
                Refusal::Exceeded(exceeded) => &exceeded.deny,
            };
            exchange.refused(deny);
            let mut response = refuse(deny, exchange.id);
            if let Refusal::Exceeded(exceeded) = &refusal {
                exceeded.write_headers(response.headers_mut());
            }
            if is_http1 && ends_connection(deny.reason) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(Content::Text)
        }
    };
    exchange.replied(response.status());
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        // The exchange lasts as long as the tunnel.
        downstream.exchange.set(Some(exchange));
        return response.map(|content| ResponseBody::new(content, None));
    }
    if is_upgrade {
        downstream.signals.upgrade_declined();
    }
    response.map(|content| ResponseBody::new(content, Some(exchange)))
}

async fn route(
    request: Request<Incoming>,
    number: u64,
    is_upgrade: bool,
    downstream: &Downstream,
    exchange: &mut Exchange,
) -> Result<Response<Content>, Refusal> {
    if let Some(violation) = downstream.signals.refusal_of(number) {
        return Err(Deny::from(violation).into());
    }
    if request.version() == Version::HTTP_2 {
        check::check_http2(&request)?;
    }
    let decided = decide(&request, downstream, exchange).await?;
    Ok(forward::forward(request, &decided, is_upgrade, downstream, exchange).await?)
}

/// What policy says of a request that may reach the workload.
struct Decided {
    authorized: Authorized,
    upstream: Rc<Upstream>,
    /// Whether the workload sees the caller's `Authorization`.
    forward_token: bool,
}

/// Whether the request may reach the workload, under one policy from beginning to end.
async fn decide(request: &Request<Incoming>, downstream: &Downstream, exchange: &mut Exchange) -> Result<Decided, Refusal> {
    let inbound = &downstream.inbound;
    let Enforce { shared, identify, .. } = &*inbound.enforce;
    let snapshot = shared.current.pin().ok_or_else(|| Deny::new(Reason::ConfigAbsent, "there is no policy yet"))?;
    let (listener, peer) = connected(downstream, &snapshot)?;
    let path = NormalPath::new(request.uri().path()).map_err(|why| Deny::new(Reason::RequestMalformed, why))?;
    let method = request.method().as_str();
    let decided = |authorized, listener: &InboundPolicy| Decided {
        authorized,
        upstream: inbound.upstream(listener.upstream),
        forward_token: listener.forward_token,
    };
    if let Some(authorized) = authorize::public(&path, listener) {
        return Ok(decided(authorized, listener));
    }
    let identified = identify.identify(request.headers(), &snapshot, exchange.unix_seconds()).await?;
    exchange.identified(&identified);
    // Whoever waited for a tenant to be learnt is judged by the policy that knows it, in all.
    let newer = (!Arc::ptr_eq(&identified.snapshot, &snapshot)).then(|| identified.snapshot.clone());
    let (listener, peer) = match &newer {
        Some(newer) => connected(downstream, newer)?,
        None => (listener, peer),
    };
    if let Some(peer) = peer {
        peer.speaks_for(&identified.tenant.id)?;
    }
    let admitted = limit::limit(&identified, method, &path, &shared.limiter, exchange.started())?;
    exchange.admitted(admitted.guard, admitted.shadow);
    Ok(decided(authorize::authorize(identified, method, &path)?, listener))
}

/// What a policy says of the listener, and of the peer that is connected to it.
fn connected<'a>(downstream: &'a Downstream, snapshot: &'a Snapshot) -> Result<(&'a InboundPolicy, Option<AcceptedPeer<'a>>), Deny> {
    let listener = downstream.inbound.key.policy(&snapshot.workload);
    let listener = listener.ok_or_else(|| Deny::new(Reason::ConfigAbsent, "this listener's policy is withdrawn"))?;
    let peer = downstream.peer.as_ref().map(|peer| snapshot.accept(&peer.identity)).transpose()?;
    if listener.mtls && peer.is_none() {
        // A connection from before an edit.
        return Err(Deny::new(Reason::PeerNotAllowed, "this listener takes peers alone by now"));
    }
    Ok((listener, peer))
}

#[cfg(test)]
mod tests;
