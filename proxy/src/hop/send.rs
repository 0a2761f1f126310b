//! Asks an upstream. Takes a request whose fields are prepared; yields the response, prepared for the downstream.
//!
//! Bodies and trailers stream both ways. Informational responses other than 101 end here: hyper cannot pass them on.
//!
//! A request is sent twice only where it cannot be served twice: when it was never written, or when it is idempotent,
//! has no body, and the idle connection that it was sent on died without a response.
//!
//! An upstream that ignores a body and keeps its connection reads that body as the next request, which nobody has judged. So content where
//! nobody expects it comes with `Connection: close`, and no octet of a request follows the end of its response.

use std::{
    cell::Cell,
    error::Error,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use ringfence_policy::{Deny, Reason, TenantId};
use tokio::time::{Instant, sleep_until};

use super::{
    body::{BodyError, Content, Progress, RequestBody, UpstreamBody},
    guard::Signals,
    headers::prepare_response,
    limits::Timeouts,
    pool::{ConnectError, Http1, Lease, Upstream},
};

/// Whom to ask, for whom, and on behalf of which downstream connection.
#[derive(Clone, Copy)]
pub(crate) struct To<'a> {
    pub(crate) upstream: &'a Rc<Upstream>,
    pub(crate) tenant: Option<&'a TenantId>,
    pub(crate) signals: &'a Signals,
    pub(crate) timeouts: &'a Timeouts,
    /// Where it is told which of the upstream's addresses is asked.
    pub(crate) peer: Option<&'a Peer>,
}

/// The address that a request went to.
pub(crate) type Peer = Cell<Option<SocketAddr>>;

impl To<'_> {
    fn goes_to(&self, peer: SocketAddr) {
        if let Some(told) = self.peer {
            told.set(Some(peer));
        }
    }
}

/// Why an upstream gave no answer.
pub(crate) enum Failed {
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
            Failed::Connect(ConnectError::Refused(deny)) => deny,
            Failed::Connect(error) => Deny::new(Reason::UpstreamConnect, error.to_string()),
        }
    }
}

/// What an upstream answered over HTTP/1.
pub(crate) enum Answer {
    Response(Response<Content>),
    /// 101 to a WebSocket handshake, and the upstream's half of the tunnel.
    Switched(Response<Content>, OnUpgrade),
}

/// `is_upgrade`: the guard found a complete WebSocket handshake in this request.
pub(crate) async fn http1(mut parts: Parts, body: RequestBody, is_upgrade: bool, to: To<'_>) -> Result<Answer, Failed> {
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
    let request = Request::from_parts(parts, body);
    let (mut response, mut connection) =
        if is_upgrade { Box::pin(send_fresh(request, written.clone(), true, to)).await? } else { send_http1(request, to).await? };
    match (response.status(), is_upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, true) => {
            connection.detach();
            let upgrade = hyper::upgrade::on(&mut response);
            prepare_response(response.headers_mut());
            set_upgrade(response.headers_mut());
            Ok(Answer::Switched(response.map(|_| Content::Text(bytes::Bytes::new())), upgrade))
        }
        (StatusCode::SWITCHING_PROTOCOLS, false) => {
            Err(Deny::new(Reason::UpstreamProtocol, "the upstream switched protocols unasked").into())
        }
        _ => {
            // A workload that answers before it was asked all may never read the rest as a body: it could take those octets, which the client
            // chose, for a request, and answer that in the place of the next one. And they must go on where nobody takes the response yet.
            if !written.is_done() {
                connection.spawn();
            }
            let lease = Lease::new(to.upstream.clone(), connection);
            Ok(Answer::Response(respond(response, written, Some(lease), to)))
        }
    }
}

/// Over HTTP/2 with prior knowledge (h2c).
pub(crate) async fn http2(mut parts: Parts, body: RequestBody, to: To<'_>) -> Result<Response<Content>, Failed> {
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
    let mut connection = to.upstream.http2(to.tenant.cloned()).await?;
    to.goes_to(connection.peer);
    let response = match within(pin!(connection.sender.try_send_request(Request::from_parts(parts, body))), progress.clone(), to).await? {
        Ok(response) => response,
        Err(mut refused) => {
            // The connection died before anything was written on it: once more, on a new one.
            let Some(request) = refused.take_message() else { return Err(failed(refused.error(), to).into()) };
            let mut connection = to.upstream.http2(to.tenant.cloned()).await?;
            to.goes_to(connection.peer);
            within(pin!(connection.sender.send_request(request)), progress.clone(), to).await?.map_err(|error| failed(&error, to))?
        }
    };
    Ok(respond(response, progress, None, to))
}

fn respond(mut response: Response<Incoming>, asked: Progress, lease: Option<Lease>, to: To<'_>) -> Response<Content> {
    prepare_response(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response.map(|body| Content::Upstream(UpstreamBody::new(body, asked, to.timeouts.stall, lease)))
}

fn set_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
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

async fn send_http1(mut request: Request<RequestBody>, to: To<'_>) -> Result<(Response<Incoming>, Http1), Failed> {
    let progress = request.body().progress();
    if let Some(mut connection) = to.upstream.reuse(to.tenant).await {
        to.goes_to(connection.peer);
        let copy = is_repeatable(&request).then(|| copy(&request));
        let answer = pin!(connection.ask(request));
        let answered = within(pin!(connection.drive(answer)), progress.clone(), to).await?;
        match answered {
            Ok(response) => return Ok((response, connection)),
            Err(mut refused) => {
                request = match (refused.take_message(), copy) {
                    (Some(unsent), _) => unsent,
                    (None, Some(copy)) if died(refused.error()) => copy,
                    _ => return Err(failed(refused.error(), to).into()),
                }
            }
        }
    }
    // Boxed, so that a request on a connection that is there does not carry its state about.
    Box::pin(send_fresh(request, progress, false, to)).await
}

async fn send_fresh(
    request: Request<RequestBody>,
    progress: Progress,
    may_upgrade: bool,
    to: To<'_>,
) -> Result<(Response<Incoming>, Http1), Failed> {
    let mut connection = to.upstream.connect_http1(to.tenant.cloned()).await?;
    to.goes_to(connection.peer);
    if may_upgrade {
        connection.spawn();
    }
    let answer = pin!(connection.ask(request));
    let response = within(pin!(connection.drive(answer)), progress, to).await?;
    Ok((response.map_err(|refused| failed(refused.error(), to))?, connection))
}

/// Whether content of such a request means anything (RFC 9110 §9.3). Where it does not, many upstreams do not look at it.
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
async fn within<T>(mut answer: Pin<&mut impl Future<Output = T>>, progress: Progress, to: To<'_>) -> Result<T, Deny> {
    let limit = to.timeouts.response_head;
    let started = Instant::now();
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

/// Whose fault a broken exchange was: the downstream's body, or the upstream.
fn failed(error: &hyper::Error, to: To<'_>) -> Deny {
    match caused_by::<BodyError>(error) {
        Some(BodyError::Stalled(_)) => Deny::new(Reason::RequestTimeout, "the request's body stood still"),
        Some(BodyError::Answered | BodyError::Left | BodyError::Broken(_)) => match to.signals.broken_body() {
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
