//! HTTP on its way out, request by request: an explicit proxy's, a captured connection's, a CONNECT tunnel's.
//!
//! ```text
//! guard, check    one reading or none  (`hop`)
//!    |
//! target          where does it go?  what names it twice must name the same
//!    |
//! whose           the workload's tenant, or of a shared workload the context's
//!    |
//! decide          may it?  each request on its own, whatever came before it on the connection
//!    |
//!    +-- CONNECT: dial, 200, and the connection is a tunnel
//!    |
//! forward         headers, upstream connections of this downstream connection alone
//!    |
//! standing        asked again whenever policy changes, until the reply has ended
//! ```

mod connect;
mod exchange;
mod forward;
mod headers;
mod standing;
mod target;
mod upstreams;
mod whose;

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use ringfence_policy::{Deny, Reason, TenantId, host::Host};

use self::{
    exchange::Exchange,
    standing::Standing,
    target::{Scope, Target},
    upstreams::Upstreams,
};
use super::{
    Dialled, Origin, Outbound, Tunnel,
    decide::{Ask, Decided, Protocol},
    flow::Flow,
    stream::Stream,
    tenant::TenantSource,
};
use crate::{
    hop::{
        ResponseBody, Timeouts,
        body::Content,
        check::{check_connect, check_http2},
        connection::{self as hop, Activity},
        guard::{Guarded, Signals, Targets},
        send::Answer,
    },
    listeners::Drain,
    refuse::{ask_for_context, ends_connection, refuse},
};

/// What the requests of one downstream connection share.
struct Downstream {
    outbound: Rc<Outbound>,
    scope: Scope,
    signals: Rc<Signals>,
    activity: Rc<Activity>,
    standing: Standing,
    upstreams: Upstreams,
    /// In a tunnel, the connection that CONNECT opened, until a request wants it.
    first: Cell<Option<Dialled>>,
    timeouts: Timeouts,
    drain: Drain,
    /// What an HTTP/1 connection becomes once hyper has let go of it.
    becomes: RefCell<Option<Becomes>>,
}

enum Becomes {
    Tunnel(Tunnel),
    WebSocket { upstream: OnUpgrade, exchange: Exchange },
}

/// Serves HTTP/1 or HTTP/2 on `stream`, from which `initial` was read already, until either side has had enough or policy has.
pub(super) async fn serve(
    mut stream: Stream,
    mut initial: Vec<u8>,
    origin: Origin,
    outbound: Rc<Outbound>,
    mut drain: Drain,
) -> io::Result<()> {
    let timeouts = Timeouts::default();
    let Some(is_http2) = hop::is_http2(&mut stream, &mut initial, timeouts.head, &mut drain).await? else { return Ok(()) };
    let (scope, first, tunnel) = match origin {
        Origin::Explicit => (Scope::Proxy, None, None),
        Origin::Captured(original) => (Scope::Captured(original), None, None),
        Origin::Tunnel(tunnel) => {
            let Tunnel { host, port, tenant, upstream, flow } = *tunnel;
            flow.pass_on();
            let ask = Ask { tenant: tenant.clone(), host: host.clone(), port, seen: Protocol::Nothing };
            let opened = (ask, upstream.destination.address());
            (Scope::Tunnel { host, port, tenant }, Some(upstream), Some(opened))
        }
    };
    let downstream = Rc::new(Downstream {
        outbound,
        scope,
        signals: Rc::default(),
        activity: Rc::new(Activity::new()),
        standing: Standing::default(),
        upstreams: Upstreams::default(),
        first: Cell::new(first),
        timeouts,
        drain,
        becomes: RefCell::default(),
    });
    // In a box, for the rarer is the larger.
    let served =
        async { if is_http2 { Box::pin(http2(stream, initial, &downstream)).await } else { http1(stream, initial, &downstream).await } };
    tokio::select! {
        biased;
        // Nothing that is under way is told apart: what policy ends, ends with its connection.
        () = downstream.standing.revoked(&downstream.outbound) => Ok(()),
        () = tunnel_revoked(tunnel, &downstream.outbound) => Ok(()),
        served = served => served,
    }
}

/// Resolves once the CONNECT that opened a tunnel would be refused: between requests too, the connection that it opened must stand.
async fn tunnel_revoked(opened: Option<(Ask, SocketAddr)>, outbound: &Rc<Outbound>) {
    let Some((ask, address)) = opened else { return std::future::pending().await };
    let deny = outbound.revoked(&ask, address, None).await;
    // The requests in it have lines of their own; this one says why there are no more.
    let mut flow = Flow::begin(None, outbound);
    flow.asked(&ask);
    flow.refused(&deny);
}

async fn http1(stream: Stream, initial: Vec<u8>, downstream: &Rc<Downstream>) -> io::Result<()> {
    let targets = match downstream.scope {
        Scope::Proxy => Targets::Proxy,
        Scope::Tunnel { .. } | Scope::Captured(_) => Targets::Server,
    };
    let guarded = Guarded::http1(stream, initial, targets, downstream.signals.clone(), downstream.timeouts.head);
    let each = |request| handle(request, downstream.clone());
    let mut ended = hop::http1(guarded, each, &downstream.activity, &downstream.timeouts, downstream.drain.clone()).await;
    let becomes = downstream.becomes.borrow_mut().take();
    match becomes {
        // Not in boxes: they take the room that hyper had.
        Some(Becomes::Tunnel(tunnel)) => connect::tunnel(ended.stream, ended.rest, tunnel, downstream).await,
        Some(Becomes::WebSocket { upstream, exchange }) => forward::websocket(ended.stream, ended.rest, upstream, exchange).await,
        None => hop::linger(&mut ended.stream, downstream.timeouts.linger).await.and(ended.outcome),
    }
}

async fn http2(stream: Stream, initial: Vec<u8>, downstream: &Rc<Downstream>) -> io::Result<()> {
    let guarded = Guarded::http2(stream, initial, downstream.signals.clone());
    let each = |request| handle(request, downstream.clone());
    hop::http2(guarded, each, &downstream.activity, &downstream.timeouts, downstream.drain.clone()).await
}

/// Answers one request, with the upstream's response or with a refusal.
async fn handle(request: Request<Incoming>, downstream: Rc<Downstream>) -> Response<ResponseBody<Exchange>> {
    let number = downstream.activity.begin();
    let mut exchange = Exchange::begin(&request, &downstream);
    let may_upgrade = downstream.signals.asks_for_upgrade(number);
    let is_http1 = request.version() != Version::HTTP_2;
    let answer = match route(request, number, may_upgrade, &downstream, &mut exchange).await {
        Ok(answer) => answer,
        Err(deny) => {
            if !exchange.is_identified()
                && let Some(tenant) = tenant_of_connection(&downstream)
            {
                exchange.identified(&tenant);
            }
            exchange.refused(&deny);
            let asks = deny.reason == Reason::EgressContextMissing && downstream.scope == Scope::Proxy;
            let mut response = if asks { ask_for_context(&deny, exchange.id) } else { refuse(&deny, exchange.id) };
            // A captured connection ends with a refusal. That an upstream fails is none.
            let upstream_failed = matches!(response.status(), StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
            let is_captured = matches!(downstream.scope, Scope::Captured(_));
            if is_http1 && (ends_connection(deny.reason) || is_captured && !upstream_failed) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Answer::Response(response.map(Content::Text))
        }
    };
    let (response, upstream) = match answer {
        Answer::Response(response) => (response, None),
        Answer::Switched(response, upstream) => (response, Some(upstream)),
    };
    exchange.replied(response.status());
    if let Some(upstream) = upstream {
        // The exchange lasts as long as the WebSocket.
        downstream.becomes.replace(Some(Becomes::WebSocket { upstream, exchange }));
        return response.map(|content| ResponseBody::new(content, None));
    }
    if may_upgrade && downstream.becomes.borrow().is_none() {
        downstream.signals.upgrade_declined();
    }
    response.map(|content| ResponseBody::new(content, Some(exchange)))
}

async fn route(
    request: Request<Incoming>,
    number: u64,
    may_upgrade: bool,
    downstream: &Rc<Downstream>,
    exchange: &mut Exchange,
) -> Result<Answer, Deny> {
    if let Some(violation) = downstream.signals.refusal_of(number) {
        return Err(violation.into());
    }
    let target = Target::of(&request, &downstream.scope).inspect_err(|_| {
        if let Some(said) = Target::said(&request, &downstream.scope) {
            exchange.asked(&said);
        }
    })?;
    exchange.asked(&target);
    if request.version() == Version::HTTP_2 {
        if target.is_connect { check_connect(&request)? } else { check_http2(&request)? }
    }
    let tenant = whose(&request, downstream, exchange)?;
    exchange.identified(&tenant);
    if target.is_connect {
        return connect::connect(request, &target, tenant, downstream, exchange).await.map(Answer::Response);
    }
    let decided = decide(&request, &target, tenant, downstream).await?;
    let granted = downstream.standing.grant(&decided, &downstream.outbound)?;
    exchange.allowed(&decided, &granted);
    forward::forward(request, &target, &decided, &granted, may_upgrade, downstream, exchange).await
}

/// What follows a CONNECT is of the tenant that asked for it, whatever it says.
fn whose(request: &Request<Incoming>, downstream: &Downstream, exchange: &Exchange) -> Result<TenantId, Deny> {
    match &downstream.scope {
        Scope::Tunnel { tenant, .. } => Ok(tenant.clone()),
        Scope::Proxy | Scope::Captured(_) => {
            let snapshot = downstream.outbound.pin()?;
            whose::whose(request.headers(), &snapshot, &downstream.outbound.shared.contexts, exchange.unix_seconds())
        }
    }
}

/// Whose all requests of the connection are, whatever they say; `None`: each says it.
fn tenant_of_connection(downstream: &Downstream) -> Option<TenantId> {
    match &downstream.scope {
        Scope::Tunnel { tenant, .. } => Some(tenant.clone()),
        Scope::Proxy | Scope::Captured(_) => match TenantSource::of(&downstream.outbound.pin().ok()?.workload) {
            TenantSource::Workload(tenant) => Some(tenant),
            TenantSource::Context => None,
        },
    }
}

async fn decide(request: &Request<Incoming>, target: &Target, tenant: TenantId, downstream: &Downstream) -> Result<Decided, Deny> {
    let outbound = &downstream.outbound;
    let snapshot = outbound.pin()?;
    let seen = Protocol::Http { method: request.method().clone(), path: request.uri().path().into() };
    let ask = Ask { tenant, host: target.host.clone(), port: target.port, seen };
    let by_address = by_address(&ask, &downstream.scope);
    match (outbound.decide(ask, &snapshot).await, by_address) {
        (Err(deny), Some(by_address)) if deny.reason == Reason::EgressHostNotListed => {
            let decided = outbound.decide(by_address, &snapshot).await;
            // Where the address is in no rule either, it is the name that was asked for.
            decided.map_err(|other| if other.reason == Reason::EgressHostNotListed { deny } else { other })
        }
        (decided, _) => decided,
    }
}

/// A captured connection whose name is in no rule may still go where it was going, if a rule lists that address.
fn by_address(ask: &Ask, scope: &Scope) -> Option<Ask> {
    match (scope, &ask.host) {
        (Scope::Captured(original), Host::Name(_)) => Some(Ask { host: Host::Address(original.ip().to_canonical()), ..ask.clone() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
