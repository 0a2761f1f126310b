//! Fields that belong to one hop, fields that are Ringfence's own, and fields that only look harmless: what neither route lets through.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The one value of `TE` that means anything end to end.
pub(crate) const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Prepares an upstream's response for the downstream.
pub(crate) fn prepare_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    remove_all(headers, is_reserved);
}

/// Drops what must not arrive behind a body.
pub(crate) fn prepare_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| is_reserved(name) || is_forbidden_trailer(name.as_str().as_bytes()));
}

pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
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

/// Fields that `Connection` cannot take away: a downstream that could would choose what the upstream knows of a request.
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
pub(crate) fn remove_all(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| matches(name)).cloned() {
        headers.remove(name);
    }
}

/// Over HTTP/2 each cookie may stand in a field of its own; elsewhere a second `Cookie` is overlooked or refused.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let crumbs: Vec<&[u8]> = [first, second].into_iter().chain(crumbs).map(HeaderValue::as_bytes).collect();
        // Cannot fail: values and "; " are visible.
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(header::COOKIE, cookie);
        }
    }
}

/// Whether a field is Ringfence's own, in any spelling that an upstream might take for it.
pub(crate) fn is_reserved(name: &HeaderName) -> bool {
    const PREFIX: &[u8] = b"x-ringfence";
    let name = name.as_str().as_bytes();
    let (begin, rest) = name.split_at(name.len().min(PREFIX.len()));
    looks_like(begin, PREFIX) && rest.first().is_none_or(|next| !next.is_ascii_alphanumeric())
}

/// Whether a gateway that writes all marks alike would take the field for framing.
pub(crate) fn is_disguised_framing(name: &HeaderName) -> bool {
    // Most differ in length already.
    let is_like = |framing: HeaderName| looks_like(name.as_str().as_bytes(), framing.as_str().as_bytes()) && *name != framing;
    is_like(header::CONTENT_LENGTH) || is_like(header::TRANSFER_ENCODING)
}

/// Whether `name` is `plain` with any mark for any `-`. CGI makes `_` of `-`, and some gateways of every mark that a token may have.
fn looks_like(name: &[u8], plain: &[u8]) -> bool {
    name.len() == plain.len()
        && name.iter().zip(plain).all(|(&octet, &expected)| octet == expected || (expected == b'-' && !octet.is_ascii_alphanumeric()))
}

/// Fields that are decided on before a body arrives and must not change behind it (RFC 9110 §6.5.1). `name` in any case.
pub(crate) fn is_forbidden_trailer(name: &[u8]) -> bool {
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

pub(crate) fn has_option(value: &HeaderValue, option: &str) -> bool {
    value.as_bytes().split(|&octet| octet == b',').any(|text| text.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}
