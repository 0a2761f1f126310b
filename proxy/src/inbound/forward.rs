//! The last stage. Takes an admitted request and the identity to announce; yields the workload's response.
//!
//! HTTP/1.1 upstream, except gRPC that came over HTTP/2, which goes on over HTTP/2 (h2c).

use std::time::Instant;

use http::{HeaderMap, Request, Response, Version, header};
use hyper::body::Incoming;
use ringfence_policy::Deny;

use super::{Decided, connection::Downstream, exchange::Exchange, headers};
use crate::hop::{
    body::{Content, RequestBody},
    send::{self, Answer, Failed, To},
};

/// `is_upgrade`: the guard found a complete WebSocket handshake in this request.
pub(super) async fn forward(
    request: Request<Incoming>,
    decided: &Decided,
    is_upgrade: bool,
    downstream: &Downstream,
    exchange: &mut Exchange,
) -> Result<Response<Content>, Deny> {
    let Decided { authorized, upstream, forward_token } = decided;
    let (mut parts, incoming) = request.into_parts();
    let is_http2 = parts.version == Version::HTTP_2;
    let is_grpc = is_http2 && is_grpc(&parts.headers);
    // hyper's own entries (the pending upgrade) belong to the downstream connection.
    parts.extensions.clear();
    let contexts = &downstream.inbound.enforce.shared.contexts;
    let context = authorized.context_for().and_then(|tenant| contexts.mint(tenant, exchange.unix_seconds()));
    headers::prepare_request(&mut parts.headers, is_http2, authorized.identity(context.as_ref()), &downstream.origin, *forward_token);
    exchange.inject_trace(&mut parts.headers);
    let timeouts = &downstream.inbound.timeouts;
    let body = RequestBody::new(incoming, &downstream.activity, timeouts.stall);
    if let Some(octets) = body.progress().octets() {
        exchange.count_in(octets);
    }
    let to = To { upstream, tenant: authorized.tenant(), signals: &downstream.signals, timeouts, peer: None };
    let asked = Instant::now();
    let answer = if is_grpc {
        // Boxed, so that the ordinary request does not carry its state about.
        Box::pin(send::http2(parts, body, to)).await.map(Answer::Response)
    } else {
        send::http1(parts, body, is_upgrade, to).await
    };
    exchange.upstream_answered(asked);
    match answer {
        Ok(Answer::Response(response)) => Ok(response),
        Ok(Answer::Switched(response, half)) => {
            // The connection joins it with the downstream's half once hyper has let go.
            downstream.tunnel.set(Some((half, upstream.leaving().clone())));
            Ok(response)
        }
        Err(failed) => {
            if let Failed::Connect(error) = &failed {
                exchange.not_connected(error.class());
            }
            Err(failed.into())
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
