//! A token that was verified is remembered, and never longer than what made it good.

use ringfence_tests::{
    Serve, Sidecar, Site, Upstream,
    ads::Tap,
    eventually,
    http::get,
    token::{self, Key, claims, now},
};
use ringfence_xds::resource::Kind;
use serde_json::json;

struct Running {
    _upstream: Upstream,
    site: Site,
    _serve: Serve,
    sidecar: Sidecar,
}

impl Running {
    fn acme() -> Self {
        let upstream = Upstream::start();
        let site = Site::acme(upstream.address);
        let serve = Serve::start(&site);
        let sidecar = Sidecar::start(&site, &serve, "acme-api");
        Self { _upstream: upstream, site, _serve: serve, sidecar }
    }

    fn verdict(&self, token: &str) -> (u16, String) {
        get(self.sidecar.address(), "/").bearer(token).send().verdict()
    }

    /// Verified and remembered: the second request finds it.
    fn remember(&self, token: &str) {
        let hits = || self.sidecar.admin.metric("ringfence_inbound_identify_cache_total", "hit");
        assert_eq!(self.verdict(token).0, 200);
        let before = hits();
        assert_eq!(self.verdict(token).0, 200);
        assert_eq!(hits(), before + 1.0);
    }

    #[track_caller]
    fn becomes(&self, token: &str, verdict: (u16, &str)) {
        eventually(&format!("{verdict:?}"), || {
            let (status, reason) = self.verdict(token);
            assert!(status == 200 || (status, &*reason) == verdict || verdict.0 == 200, "{status} {reason}");
            ((status, &*reason) == verdict).then_some(())
        });
    }
}

#[test]
fn a_rotated_key_works_and_a_withdrawn_one_stops_at_once() {
    let running = Running::acme();
    let (old, next) = (running.site.token("acme"), Key::new("next"));
    let new = next.token("acme", "alice");
    running.remember(&old);
    assert_eq!(running.verdict(&new), (401, "token_key".into()));

    running.site.write("jwks.json", &token::jwks(&[&running.site.key, &next]));
    running.becomes(&new, (200, ""));
    running.remember(&old);

    running.site.write("jwks.json", &token::jwks(&[&next]));
    running.becomes(&old, (401, "token_key"));
    running.remember(&new);
}

#[test]
fn a_claim_value_that_is_taken_from_a_tenant_stops_its_tokens() {
    let running = Running::acme();
    let identity = |values: &str| {
        let spec = format!("{{ identity: [{{ issuer: sso, values: [{values}] }}] }}");
        running.site.write("acme.yaml", &ringfence_tests::site::object("Tenant", "acme", &spec));
    };
    let (kept, taken) = (running.site.token("org_a"), running.site.token("org_b"));
    identity("org_a, org_b");
    running.becomes_served(&taken);
    running.remember(&kept);
    running.remember(&taken);
    identity("org_a");
    running.becomes(&taken, (403, "tenant_mismatch"));
    running.remember(&kept);
}

impl Running {
    #[track_caller]
    fn becomes_served(&self, token: &str) {
        eventually("the token is good", || (self.verdict(token).0 == 200).then_some(()));
    }
}

#[test]
fn a_remembered_token_dies_when_it_expires() {
    let running = Running::acme();
    let mut short = claims("acme", "alice");
    short["exp"] = (now() + 2).into();
    let token = running.site.key.sign(&short);
    running.remember(&token);
    running.becomes(&token, (401, "token_expired"));
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
