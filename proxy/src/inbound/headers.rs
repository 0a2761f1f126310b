//! What a message loses and gains on its way through.
//!
//! | field | request | response |
//! |---|---|---|
//! | `Connection` and what it names, `Keep-Alive`, `Proxy-Connection`, `TE`, `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings` | removed (RFC 9110 §7.6.1) | removed |
//! | `x-ringfence-*`, with any mark for any `-` | removed, then set from the verified identity | removed |
//! | `Proxy-Authorization`, `Expect` | removed: meant for this hop | - |
//! | `Authorization` | removed unless the listener forwards tokens | - |
//! | `baggage` | removed: a client must not put words into the workload's telemetry | - |
//! | `Content_Length`, `Transfer.Encoding` and the like | removed: a CGI gateway reads them as framing | - |
//! | several `Cookie` from HTTP/2 | joined (RFC 9113 §8.2.3) | - |
//! | `X-Forwarded-For` | the peer's address appended, as every proxy does | - |
//! | `X-Forwarded-Proto` | set if absent | - |
//! | `Forwarded` and the other `X-Forwarded-*` | left: whoever stands in front wrote them, and nothing here is decided by them | - |
//! | `Via` | appended (RFC 9110 §7.6.3) | - |

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::context::CONTEXT;
use crate::hop::headers::{TRAILERS, has_option, is_disguised_framing, is_reserved, join_cookies, remove_all, remove_hop_by_hop};

const TENANT: HeaderName = HeaderName::from_static("x-ringfence-tenant");
const SUBJECT: HeaderName = HeaderName::from_static("x-ringfence-subject");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a subject must not bring into a header: everything but visible ASCII, and `%` so that the encoding can be undone.
const NOT_IN_A_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Who is asking, as verified. `None` on a public path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    pub(super) tenant: &'a str,
    /// The token's `sub`, as it stands there; percent-encoded on the wire where it is not visible ASCII.
    pub(super) subject: Option<&'a str>,
    /// For a workload that several tenants share: what it needs to ask for something outside on the caller's behalf.
    pub(super) context: Option<&'a HeaderValue>,
}

/// What the connection adds to every request.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The peer's address.
    pub(super) peer: HeaderValue,
    pub(super) is_tls: bool,
}

/// Prepares a request's fields for the workload. `forward_token`: it sees the caller's `Authorization`.
pub(super) fn prepare_request(
    headers: &mut HeaderMap,
    is_http2: bool,
    identity: Option<Identity<'_>>,
    origin: &Origin,
    forward_token: bool,
) {
    let wants_trailers = headers.get_all(header::TE).iter().any(|value| has_option(value, "trailers"));
    remove_hop_by_hop(headers);
    remove_all(headers, |name| {
        is_reserved(name)
            || is_disguised_framing(name)
            || matches!(*name, header::EXPECT | header::PROXY_AUTHORIZATION)
            || (*name == header::AUTHORIZATION && !forward_token)
            || name == "baggage"
            || name == "http2-settings"
    });
    if is_http2 {
        join_cookies(headers);
    }
    if wants_trailers {
        headers.insert(header::TE, TRAILERS);
    }
    headers.append(header::VIA, HeaderValue::from_static(if is_http2 { "2.0 ringfence" } else { "1.1 ringfence" }));
    headers.append(FORWARDED_FOR, origin.peer.clone());
    if let Entry::Vacant(entry) = headers.entry(FORWARDED_PROTO) {
        entry.insert(HeaderValue::from_static(if origin.is_tls { "https" } else { "http" }));
    }
    if let Some(identity) = identity {
        set(headers, TENANT, identity.tenant);
        if let Some(subject) = identity.subject {
            set(headers, SUBJECT, subject);
        }
        if let Some(context) = identity.context {
            headers.insert(CONTEXT, context.clone());
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    let encoded = Cow::from(utf8_percent_encode(text, NOT_IN_A_VALUE));
    // Cannot fail: what is left is visible ASCII.
    if let Ok(value) = HeaderValue::from_str(&encoded) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests;
