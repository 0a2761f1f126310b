//! What HTTP/2 requires of a request and the h2 crate lets pass (RFC 9113 §8). HTTP/1 was judged by the guard, octet by octet.

use http::{Method, Request, Version, header};
use ringfence_policy::{Deny, Reason};

use super::{guard::is_authority, limits::MAX_FIELDS};

/// Refuses an HTTP/2 CONNECT that is more than a host and a port (RFC 9113 §8.5).
pub(crate) fn check_connect<B>(request: &Request<B>) -> Result<(), Deny> {
    let malformed = |what: &'static str| Err(Deny::new(Reason::RequestMalformed, what));
    let (uri, headers) = (request.uri(), request.headers());
    if request.extensions().get::<hyper::ext::Protocol>().is_some() {
        return malformed("extended CONNECT is not served");
    }
    if headers.len() > MAX_FIELDS {
        return Err(Deny::new(Reason::HeadersTooLarge, "more header fields than the limit"));
    }
    if uri.scheme().is_some() || uri.path_and_query().is_some() {
        return malformed("CONNECT must have :authority alone");
    }
    if !uri.authority().is_some_and(|authority| is_authority(authority.as_str().as_bytes())) {
        return malformed(":authority of CONNECT must be a host and a port");
    }
    if headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING) {
        return malformed("CONNECT must have no body and no field that announces one");
    }
    if headers.get_all(header::HOST).iter().count() > 1 {
        return malformed("host must stand once");
    }
    Ok(())
}

/// Refuses an HTTP/2 request that an HTTP/1 upstream could be made to read differently.
pub(crate) fn check_http2<B>(request: &Request<B>) -> Result<(), Deny> {
    debug_assert_eq!(request.version(), Version::HTTP_2);
    let malformed = |what: &'static str| Err(Deny::new(Reason::RequestMalformed, what));
    let (uri, headers) = (request.uri(), request.headers());
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return malformed("CONNECT and TRACE are not served");
    }
    if headers.len() > MAX_FIELDS {
        return Err(Deny::new(Reason::HeadersTooLarge, "more header fields than the limit"));
    }
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return malformed(":scheme must be http or https");
    }
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let is_target = path.starts_with('/') || (path == "*" && request.method() == Method::OPTIONS);
    if !is_target {
        return malformed(":path must be an absolute path, or `*` for OPTIONS");
    }
    if path.bytes().any(|octet| !(0x21..0x7f).contains(&octet) || octet == b'#') {
        return malformed(":path must be printable ASCII without a fragment");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let named = match (authority, host) {
        (_, _) if second.is_some() => return malformed("host must stand once"),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host.as_bytes()) => {
            return malformed("host must equal :authority");
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host.as_bytes(),
        (None, None) => return malformed(":authority or host must be present"),
    };
    if !is_authority(named) {
        return malformed(":authority must be a host and an optional port");
    }
    for name in headers.keys() {
        if matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE)
            || name == "keep-alive"
            || name == "proxy-connection"
        {
            return malformed("fields of an HTTP/1 connection must not stand in HTTP/2");
        }
    }
    if headers.get_all(header::TE).iter().any(|value| value != "trailers") {
        return malformed("te must be trailers");
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return malformed("content-length must stand once");
    }
    if headers.get(header::EXPECT).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return malformed("expect must be 100-continue");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
