use http::Request;

use super::*;

/// Method, URI, fields, and a piece of the message if it is refused.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[test]
fn http2_requests_have_one_reading() {
    let cases: &[Case] = &[
        ("GET", "http://a/x?y", &[], None),
        ("GET", "https://a:8443/", &[("host", "A:8443"), ("te", "trailers")], None),
        ("OPTIONS", "http://a/", &[], None),
        ("POST", "http://a/", &[("content-length", "5"), ("expect", "100-continue")], None),
        ("CONNECT", "a:443", &[], Some("CONNECT")),
        ("TRACE", "http://a/", &[], Some("TRACE")),
        ("GET", "/x", &[("host", "a")], Some(":scheme")),
        ("GET", "ftp://a/", &[], Some(":scheme")),
        ("GET", "http://a/", &[("host", "b")], Some("equal :authority")),
        ("GET", "http://a/", &[("host", "a"), ("host", "a")], Some("once")),
        ("GET", "http://u@a/", &[], Some("a host")),
        ("GET", "http://a../", &[], Some("a host")),
        ("GET", "http://a/", &[("connection", "close")], Some("HTTP/1")),
        ("GET", "http://a/", &[("transfer-encoding", "chunked")], Some("HTTP/1")),
        ("GET", "http://a/", &[("upgrade", "websocket")], Some("HTTP/1")),
        ("GET", "http://a/", &[("keep-alive", "5")], Some("HTTP/1")),
        ("GET", "http://a/", &[("proxy-connection", "close")], Some("HTTP/1")),
        ("GET", "http://a/", &[("te", "gzip")], Some("te must")),
        ("GET", "http://a/", &[("te", "trailers"), ("te", "gzip")], Some("te must")),
        ("POST", "http://a/", &[("content-length", "1"), ("content-length", "1")], Some("once")),
        ("POST", "http://a/", &[("expect", "x")], Some("expect")),
    ];
    for (method, uri, fields, expected) in cases {
        let verdict = check_http2(&request(method, uri, fields));
        match (expected, &verdict) {
            (None, Ok(())) => {}
            (Some(expected), Err(deny)) => {
                assert_eq!(deny.reason, Reason::RequestMalformed);
                assert!(deny.detail.contains(expected), "{method} {uri} {fields:?}: {deny}");
            }
            _ => panic!("{method} {uri} {fields:?}: {verdict:?}"),
        }
    }
}

#[test]
fn fields_are_counted() {
    let fields: Vec<_> = (0..=MAX_FIELDS).map(|_| ("x", "y")).collect();
    assert_eq!(check_http2(&request("GET", "http://a/", &fields)).unwrap_err().reason, Reason::HeadersTooLarge);
}
