//! Where a request goes, without a socket.

use http::Request;
use ringfence_policy::Reason;

use crate::outbound::http::target::{Scope, Target};

const BAD: Result<&str, Reason> = Err(Reason::RequestMalformed);
const MISMATCH: Result<&str, Reason> = Err(Reason::EgressNameMismatch);

/// Scope, method, target, Host, and where it goes.
type Case<'a> = (&'a Scope, &'a str, &'a str, Option<&'a str>, Result<&'a str, Reason>);

#[test]
fn what_names_a_destination_twice_must_name_the_same() {
    let proxy = &Scope::Proxy;
    let tunnel = &Scope::Tunnel { host: "a.test".parse().unwrap(), port: 8080, tenant: "acme".parse().unwrap() };
    let captured = &Scope::Captured("192.0.2.7:80".parse().unwrap());
    let captured_v6 = &Scope::Captured("[2001:db8::7]:8080".parse().unwrap());
    let mapped = &Scope::Captured("[::ffff:192.0.2.7]:80".parse().unwrap());
    let cases: &[Case<'_>] = &[
        (proxy, "GET", "http://a.test/x", Some("a.test"), Ok("a.test:80")),
        (proxy, "GET", "http://a.test/x", Some("A.TEST.:80"), Ok("a.test:80")),
        (proxy, "GET", "http://a.test:8080/x", Some("a.test:8080"), Ok("a.test:8080")),
        (proxy, "GET", "http://[2001:DB8::1]:8080/", Some("[2001:db8:0::1]:8080"), Ok("[2001:db8::1]:8080")),
        (proxy, "GET", "http://a.test/x", None, Ok("a.test:80")),
        (proxy, "GET", "http://a.test/x", Some("b.test"), MISMATCH),
        (proxy, "GET", "http://a.test:8080/x", Some("a.test"), MISMATCH),
        (proxy, "GET", "http://a.test/x", Some("a.test:443"), MISMATCH),
        (proxy, "GET", "http://a.test/x", Some("a..test"), BAD),
        (proxy, "GET", "https://a.test/x", Some("a.test"), BAD),
        (proxy, "GET", "/x", Some("a.test"), BAD),
        (proxy, "GET", "http://127.1/", None, BAD),
        (proxy, "GET", "http://0x7f.1/", None, BAD),
        (proxy, "GET", "http://2130706433/", None, BAD),
        (proxy, "GET", "http://0177.0.0.1/", None, BAD),
        (proxy, "GET", "http://u:p@a.test/", None, BAD),
        (proxy, "GET", "http://a.test:0/", None, BAD),
        (proxy, "GET", "http://a.test:/", None, BAD),
        (proxy, "GET", "http://[fe80::1%25eth0]/", None, BAD),
        (proxy, "CONNECT", "a.test:443", Some("a.test:443"), Ok("a.test:443")),
        (proxy, "CONNECT", "A.test.:443", Some("a.test"), Ok("a.test:443")),
        (proxy, "CONNECT", "192.0.2.7:443", None, Ok("192.0.2.7:443")),
        (proxy, "CONNECT", "a.test", None, BAD),
        (proxy, "CONNECT", "a.test:443", Some("b.test:443"), MISMATCH),
        (proxy, "CONNECT", "a.test:443", Some("a.test:80"), MISMATCH),
        (proxy, "CONNECT", "127.1:443", None, BAD),
        (proxy, "CONNECT", "u@a.test:443", None, BAD),
        (tunnel, "GET", "/", Some("a.test:8080"), Ok("a.test:8080")),
        (tunnel, "GET", "/", Some("a.test"), MISMATCH),
        (tunnel, "GET", "/", Some("b.test:8080"), MISMATCH),
        (tunnel, "GET", "http://b.test:8080/", None, MISMATCH),
        (tunnel, "GET", "/", Some("127.0.0.1:8080"), MISMATCH),
        (tunnel, "CONNECT", "a.test:8080", None, BAD),
        (captured, "GET", "/", Some("a.test"), Ok("a.test:80")),
        (captured, "GET", "/", Some("192.0.2.7"), Ok("192.0.2.7:80")),
        (captured, "GET", "/", Some("192.0.2.8"), MISMATCH),
        (captured, "GET", "/", Some("a.test:8080"), MISMATCH),
        (captured, "GET", "/", Some("[::ffff:192.0.2.7]"), MISMATCH),
        (captured, "GET", "/", None, BAD),
        (captured, "CONNECT", "a.test:80", None, BAD),
        (captured, "GET", "https://a.test:80/", None, BAD),
        (captured_v6, "GET", "/", Some("[2001:db8::7]:8080"), Ok("[2001:db8::7]:8080")),
        (captured_v6, "GET", "/", Some("[2001:db8::7]"), MISMATCH),
        (captured_v6, "GET", "/", Some("[2001:db8::8]:8080"), MISMATCH),
        (mapped, "GET", "/", Some("192.0.2.7"), Ok("192.0.2.7:80")),
    ];
    for (scope, method, uri, host, expected) in cases {
        let mut request = Request::builder().method(*method).uri(*uri);
        if let Some(host) = host {
            request = request.header("host", *host);
        }
        // What http refuses to hold never reaches the route.
        let Ok(request) = request.body(()) else {
            assert_eq!(*expected, BAD, "{method} {uri}");
            continue;
        };
        let verdict = Target::of(&request, scope).map(|target| format!("{}:{}", target.host, target.port)).map_err(|deny| deny.reason);
        assert_eq!(verdict.as_deref().map_err(|reason| *reason), *expected, "{scope:?} {method} {uri} {host:?}");
    }
}
