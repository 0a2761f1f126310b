//! Whose request it is, the verified token says and nothing else that a client can send.

use ringfence_tests::{
    Acme,
    http::get,
    raw,
    token::{Key, claims, now},
};
use serde_json::Value;

#[test]
fn forged_identity_never_reaches_the_workload() {
    let acme = Acme::start();
    let (address, token) = (acme.address, &acme.token);
    for (i, fields) in [
        "x-ringfence-tenant: globex",
        "X-RINGFENCE-TENANT: globex",
        "X-Ringfence-Tenant: globex\r\nx-ringfence-tenant: globex",
        "x_ringfence_tenant: globex",
        "X-Ringfence_Subject: mallory\r\nx-ringfence-anything: globex",
        "Connection: x-ringfence-tenant, X-Ringfence-Subject",
        "Connection: close, x-ringfence-tenant\r\nx-ringfence-tenant: globex",
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/{i}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{fields}\r\nConnection: close\r\n\r\n");
        let reply = raw::exchange(address, request);
        assert_eq!(raw::status(&reply), 200, "{fields}: {reply}");
        assert_only_acme(&acme, &target, fields);
    }
    // Over HTTP/2 too, and on paths that need no token, where there is nobody to name.
    let forged = |target| get(address, target).header("x-ringfence-tenant", "globex").header("x_ringfence_subject", "mallory");
    assert_eq!(forged("/h2").bearer(token).send_h2().status, 200);
    assert_only_acme(&acme, "/h2", "HTTP/2");
    assert_eq!(forged("/public/x").send().status, 200);
    let seen = format!("{:?}", acme.upstream.seen("/public/x"));
    assert!(!seen.contains("globex") && !seen.contains("mallory") && !seen.contains("x-ringfence"), "{seen}");
}

#[test]
fn forged_identity_in_trailers_never_reaches_the_workload() {
    let acme = Acme::start();
    let head = format!("Host: a\r\nAuthorization: Bearer {}\r\n", acme.token);
    let request = format!(
        "POST /t HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x-sum, x-ringfence-tenant\r\nConnection: close\r\n\r\n\
         2\r\nhi\r\n0\r\nx-sum: 1\r\nX-Ringfence-Tenant: globex\r\nx_ringfence_tenant: globex\r\nx-ringfence-subject: mallory\r\n\r\n"
    );
    let reply = raw::exchange(acme.address, request);
    // Refused or stripped: either way nothing of it arrives.
    assert!([200, 400].contains(&raw::status(&reply)), "{reply}");
    if raw::status(&reply) == 200 {
        assert_only_acme(&acme, "/t", "trailers");
    }
    assert!(!format!("{:?}", acme.upstream.begun("/t").trailers).contains("ringfence"));
}

#[track_caller]
fn assert_only_acme(acme: &Acme, target: &str, sent: &str) {
    let seen = acme.upstream.seen(target);
    let told: Vec<(&str, &[u8])> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| name.replace('_', "-").starts_with("x-ringfence-"))
        .collect();
    assert_eq!(told, [("x-ringfence-tenant", &b"acme"[..]), ("x-ringfence-subject", b"alice")], "{sent}");
    let all = format!("{seen:?}");
    assert!(!all.contains("globex") && !all.contains("mallory"), "{sent}: {all}");
}

#[test]
fn a_token_that_does_not_name_the_workloads_tenant_is_refused() {
    let acme = Acme::start();
    acme.site.tenant("globex", "");
    let (globex, nobody) = (acme.site.token("globex"), acme.site.token("nobody"));
    let mut nameless = claims("acme", "alice");
    nameless.as_object_mut().unwrap().remove("org");
    for (token, status, reason) in [
        (&acme.token, 200, ""),
        (&globex, 403, "tenant_mismatch"),
        (&nobody, 403, "tenant_mismatch"),
        (&acme.site.key.sign(&nameless), 403, "tenant_missing"),
    ] {
        assert_eq!(acme.verdict(token), (status, reason.into()));
    }
    // Who else there is cannot be told from a refusal.
    let [existing, absent] = [&globex, &nobody].map(|token| {
        let reply = get(acme.address, "/").bearer(token).send();
        let mut body = reply.json().unwrap();
        body["id"].take();
        let mut headers = reply.headers;
        headers.remove("date");
        (headers, body)
    });
    assert_eq!(existing, absent);
    assert!(!format!("{existing:?}").contains("acme"));
}

#[test]
fn a_token_that_proves_nothing_is_refused() {
    let acme = Acme::start();
    let key = &acme.site.key;
    let with = |name: &str, value: Value| {
        let mut claims = claims("acme", "alice");
        claims[name] = value;
        key.sign(&claims)
    };
    let stranger = Key::new("first").token("acme", "alice");
    let good = acme.token.clone();
    let tampered = {
        let mut parts: Vec<&str> = good.split('.').collect();
        let other = key.token("globex", "alice");
        parts[1] = other.split('.').nth(1).unwrap();
        parts.join(".")
    };
    for (what, token, reason) in [
        ("another key under the same name", stranger, "token_signature"),
        ("another payload", tampered, "token_signature"),
        ("a key of an unknown name", Key::new("second").token("acme", "alice"), "token_key"),
        ("expired", with("exp", (now() - 1).into()), "token_expired"),
        ("not yet valid", with("nbf", (now() + 600).into()), "token_not_yet_valid"),
        ("another audience", with("aud", "other.test".into()), "token_audience"),
        ("another issuer", with("iss", "https://evil.test/".into()), "token_issuer"),
        ("no signature", good.rsplit_once('.').unwrap().0.to_owned() + ".", "token_malformed"),
        ("too large", with("padding", "x".repeat(20_000).into()), "token_malformed"),
        ("no token", "garbage".into(), "token_malformed"),
    ] {
        let reply = get(acme.address, "/").bearer(&token).send();
        assert_eq!(reply.verdict(), (401, reason.into()), "{what}");
        assert!(reply.header("www-authenticate").starts_with("Bearer "), "{what}");
    }
    assert_eq!(acme.verdict(&good).0, 200);
}

#[test]
fn two_tokens_are_none() {
    let acme = Acme::start();
    let (good, foreign) = (acme.token.clone(), acme.site.token("globex"));
    for (first, second) in [(&good, &good), (&good, &foreign), (&foreign, &good)] {
        let reply = get(acme.address, "/two").bearer(first).bearer(second).send();
        assert_eq!(reply.verdict(), (401, "token_malformed".into()));
    }
    let joined = get(acme.address, "/two").header("authorization", &format!("Bearer {good}, Bearer {good}")).send();
    assert_eq!(joined.verdict(), (401, "token_malformed".into()));
    assert_eq!(acme.upstream.count("/two"), 0);
}
