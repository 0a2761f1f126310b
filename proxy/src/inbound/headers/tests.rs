use super::*;
use crate::hop::headers::{prepare_response, prepare_trailers};

const ORIGIN: Origin = Origin { peer: HeaderValue::from_static("192.0.2.7"), is_tls: false };
const ACME: Identity<'static> = Identity { tenant: "acme", subject: Some("user-1"), context: None };

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let parsed = |&(name, value): &(&str, &str)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
    fields.iter().map(parsed).collect()
}

fn prepared(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = map(fields);
    prepare_request(&mut headers, false, Some(ACME), &ORIGIN, false);
    headers
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn identity_is_ours_in_every_disguise() {
    let disguises = [
        "x-ringfence-tenant",
        "X-RINGFENCE-TENANT",
        "X_Ringfence-Tenant",
        "x-ringfence_tenant",
        "x_ringfence_tenant",
        "x-ringfence-subject",
        "X-Ringfence-Anything",
        "x_ringfence",
        "x.ringfence.tenant",
        "x~ringfence|tenant",
        "x-ringfence-",
    ];
    for name in disguises {
        let headers = prepared(&[(name, "globex"), (name, "globex"), ("connection", name)]);
        assert_eq!(all(&headers, "x-ringfence-tenant"), ["acme"], "{name}");
        assert_eq!(all(&headers, "x-ringfence-subject"), ["user-1"], "{name}");
        assert!(headers.values().all(|value| value != "globex"), "{name}");
        let mut trailers = map(&[(name, "globex"), ("x-sum", "1")]);
        prepare_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("x-sum", "1")]), "{name}");
    }
    let other = prepared(&[("x-ringfenced", "kept")]);
    assert_eq!(all(&other, "x-ringfenced"), ["kept"]);
}

#[test]
fn framing_has_one_spelling() {
    for name in ["content_length", "content.length", "transfer_encoding", "transfer~encoding"] {
        assert!(!prepared(&[(name, "7")]).contains_key(name), "{name}");
    }
    assert_eq!(all(&prepared(&[("content-length", "7"), ("contentlength", "8")]), "content-length"), ["7"]);
}

#[test]
fn cookies_of_http2_are_one_field() {
    for (is_http2, cookies, expected) in [
        (true, &["a=1", "b=2", "c=3"][..], &["a=1; b=2; c=3"][..]),
        (true, &["a=1"], &["a=1"]),
        (true, &[], &[]),
        (false, &["a=1", "b=2"], &["a=1", "b=2"]),
    ] {
        let mut headers: HeaderMap = cookies.iter().map(|cookie| (header::COOKIE, cookie.parse().unwrap())).collect();
        prepare_request(&mut headers, is_http2, None, &ORIGIN, false);
        assert_eq!(all(&headers, "cookie"), expected);
    }
}

#[test]
fn a_context_is_ours_alone() {
    let context = HeaderValue::from_static("minted");
    for (minted, expected) in [(Some(&context), &["minted"][..]), (None, &[])] {
        let mut headers = map(&[("x-ringfence-context", "forged"), ("x_ringfence_context", "forged")]);
        prepare_request(&mut headers, false, Some(Identity { context: minted, ..ACME }), &ORIGIN, false);
        assert_eq!(all(&headers, "x-ringfence-context"), expected);
        assert!(headers.values().all(|value| value != "forged"));
    }
}

#[test]
fn without_an_identity_none_is_announced() {
    let mut headers = map(&[("x-ringfence-tenant", "globex")]);
    prepare_request(&mut headers, false, None, &ORIGIN, false);
    assert!(!headers.contains_key("x-ringfence-tenant") && !headers.contains_key("x-ringfence-subject"));
}

#[test]
fn subjects_are_made_safe() {
    for (subject, expected) in [("user-1", "user-1"), ("a b%c", "a%20b%25c"), ("zoë", "zo%C3%AB"), ("a\r\nx: y", "a%0D%0Ax:%20y"), ("", "")]
    {
        let mut headers = HeaderMap::new();
        prepare_request(&mut headers, false, Some(Identity { tenant: "acme", subject: Some(subject), context: None }), &ORIGIN, false);
        assert_eq!(all(&headers, "x-ringfence-subject"), [expected]);
    }
}

#[test]
fn hop_by_hop_fields_stay_behind() {
    let headers = prepared(&[
        ("connection", "close, X-Custom"),
        ("connection", "x-other"),
        ("x-custom", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("expect", "100-continue"),
        ("baggage", "tenant=globex"),
        ("authorization", "Bearer x"),
        ("content_length", "9"),
        ("transfer_encoding", "chunked"),
        ("accept", "*/*"),
    ]);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "via", "x-forwarded-for", "x-forwarded-proto", "x-ringfence-subject", "x-ringfence-tenant"]);
}

#[test]
fn connection_cannot_take_away_what_matters() {
    let kept = [("host", "a"), ("content-length", "1"), ("cookie", "a=b"), ("content-type", "text/plain"), ("traceparent", "00-1")];
    let names = "host, content-length, cookie, content-type, traceparent, x-forwarded-for, via, x-ringfence-tenant, bad name";
    let headers = prepared(&[&kept[..], &[("connection", names)]].concat());
    for (name, value) in kept {
        assert_eq!(all(&headers, name), [value]);
    }
    assert_eq!(all(&headers, "x-ringfence-tenant"), ["acme"]);
}

#[test]
fn the_token_is_forwarded_only_where_the_listener_says_so() {
    let mut headers = map(&[("authorization", "Bearer x"), ("connection", "authorization")]);
    prepare_request(&mut headers, false, Some(ACME), &ORIGIN, true);
    assert_eq!(all(&headers, "authorization"), ["Bearer x"]);
}

#[test]
fn the_way_so_far_is_kept_and_told() {
    let headers = prepared(&[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"), ("via", "1.1 front"), ("te", "trailers")]);
    assert_eq!(all(&headers, "x-forwarded-for"), ["203.0.113.9", "192.0.2.7"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&headers, "via"), ["1.1 front", "1.1 ringfence"]);
    assert_eq!(all(&headers, "te"), ["trailers"]);
}

#[test]
fn responses_lose_what_is_not_the_clients() {
    let mut headers =
        map(&[("connection", "x-custom"), ("x-custom", "1"), ("x-ringfence-tenant", "acme"), ("x_ringfence_x", "1"), ("etag", "1")]);
    prepare_response(&mut headers);
    assert_eq!(headers, map(&[("etag", "1")]));
}
