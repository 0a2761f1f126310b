//! The last stage. Takes an admitted request and the identity to announce; yields the workload's response.
//!
//! HTTP/1.1 upstream, except gRPC that came over HTTP/2, which goes on over HTTP/2 (h2c). Bodies and trailers stream both
//! ways. Informational responses other than 101 end here: hyper cannot pass them on.
//!
//! A request is sent twice only where it cannot be served twice: when it was never written, or when it is idempotent,
//! has no body, and the idle connection that it was sent on died without a response.
//!
//! A workload that ignores a body and keeps its connection reads that body as the next request, with an identity of the client's choosing.
//! So content where nobody expects it comes with `Connection: close`, and no octet of a request follows the end of its response.

use std::{error::Error, rc::Rc};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use hyper::body::{Body, Incoming};
use ringfence_policy::{Deny, Reason};
use tokio::time::{Instant, sleep_until};

use super::{
    authorize::Authorized,
    body::{BodyError, Content, Progress, RequestBody, WorkloadBody},
    connection::Downstream,
    exchange::Exchange,
    headers,
    pool::{ConnectError, Http1, Lease},
};

/// `is_upgrade`: the guard found a complete WebSocket handshake in this request.
pub(super) async fn forward(
    request: Request<Incoming>,
    authorized: &Authorized,
    is_upgrade: bool,
    downstream: &Rc<Downstream>,
    exchange: &mut Exchange,
) -> Result<Response<Content>, Deny> {
    let (mut parts, incoming) = request.into_parts();
    let is_http2 = parts.version == Version::HTTP_2;
    let is_grpc = is_http2 && is_grpc(&parts.headers);
    // hyper's own entries (the pending upgrade) belong to the downstream connection.
    parts.extensions.clear();
    headers::prepare_request(&mut parts.headers, is_http2, authorized.identity(), &downstream.origin);
    exchange.inject_trace(&mut parts.headers);
    let stall = downstream.inbound.timeouts.stall;
    let body = RequestBody::new(incoming, stall);
    if let Some(octets) = body.progress().octets() {
        exchange.count_in(octets);
    }
    if is_grpc {
        let tenant = authorized.identity().map_or("", |identity| identity.tenant);
        // Boxed, as is a fresh connection below, so that the ordinary request does not carry their state about.
        let response = timed(Box::pin(send_http2(parts, body, tenant, downstream)), exchange).await?;
        return Ok(respond(response, None, downstream));
    }
    address_http1(&mut parts)?;
    if is_upgrade {
        set_upgrade(&mut parts.headers);
    } else {
        if parts.headers.contains_key(header::TE) {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        if !body.is_end_stream() && !defines_content(&parts.method) {
            parts.headers.append(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    let written = body.progress();
    let (response, connection) = timed(send_http1(Request::from_parts(parts, body), downstream), exchange).await?;
    match (response.status(), is_upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, true) => {
            connection.detach();
            Ok(switch_protocols(response, downstream))
        }
        (StatusCode::SWITCHING_PROTOCOLS, false) => Err(Deny::new(Reason::UpstreamProtocol, "the upstream switched protocols unasked")),
        _ => {
            let lease = Lease::new(downstream.inbound.upstream.clone(), connection, written.is_done());
            Ok(respond(response, Some(lease), downstream))
        }
    }
}

/// Measures how long the workload takes to begin its answer.
async fn timed<T>(answer: impl Future<Output = Result<T, Failed>>, exchange: &mut Exchange) -> Result<T, Deny> {
    let asked = std::time::Instant::now();
    let answer = answer.await;
    exchange.upstream_answered(asked);
    answer.map_err(|failed| {
        if let Failed::Connect(error) = &failed {
            exchange.not_connected(error.class());
        }
        failed.into()
    })
}

/// Why the workload gave no answer.
enum Failed {
    Connect(ConnectError),
    Deny(Deny),
}

impl From<Deny> for Failed {
    fn from(deny: Deny) -> Self {
        Failed::Deny(deny)
    }
}

impl From<ConnectError> for Failed {
    fn from(error: ConnectError) -> Self {
        Failed::Connect(error)
    }
}

impl From<Failed> for Deny {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Deny(deny) => deny,
            Failed::Connect(error @ ConnectError::Timeout(_)) => Deny::new(Reason::UpstreamTimeout, error.to_string()),
            Failed::Connect(error) => Deny::new(Reason::UpstreamConnect, error.to_string()),
        }
    }
}

fn respond(mut response: Response<Incoming>, lease: Option<Lease>, downstream: &Downstream) -> Response<Content> {
    headers::prepare_response(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    let stall = downstream.inbound.timeouts.stall;
    response.map(|body| Content::Workload(WorkloadBody::new(body, stall, lease)))
}

/// Leaves the upstream's half of the tunnel to the connection, which joins it with the other once hyper has let go.
fn switch_protocols(mut response: Response<Incoming>, downstream: &Downstream) -> Response<Content> {
    downstream.tunnel.set(Some(hyper::upgrade::on(&mut response)));
    headers::prepare_response(response.headers_mut());
    set_upgrade(response.headers_mut());
    response.map(|_| Content::Text(bytes::Bytes::new()))
}

fn set_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Origin-form target and Host, whatever form the request came in (RFC 9112 §3.2).
fn address_http1(parts: &mut Parts) -> Result<(), Deny> {
    if let Some(authority) = parts.uri.authority() {
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Deny::new(Reason::RequestMalformed, "the authority is not ASCII"))?;
        parts.headers.insert(header::HOST, host);
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
    }
    parts.version = Version::HTTP_11;
    Ok(())
}

async fn send_http2(mut parts: Parts, body: RequestBody, tenant: &str, downstream: &Downstream) -> Result<Response<Incoming>, Failed> {
    // `:authority` says the same.
    let host = parts.headers.remove(header::HOST);
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    if uri.authority.is_none() {
        uri.authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
    }
    parts.uri = Uri::from_parts(uri).map_err(|_| Deny::new(Reason::RequestMalformed, "the request names no authority"))?;
    parts.version = Version::HTTP_2;
    let progress = body.progress();
    let mut connection = downstream.inbound.upstream.http2(tenant).await?;
    match within(connection.try_send_request(Request::from_parts(parts, body)), progress, downstream).await? {
        Ok(response) => Ok(response),
        Err(mut refused) => {
            // The connection died before anything was written on it: once more, on a new one.
            let Some(request) = refused.take_message() else { return Err(failed(refused.error(), downstream).into()) };
            let progress = request.body().progress();
            let mut connection = downstream.inbound.upstream.http2(tenant).await?;
            within(connection.send_request(request), progress, downstream).await?.map_err(|error| failed(&error, downstream).into())
        }
    }
}

async fn send_http1(mut request: Request<RequestBody>, downstream: &Downstream) -> Result<(Response<Incoming>, Http1), Failed> {
    let upstream = &downstream.inbound.upstream;
    let progress = request.body().progress();
    if let Some(mut connection) = upstream.reuse() {
        let copy = is_repeatable(&request).then(|| copy(&request));
        match within(connection.sender.try_send_request(request), progress.clone(), downstream).await? {
            Ok(response) => return Ok((response, connection)),
            Err(mut refused) => {
                request = match (refused.take_message(), copy) {
                    (Some(unsent), _) => unsent,
                    (None, Some(copy)) if died(refused.error()) => copy,
                    _ => return Err(failed(refused.error(), downstream).into()),
                }
            }
        }
    }
    Box::pin(send_fresh(request, progress, downstream)).await
}

async fn send_fresh(
    request: Request<RequestBody>,
    progress: Progress,
    downstream: &Downstream,
) -> Result<(Response<Incoming>, Http1), Failed> {
    let mut connection = downstream.inbound.upstream.connect_http1().await?;
    let response = within(connection.sender.send_request(request), progress, downstream).await?;
    Ok((response.map_err(|error| failed(&error, downstream))?, connection))
}

/// Whether content of such a request means anything (RFC 9110 §9.3). Where it does not, many workloads do not look at it.
fn defines_content(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS)
}

/// Safe to send again although the first may have been served (RFC 9110 §9.2.2).
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    let is_idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    is_idempotent && request.body().is_end_stream() && !request.headers().contains_key(header::UPGRADE)
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The connection ended where a response was due, as an idle one does when the upstream closes it at that moment.
fn died(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || caused_by::<std::io::Error>(error).is_some()
}

/// Waits for a response's head: `response_head` from now, or from the last octet of the request's body.
async fn within<T>(answer: impl Future<Output = T>, progress: Progress, downstream: &Downstream) -> Result<T, Deny> {
    let limit = downstream.inbound.timeouts.response_head;
    let started = Instant::now();
    tokio::pin!(answer);
    let expired = sleep_until(started + limit);
    tokio::pin!(expired);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = &mut expired => {
                let due = progress.last().unwrap_or(started) + limit;
                if due <= Instant::now() {
                    return Err(Deny::new(Reason::UpstreamTimeout, "no response head in time"));
                }
                expired.as_mut().reset(due);
            }
        }
    }
}

/// Whose fault a broken exchange was: the client's body, or the upstream.
fn failed(error: &hyper::Error, downstream: &Downstream) -> Deny {
    match caused_by::<BodyError>(error) {
        Some(BodyError::Stalled(_)) => Deny::new(Reason::RequestTimeout, "the request's body stood still"),
        Some(BodyError::Broken(_)) => match downstream.signals.broken_body() {
            Some(violation) => violation.into(),
            None => Deny::new(Reason::RequestMalformed, "the request's body broke off"),
        },
        None => Deny::new(Reason::UpstreamProtocol, error.to_string()),
    }
}

fn caused_by<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}
