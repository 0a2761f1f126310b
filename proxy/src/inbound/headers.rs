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

const TENANT: HeaderName = HeaderName::from_static("x-ringfence-tenant");
const SUBJECT: HeaderName = HeaderName::from_static("x-ringfence-subject");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What a subject must not bring into a header: everything but visible ASCII, and `%` so that the encoding can be undone.
const NOT_IN_A_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Who is asking, as verified. `None` on a public path.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    pub tenant: &'a str,
    /// The token's `sub`, as it stands there; percent-encoded on the wire where it is not visible ASCII.
    pub subject: Option<&'a str>,
}

/// What the listener and the connection add to every request.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The peer's address.
    pub(super) peer: HeaderValue,
    pub(super) is_tls: bool,
    pub(super) forward_token: bool,
}

/// Prepares a request's fields for the workload.
pub(super) fn prepare_request(headers: &mut HeaderMap, is_http2: bool, identity: Option<Identity<'_>>, origin: &Origin) {
    let wants_trailers = headers.get_all(header::TE).iter().any(|value| has_option(value, "trailers"));
    remove_hop_by_hop(headers);
    remove_all(headers, |name| {
        is_reserved(name)
            || is_disguised_framing(name)
            || matches!(*name, header::EXPECT | header::PROXY_AUTHORIZATION)
            || (*name == header::AUTHORIZATION && !origin.forward_token)
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
    }
}

/// Prepares the workload's response for the client.
pub(super) fn prepare_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    remove_all(headers, is_reserved);
}

/// Drops what must not arrive behind a body.
pub(super) fn prepare_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| is_reserved(name) || is_forbidden_trailer(name.as_str().as_bytes()));
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    let encoded = Cow::from(utf8_percent_encode(text, NOT_IN_A_VALUE));
    // Cannot fail: what is left is visible ASCII.
    if let Ok(value) = HeaderValue::from_str(&encoded) {
        headers.insert(name, value);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let mut named = Vec::new();
        for value in headers.get_all(header::CONNECTION) {
            let options = value.as_bytes().split(|&octet| octet == b',').map(<[u8]>::trim_ascii);
            named.extend(options.filter_map(|option| HeaderName::from_bytes(option).ok()).filter(|name| !is_end_to_end(name)));
        }
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    remove_all(headers, |name| {
        matches!(*name, header::TE | header::TRANSFER_ENCODING | header::UPGRADE) || name == "keep-alive" || name == "proxy-connection"
    });
}

/// Fields that `Connection` cannot take away: a client that could would choose what the workload knows of a request.
fn is_end_to_end(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::CONTENT_ENCODING
            | header::AUTHORIZATION
            | header::COOKIE
            | header::CACHE_CONTROL
            | header::ORIGIN
            | header::FORWARDED
            | header::VIA
            | header::TRAILER
    ) || name.as_str().starts_with("x-forwarded-")
        || matches!(name.as_str(), "traceparent" | "tracestate")
}

/// Removes every field that `matches`; costs one look at each name where there is none.
fn remove_all(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| matches(name)).cloned() {
        headers.remove(name);
    }
}

/// Over HTTP/2 each cookie may stand in a field of its own; elsewhere a second `Cookie` is overlooked or refused.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let crumbs: Vec<&[u8]> = [first, second].into_iter().chain(crumbs).map(HeaderValue::as_bytes).collect();
        // Cannot fail: values and "; " are visible.
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(header::COOKIE, cookie);
        }
    }
}

/// Whether a field is Ringfence's own, in any spelling that a workload might take for it.
fn is_reserved(name: &HeaderName) -> bool {
    const PREFIX: &[u8] = b"x-ringfence";
    let name = name.as_str().as_bytes();
    let (begin, rest) = name.split_at(name.len().min(PREFIX.len()));
    looks_like(begin, PREFIX) && rest.first().is_none_or(|next| !next.is_ascii_alphanumeric())
}

/// Whether a gateway that writes all marks alike would take the field for framing.
fn is_disguised_framing(name: &HeaderName) -> bool {
    let is_like = |framing: HeaderName| *name != framing && looks_like(name.as_str().as_bytes(), framing.as_str().as_bytes());
    is_like(header::CONTENT_LENGTH) || is_like(header::TRANSFER_ENCODING)
}

/// Whether `name` is `plain` with any mark for any `-`. CGI makes `_` of `-`, and some gateways of every mark that a token may have.
fn looks_like(name: &[u8], plain: &[u8]) -> bool {
    name.len() == plain.len()
        && name.iter().zip(plain).all(|(&octet, &expected)| octet == expected || (expected == b'-' && !octet.is_ascii_alphanumeric()))
}

/// Fields that are decided on before a body arrives and must not change behind it (RFC 9110 §6.5.1). `name` in any case.
pub(super) fn is_forbidden_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: &[&str] = &[
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "www-authenticate",
    ];
    FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes()))
}

fn has_option(value: &HeaderValue, option: &str) -> bool {
    value.as_bytes().split(|&octet| octet == b',').any(|text| text.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

#[cfg(test)]
mod tests;
