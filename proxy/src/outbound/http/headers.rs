//! What a request loses and gains on its way out.
//!
//! | field | |
//! |---|---|
//! | `Connection` and what it names, `Keep-Alive`, `Proxy-Connection`, `TE`, `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings` | removed (RFC 9110 §7.6.1) |
//! | `x-ringfence-*`, with any mark for any `-` | removed: tenant contexts, and what the inbound side told the workload |
//! | `Proxy-Authorization`, `Expect` | removed: meant for this hop |
//! | `Content_Length`, `Transfer.Encoding` and the like | removed: a gateway may read them as framing |
//! | `Host`, `:authority` | set to what was decided |
//! | `Via` | appended (RFC 9110 §7.6.3) |
//! | `X-Forwarded-*`, `Forwarded` | neither added nor removed: nothing about the workload leaves that it does not tell itself |
//!
//! Responses lose what belongs to their hop and `x-ringfence-*`, as on the inbound route.

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{EXPECT, HOST, PROXY_AUTHORIZATION, TE, VIA},
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use ringfence_policy::{Deny, Reason};

use super::target::Target;
use crate::hop::headers::{TRAILERS, has_option, is_disguised_framing, is_reserved, remove_all, remove_hop_by_hop};

pub(super) fn prepare_request(parts: &mut Parts, target: &Target, is_http2: bool) -> Result<(), Deny> {
    prepare_fields(&mut parts.headers, is_http2);
    let malformed = || Deny::new(Reason::RequestMalformed, "the target is no URI");
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(target.authority().parse().map_err(|_| malformed())?);
    uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|_| malformed())?;
    Ok(())
}

fn prepare_fields(headers: &mut HeaderMap, is_http2: bool) {
    let wants_trailers = headers.get_all(TE).iter().any(|value| has_option(value, "trailers"));
    remove_hop_by_hop(headers);
    remove_all(headers, |name| {
        is_reserved(name) || is_disguised_framing(name) || matches!(*name, EXPECT | PROXY_AUTHORIZATION | HOST) || name == "http2-settings"
    });
    if wants_trailers {
        headers.insert(TE, TRAILERS);
    }
    headers.append(VIA, HeaderValue::from_static(if is_http2 { "2.0 ringfence" } else { "1.1 ringfence" }));
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Request};

    use super::*;

    #[test]
    fn nothing_of_the_sidecars_leaves() {
        let fields = [
            ("x-ringfence-context", "TOKEN"),
            ("X-Ringfence-Tenant", "acme"),
            ("x_ringfence_subject", "user-1"),
            ("x.ringfence.anything", "x"),
            ("proxy-authorization", "Basic Y29udGV4dDpUT0tFTg=="),
            ("proxy-connection", "keep-alive"),
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "5"),
            ("x-hop", "x"),
            ("te", "trailers, deflate"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("expect", "100-continue"),
            ("content_length", "7"),
            ("host", "elsewhere.test"),
            ("authorization", "Bearer kept"),
            ("x-forwarded-for", "192.0.2.1"),
            ("via", "1.1 first"),
        ];
        let mut request = Request::get("http://A.test:80/x?y");
        for (name, value) in fields {
            request = request.header(HeaderName::try_from(name).unwrap(), value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let target = Target { host: "a.test".parse().unwrap(), port: 80, is_connect: false };
        prepare_request(&mut parts, &target, false).unwrap();
        assert_eq!(parts.uri, "http://a.test/x?y");
        let mut left: Vec<_> = parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            ["authorization: Bearer kept", "te: trailers", "via: 1.1 first", "via: 1.1 ringfence", "x-forwarded-for: 192.0.2.1"]
        );
    }
}
