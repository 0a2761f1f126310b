//! The way of a request from a client to the workload.
//!
//! ```text
//! listener    accept, count, drain
//!    |
//!   tls       where the listener has a certificate: ALPN h2 or http/1.1
//!    |
//! connection  which protocol is it?  ----------------+
//!    |                                               |
//!  guard      HTTP/1: one reading or none          check   HTTP/2: the same rules
//!    |                                               |
//!  hyper      -------------------- handle -----------+
//!                                    |
//!                          identify, limit, authorize
//!                                    |
//!                                 forward   headers, pool, body -> workload
//!                                    |
//!                                 upgrade   a WebSocket, once the workload agrees
//!
//! any Deny -> refuse: one door out
//! ```
//!
//! One thread serves a connection from accept to close, with an upstream pool of its own: nothing here is `Send`.

pub mod listener;
pub mod tls;
// In the order of the route.
mod check;
mod connection;
mod guard;
mod headers;
pub mod limits;

mod body;
mod forward;
mod pool;
mod upgrade;

use std::rc::Rc;

use http::{HeaderValue, Request, Response, Version, header};
use hyper::body::Incoming;
use ringfence_policy::{Deny, Reason};
use tokio_rustls::TlsAcceptor;

pub use self::{
    body::{BodyError, ResponseBody},
    connection::Downstream,
    headers::Identity,
    limits::Timeouts,
    pool::Upstream,
};
use crate::refuse::{RefusalId, refuse};

/// One inbound listener, as one thread has it.
pub struct Inbound {
    pub upstream: Rc<Upstream>,
    /// `None`: cleartext.
    pub tls: Option<TlsAcceptor>,
    /// Whether the workload sees the caller's `Authorization`.
    pub forward_token: bool,
    pub timeouts: Timeouts,
}

/// Answers one request. The route ends here either way: with the workload's response, or with a refusal.
pub async fn handle(request: Request<Incoming>, downstream: &Rc<Downstream>) -> Response<ResponseBody> {
    let _in_flight = downstream.in_flight();
    let number = downstream.begin();
    let is_upgrade = downstream.signals.asks_for_upgrade(number);
    let is_http1 = request.version() != Version::HTTP_2;
    let response = match route(request, number, is_upgrade, downstream).await {
        Ok(response) => response,
        Err(deny) => {
            let mut response = refuse(&deny, RefusalId::new(), []);
            if is_http1 && ends_connection(deny.reason) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|text| ResponseBody::text(text, downstream.in_flight()))
        }
    };
    if is_upgrade && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        downstream.signals.upgrade_declined();
    }
    response
}

async fn route(
    request: Request<Incoming>,
    number: u64,
    is_upgrade: bool,
    downstream: &Rc<Downstream>,
) -> Result<Response<ResponseBody>, Deny> {
    if let Some(violation) = downstream.signals.refusal_of(number) {
        return Err(violation.into());
    }
    if request.version() == Version::HTTP_2 {
        check::check_http2(&request)?;
    }
    forward::forward(request, None, is_upgrade, downstream).await
}

/// After these the octets that follow on an HTTP/1 connection cannot be told apart into messages.
fn ends_connection(reason: Reason) -> bool {
    matches!(reason, Reason::RequestMalformed | Reason::HeadersTooLarge | Reason::RequestTimeout)
}

#[cfg(test)]
mod tests;
