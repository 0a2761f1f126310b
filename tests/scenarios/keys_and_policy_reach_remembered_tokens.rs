//! A token that was verified is remembered, and never longer than what made it good.

use ringfence_tests::{
    Acme, Serve, Sidecar, Site, Upstream,
    ads::Tap,
    eventually,
    http::get,
    token::{self, Key, claims, now},
};
use ringfence_xds::resource::Kind;
use serde_json::json;

/// Verified and remembered: the second request finds it.
#[track_caller]
fn remember(acme: &Acme, token: &str) {
    let hits = || acme.sidecar.admin.metric("ringfence_inbound_identify_cache_total", "hit");
    assert_eq!(acme.verdict(token).0, 200);
    let before = hits();
    assert_eq!(acme.verdict(token).0, 200);
    assert_eq!(hits(), before + 1.0);
}

#[track_caller]
fn becomes(acme: &Acme, token: &str, status: u16, reason: &str) {
    eventually(&format!("{status} {reason}"), || (acme.verdict(token) == (status, reason.into())).then_some(()));
}

#[test]
fn a_rotated_key_works_and_a_withdrawn_one_stops_at_once() {
    let acme = Acme::start();
    let (old, next) = (acme.token.clone(), Key::new("next"));
    let new = next.token("acme", "alice");
    remember(&acme, &old);
    assert_eq!(acme.verdict(&new), (401, "token_key".into()));

    acme.site.write("jwks.json", &token::jwks(&[&acme.site.key, &next]));
    becomes(&acme, &new, 200, "");
    remember(&acme, &old);

    acme.site.write("jwks.json", &token::jwks(&[&next]));
    becomes(&acme, &old, 401, "token_key");
    remember(&acme, &new);
}

#[test]
fn a_claim_value_that_is_taken_from_a_tenant_stops_its_tokens() {
    let acme = Acme::start();
    let identity = |values: &str| {
        let spec = format!("{{ identity: [{{ issuer: sso, values: [{values}] }}] }}");
        acme.site.write("acme.yaml", &ringfence_tests::site::object("Tenant", "acme", &spec));
    };
    let (kept, taken) = (acme.site.token("org_a"), acme.site.token("org_b"));
    identity("org_a, org_b");
    becomes(&acme, &taken, 200, "");
    remember(&acme, &kept);
    remember(&acme, &taken);
    identity("org_a");
    becomes(&acme, &taken, 403, "tenant_mismatch");
    remember(&acme, &kept);
}

#[test]
fn a_remembered_token_dies_when_it_expires() {
    let acme = Acme::start();
    let mut short = claims("acme", "alice");
    short["exp"] = (now() + 2).into();
    let token = acme.site.key.sign(&short);
    remember(&acme, &token);
    becomes(&acme, &token, 401, "token_expired");
    assert!(now() >= short["exp"].as_u64().unwrap(), "not before its time");
}

#[test]
fn unknown_keys_ask_the_control_plane_at_a_bounded_rate() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let serve = Serve::start(&site);
    let tap = Tap::new(serve.plaintext);
    let sidecar = Sidecar::start_with(&site, &serve, "acme-api", &json!({ "controlPlane": { "dangerousPlaintext": tap.address } }));
    let asked = || {
        let of_issuer = |request: &&ringfence_xds::generated::discovery::DeltaDiscoveryRequest| {
            request.type_url == Kind::Issuer.type_url() && !request.resource_names_subscribe.is_empty()
        };
        tap.requests().iter().filter(of_issuer).count()
    };
    assert_eq!(asked(), 1, "the subscription itself");
    let unknown = |n: usize| {
        let token = Key::new(&format!("unknown-{n}")).token("acme", "alice");
        assert_eq!(get(sidecar.address(), "/").bearer(&token).send().verdict(), (401, "token_key".into()));
    };
    unknown(0);
    eventually("the sidecar asks for fresh keys", || (asked() == 2).then_some(()));
    for n in 1..100 {
        unknown(n);
    }
    // An edit's way through the same stream: whatever was asked before it has passed the tap.
    site.tenant("acme", "limits: [{ name: all, rate: 5/s }]");
    sidecar.admin.config_where("the edit is in force", |config| config["tenants"][0]["limits"][0]["rate"] == "5/s");
    // Once in ten seconds; a slow machine may take longer than that for the hundred.
    assert!((2..=4).contains(&asked()), "{}", asked());
}
