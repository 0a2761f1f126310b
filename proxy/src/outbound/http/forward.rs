//! Sends an allowed request on and brings its response back. HTTP/1 goes on as HTTP/1 and HTTP/2 as HTTP/2 with prior knowledge: what an
//! upstream speaks in the open, the workload knows and this side does not.

use std::{io, rc::Rc, time::Instant};

use http::{Request, Version};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Parts},
};
use hyper_util::rt::TokioIo;
use ringfence_policy::Deny;
use tokio::io::AsyncWriteExt;

use super::{Downstream, exchange::Exchange, headers, standing::Granted, target::Target};
use crate::{
    hop::{
        body::RequestBody,
        pool::Connected,
        send::{self, Answer, To},
        socket::Socket,
    },
    outbound::{decide::Decided, flow::Octets, splice, stream::Stream},
};

/// `is_upgrade`: the guard found a complete WebSocket handshake in this request.
pub(super) async fn forward(
    request: Request<Incoming>,
    target: &Target,
    decided: &Decided,
    granted: &Rc<Granted>,
    is_upgrade: bool,
    downstream: &Downstream,
    exchange: &mut Exchange,
) -> Result<Answer, Deny> {
    let (mut parts, incoming) = request.into_parts();
    let is_http2 = parts.version == Version::HTTP_2;
    // hyper's own entries (the pending upgrade) belong to the downstream connection.
    parts.extensions.clear();
    headers::prepare_request(&mut parts, target, is_http2)?;
    let timeouts = &downstream.timeouts;
    let body = RequestBody::new(incoming, &downstream.activity, timeouts.stall);
    if let Some(octets) = body.progress().octets() {
        exchange.count_in(octets);
    }
    let upstream = downstream.upstreams.of(decided, is_http2, &downstream.first, &downstream.outbound, timeouts)?;
    let to =
        To { upstream: &upstream, tenant: Some(&decided.ask.tenant), signals: &downstream.signals, timeouts, peer: Some(&granted.peer) };
    let asked = Instant::now();
    let answer =
        if is_http2 { send::http2(parts, body, to).await.map(Answer::Response) } else { send::http1(parts, body, is_upgrade, to).await };
    exchange.upstream_answered(asked);
    answer.map_err(Deny::from)
}

/// Joins the two ends of a WebSocket until either, or policy, has had enough. `rest`: read behind its handshake already.
pub(super) async fn websocket(mut downstream: Stream, rest: Vec<u8>, upstream: OnUpgrade, mut exchange: Exchange) -> io::Result<()> {
    let upgraded = upstream.await.map_err(io::Error::other)?;
    let not_ours = |_| io::Error::other("the upstream's connection is of another kind");
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<Connected>>().map_err(not_ours)?;
    let (upstream, _counted) = io.into_inner().into_parts();
    downstream.write_all(&read_buf).await?;
    let octets = Octets::default();
    let outcome = match upstream {
        Socket::Tcp(mut upstream) => splice::splice(&mut downstream, &mut upstream, rest, &octets).await,
        Socket::Peer(upstream) => splice::copied(&mut downstream, upstream, rest, &octets).await,
    };
    exchange.tunnelled(&octets);
    outcome
}
