//! One fetch, against a server of our own.

use std::{fmt::Write, sync::PoisonError, time::Duration};

use ringfence_policy::identify::keys::Algorithm;
use tokio::net::TcpListener;

use super::{Authority, Site, jwk, ok, response, set};
use crate::feed::{
    JwksUri,
    fetch::{Deadlines, FetchError, Fetched, Fetcher, MAX_BODY_BYTES},
};

async fn fetch(from: JwksUri) -> Result<Fetched, FetchError> {
    fetch_within(from, Deadlines::default()).await
}

async fn fetch_within(from: JwksUri, deadlines: Deadlines) -> Result<Fetched, FetchError> {
    Fetcher::new(from, vec![Algorithm::Es256], deadlines).fetch().await
}

#[tokio::test]
async fn a_set_is_fetched_and_only_its_usable_keys_are_kept() {
    let (good, other) = (jwk("good"), jwk("other"));
    let mut private = jwk("private");
    private["d"] = "c2VjcmV0".into();
    let mut published = set(&[&private, &good, &serde_json::json!({"kty": "oct"}), &other]);
    published["note"] = "not a key".into();
    let site = Site::new(response("200 OK", "Cache-Control: public, Max-Age=77\r\n", &published.to_string())).await;

    let fetched = fetch(site.uri("/keys?v=1")).await.unwrap();
    assert_eq!(fetched.text, set(&[&good, &other]).to_string());
    assert_eq!(fetched.set_aside.iter().map(|fault| fault.index).collect::<Vec<_>>(), [0, 2]);
    assert!(fetched.set_aside[0].reason.contains("a private key stands in a public set"), "{:?}", fetched.set_aside);
    assert_eq!(fetched.max_age, Some(Duration::from_secs(77)));
    let head = site.requests.lock().unwrap_or_else(PoisonError::into_inner)[0].to_lowercase();
    for part in [
        "get /keys?v=1 http/1.1\r\n".to_owned(),
        format!("\r\nhost: localhost:{}\r\n", site.port),
        "\r\naccept: application/jwk-set+json, application/json\r\n".into(),
    ] {
        assert!(head.contains(&part), "{part:?} in {head}");
    }
}

#[tokio::test]
async fn how_long_a_set_holds_is_read() {
    let body = set(&[&jwk("k")]).to_string();
    let site = Site::new("").await;
    for (headers, wanted) in [
        ("", None),
        ("cache-control: no-store\r\n", None),
        ("cache-control: max-age=5\r\n", Some(5)),
        ("cache-control: public\r\ncache-control: s-maxage=9, max-age=\"6\"\r\n", Some(6)),
        ("cache-control: max-age=-1\r\n", None),
        ("cache-control: max-age\r\n", None),
    ] {
        site.answer(response("200 OK", headers, &body), false);
        assert_eq!(fetch(site.uri("/")).await.unwrap().max_age, wanted.map(Duration::from_secs), "{headers}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_is_a_fault() {
    let body = set(&[&jwk("k")]).to_string();
    let long = " ".repeat(MAX_BODY_BYTES);
    let chunked =
        |data: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{data}\r\n0\r\n\r\n", data.len()).into_bytes();
    let mut private = jwk("k");
    private["d"] = "c2VjcmV0".into();
    let heads = (0..2000).fold(String::new(), |mut heads, i| {
        write!(heads, "x-{i}: {}\r\n", "y".repeat(100)).unwrap();
        heads
    });
    let leads = |status: &str, location: &str| response(status, &format!("location: {location}\r\n"), &body);
    let site = Site::new("").await;
    for (answer, wanted) in [
        (leads("302 Found", "https://evil.example/keys"), "answers 302 Found and leads to \"evil.example\": not followed"),
        (leads("301 Moved Permanently", "http://169.254.169.254/"), "leads to \"169.254.169.254\": not followed"),
        (leads("308 Permanent Redirect", "/other"), "leads to another path, \"/other\": not followed"),
        (response("303 See Other", "", &body), "leads to nowhere: not followed"),
        (response("500 Internal Server Error", "", &body), "answers 500 Internal Server Error: must be 200"),
        (response("404 Not Found", "", &body), "answers 404 Not Found"),
        (response("203 Non-Authoritative Information", "", &body), "answers 203"),
        (response("200 OK", "", &format!("{body}{long}")), "answers with more than 524288 bytes"),
        (chunked(&format!("{body}{long}")), "answers with more than 524288 bytes"),
        (response("200 OK", &heads, &body), "broken answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{".to_vec(), "broken answer"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "broken answer"),
        (Vec::new(), "broken answer"),
        (response("200 OK", "", "<html>sign in</html>"), "must be a JWK set"),
        (response("200 OK", "", ""), "must be a JWK set"),
        (ok(&set(&[])), "keys: must not be empty"),
        (ok(&set(&[&private])), "keys: none of the 1 is usable; the first: a private key"),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
        site.answer(answer, false);
        let error = fetch(site.uri("/")).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{shown}: {error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
    assert_eq!(site.asked("/"), 17, "nothing was asked for twice");
}

#[tokio::test]
async fn who_answers_must_prove_to_be_the_host() {
    let good = ok(&set(&[&jwk("k")]));
    let site = Site::new(good.clone()).await;
    let at = |site: &Site, host: &str| format!("https://{host}:{}/", site.port).parse::<JwksUri>().unwrap().dangerous_allow_private();
    let expired = Site::with_certificate("localhost", 2020, good.clone()).await;
    let other = Site::with_certificate("sso.example.com", 3000, good.clone()).await;
    let by_address = Site::with_certificate("127.0.0.1", 3000, good).await;
    let stranger = Authority::new();
    for (from, wanted) in [
        (at(&site, "localhost").trust_only(stranger.pem.as_bytes()).unwrap(), Some("BadSignature")), // of the same name
        (at(&site, "localhost"), Some("UnknownIssuer")), // the public authorities do not know it
        (at(&site, "127.0.0.1").trust_only(site.authority.pem.as_bytes()).unwrap(), Some("not valid for name")),
        (other.uri("/"), Some("not valid for name")),
        (expired.uri("/"), Some("TLS: the certificate has expired")),
        (at(&by_address, "127.0.0.1").trust_only(by_address.authority.pem.as_bytes()).unwrap(), None),
    ] {
        let told = fetch(from.clone()).await.err().map(|error| error.to_string());
        match (&told, wanted) {
            (None, None) => {}
            (Some(told), Some(wanted)) if told.contains(wanted) => {}
            _ => panic!("{from}: {told:?}, not {wanted:?}"),
        }
    }
    assert_eq!([&site, &expired, &other, &by_address].map(|site| site.asked("/")), [0, 0, 0, 1]);
}

#[tokio::test]
async fn what_is_private_is_not_dialled_without_leave() {
    let site = Site::new(ok(&set(&[&jwk("k")]))).await;
    let uri: JwksUri = format!("https://127.0.0.1:{}/", site.port).parse().unwrap();
    let error = fetch(uri).await.unwrap_err().to_string();
    assert_eq!(error, "127.0.0.1 (loopback) is not dialled without dangerousAllowPrivate: true");
    assert_eq!(site.asked("/"), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let short = Duration::from_millis(50);
    let site = Site::new("").await;
    let body = set(&[&jwk("k")]).to_string();
    let deadlines = Deadlines { total: short, ..Deadlines::default() };
    for answer in ["", "HTTP/1.1 200 OK\r\n", &format!("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{body}")] {
        site.answer(answer, true);
        let error = fetch_within(site.uri("/"), deadlines).await.unwrap_err();
        assert!(matches!(error, FetchError::Slow(_)), "{answer}: {error}");
    }
    // Connected by the kernel; nobody accepts.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: JwksUri = format!("https://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let deadlines = Deadlines { connect: short, ..Deadlines::default() };
    let error = fetch_within(uri.dangerous_allow_private(), deadlines).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 50 ms");
}
