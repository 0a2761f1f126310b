//! The one door out: a `Deny` becomes a response, or to a TLS client an alert.
//!
//! The body is a problem document (RFC 9457) and `Proxy-Status` (RFC 9209) says that it was this proxy that answered. Both
//! carry the reason and nothing else: tenant and rule are the operator's, who finds them in the access log by `id`.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use ringfence_policy::{Deny, Reason};

use crate::telemetry::RequestId;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Says `deny` to the client. `id`: the request's, under which the access log has the rest.
pub fn refuse(deny: &Deny, id: RequestId) -> Response<Bytes> {
    let status = StatusCode::from_u16(deny.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    say(status, deny.reason, id)
}

/// Says to a client that asked this proxy for something that it must add a tenant context, with the challenge for which some wait before
/// they send credentials that they have (libcurl for git, among others).
pub fn ask_for_context(deny: &Deny, id: RequestId) -> Response<Bytes> {
    let mut response = say(StatusCode::PROXY_AUTHENTICATION_REQUIRED, deny.reason, id);
    response.headers_mut().insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="ringfence""#));
    response
}

/// After these the octets that follow on an HTTP/1 connection cannot be told apart into messages.
pub fn ends_connection(reason: Reason) -> bool {
    matches!(reason, Reason::RequestMalformed | Reason::HeadersTooLarge | Reason::RequestTimeout)
}

fn say(status: StatusCode, reason: Reason, id: RequestId) -> Response<Bytes> {
    // Reason strings and titles are our own constants and need no JSON escapes.
    let body = format!(r#"{{"title":"{}","status":{},"reason":"{}","id":"{id}"}}"#, reason.title(), status.as_u16(), reason.as_str());
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let proxy_status = format!(r#"ringfence; error={}; details="{}""#, proxy_error(reason), reason.as_str());
    if let Ok(value) = HeaderValue::try_from(proxy_status) {
        headers.insert(PROXY_STATUS, value);
    }
    if let Some(value) = challenge(reason) {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// Says `deny` to a TLS client whose ClientHello was read and not answered: a fatal alert in the clear (RFC 8446 §6, whose record version is
/// the same for every version of TLS).
pub fn tls_alert(reason: Reason) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    let description = match reason {
        Reason::EgressNameMismatch | Reason::EgressNameHidden | Reason::EgressNameUnresolved => 112, // unrecognized_name
        Reason::EgressMalformed => 50,                                                               // decode_error
        Reason::UpstreamConnect | Reason::UpstreamTimeout | Reason::ConfigAbsent => 80,              // internal_error
        _ => 49,                                                                                     // access_denied
    };
    [ALERT, 3, 3, 0, 2, FATAL, description]
}

/// The error type of RFC 9209 §2.3 that fits best.
fn proxy_error(reason: Reason) -> &'static str {
    match reason {
        Reason::RequestMalformed | Reason::HeadersTooLarge | Reason::RequestTimeout => "http_request_error",
        Reason::UpstreamConnect => "destination_unavailable",
        Reason::UpstreamIdentity => "tls_certificate_error",
        Reason::UpstreamProtocol => "http_protocol_error",
        Reason::UpstreamTimeout => "http_response_timeout",
        Reason::ConfigAbsent => "proxy_internal_response",
        Reason::EgressAddressForbidden => "destination_ip_prohibited",
        Reason::EgressNameUnresolved => "dns_error",
        Reason::EgressConnectionsLimited => "connection_limit_reached",
        _ => "http_request_denied",
    }
}

/// `WWW-Authenticate` (RFC 6750 §3): no error code where no token was given, `invalid_token` where it was of no use,
/// `insufficient_scope` where it was good and not enough.
fn challenge(reason: Reason) -> Option<HeaderValue> {
    let text = match (reason, reason.status()) {
        (Reason::TokenMissing, _) => r#"Bearer realm="ringfence""#.to_owned(),
        (Reason::ScopeMissing, _) => {
            format!(r#"Bearer realm="ringfence", error="insufficient_scope", error_description="{}""#, reason.title())
        }
        (_, 401) => format!(r#"Bearer realm="ringfence", error="invalid_token", error_description="{}""#, reason.title()),
        _ => return None,
    };
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reason: Reason) -> Response<Bytes> {
        let deny = Deny::new(reason, "secret detail").by(&ringfence_policy::RuleRef::new("Tenant/globex: limits[all]"));
        refuse(&deny, RequestId(7))
    }

    #[test]
    fn every_reason_has_a_well_formed_answer_that_names_nobody() {
        for &reason in Reason::ALL {
            let answer = answer(reason);
            assert_eq!(answer.status().as_u16(), reason.status(), "{reason}");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
            let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(body["reason"], reason.as_str());
            assert_eq!(body["status"], reason.status());
            assert_eq!(body["title"], reason.title());
            assert_eq!(body["id"].as_str().unwrap().len(), 32);
            let shown = format!("{:?} {:?}", answer.headers(), answer.body());
            assert!(!shown.contains("globex") && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn a_tls_client_is_told_by_an_alert() {
        for (reason, expected) in [
            (Reason::EgressHostNotListed, 49),
            (Reason::EgressNameMismatch, 112),
            (Reason::EgressMalformed, 50),
            (Reason::UpstreamConnect, 80),
        ] {
            assert_eq!(tls_alert(reason), [21, 3, 3, 0, 2, 2, expected], "{reason}");
        }
    }

    #[test]
    fn challenges_follow_rfc_6750() {
        for (reason, expected) in [
            (Reason::TokenMissing, Some(r#"Bearer realm="ringfence""#)),
            (Reason::TokenExpired, Some(r#"Bearer realm="ringfence", error="invalid_token", error_description="The token has expired""#)),
            (
                Reason::ScopeMissing,
                Some(
                    r#"Bearer realm="ringfence", error="insufficient_scope", error_description="The token lacks a scope that this request needs""#,
                ),
            ),
            (Reason::PathNotListed, None),
            (Reason::RateLimited, None),
            (Reason::RequestMalformed, None),
        ] {
            let answer = answer(reason);
            assert_eq!(answer.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap()), expected, "{reason}");
        }
    }

    #[test]
    fn proxy_status_carries_the_reason_alone() {
        for (reason, expected) in [
            (Reason::TokenMissing, r#"ringfence; error=http_request_denied; details="token_missing""#),
            (Reason::RequestMalformed, r#"ringfence; error=http_request_error; details="request_malformed""#),
            (Reason::UpstreamConnect, r#"ringfence; error=destination_unavailable; details="upstream_connect""#),
            (Reason::UpstreamTimeout, r#"ringfence; error=http_response_timeout; details="upstream_timeout""#),
            (Reason::UpstreamIdentity, r#"ringfence; error=tls_certificate_error; details="upstream_identity""#),
            (Reason::ConfigAbsent, r#"ringfence; error=proxy_internal_response; details="config_absent""#),
            (Reason::EgressHostNotListed, r#"ringfence; error=http_request_denied; details="egress_host_not_listed""#),
            (Reason::EgressAddressForbidden, r#"ringfence; error=destination_ip_prohibited; details="egress_address_forbidden""#),
            (Reason::EgressNameUnresolved, r#"ringfence; error=dns_error; details="egress_name_unresolved""#),
            (Reason::EgressConnectionsLimited, r#"ringfence; error=connection_limit_reached; details="egress_connections_limited""#),
        ] {
            assert_eq!(answer(reason).headers()[PROXY_STATUS], expected);
        }
    }
}
