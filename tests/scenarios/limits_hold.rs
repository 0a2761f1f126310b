//! Limits count what they say, all or none, and a push neither refills nor forgets.

use ringfence_tests::{Acme, Serve, Sidecar, Site, Upstream, eventually, http::get, raw::Raw, token};
use serde_json::{Value, json};

/// How many of so many requests pass.
#[track_caller]
fn passed(acme: &Acme, method: &str, token: &str, count: usize) -> usize {
    let statuses = (0..count).map(|_| get(acme.address, "/").method(method).bearer(token).send().status);
    statuses.inspect(|status| assert!([200, 429].contains(status), "{status}")).filter(|status| *status == 200).count()
}

#[track_caller]
fn in_force(acme: &Acme, what: impl Fn(&Value) -> bool) {
    acme.sidecar.admin.config_where("the edit is in force", what);
}

#[test]
fn several_limits_are_charged_all_or_none() {
    let acme = Acme::with("limits: [{ name: all, rate: 3/h }, { name: writes, rate: 1/h, match: { methods: [POST] } }]");
    assert_eq!(passed(&acme, "POST", &acme.token, 1), 1);
    let refused = acme.get("/").method("POST").send();
    assert_eq!(refused.verdict(), (429, "rate_limited".into()));
    assert!(refused.header("ratelimit").starts_with("\"writes\";r=0;t="), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy"), "\"all\";q=3;w=3600, \"writes\";q=1;w=3600");
    // Refused by one of them, the other was not charged: two of its three are left.
    assert_eq!(passed(&acme, "POST", &acme.token, 5), 0);
    assert_eq!(passed(&acme, "GET", &acme.token, 5), 2);
}

#[test]
fn subjects_are_counted_apart_and_the_tenant_as_a_whole() {
    let acme = Acme::with("limits: [{ name: each, rate: 2/h, key: subject }, { name: all, rate: 5/h }]");
    let of = |subject: &str| acme.site.token_of("acme", subject);
    assert_eq!(passed(&acme, "GET", &of("alice"), 4), 2);
    assert_eq!(passed(&acme, "GET", &of("bob"), 4), 2);
    assert_eq!(passed(&acme, "GET", &of("carol"), 4), 1, "the tenant's five are used up");
}

#[test]
fn one_tenants_limit_is_none_of_anothers() {
    let upstream = Upstream::start();
    let site = Site::new();
    site.tenant("acme", "limits: [{ name: all, rate: 2/h }]");
    site.tenant("globex", "limits: [{ name: all, rate: 2/h }]");
    site.workload("shared-api", "tenants: [acme, globex]", upstream.address);
    let serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, "shared-api");
    let statuses = |tenant: &str| [(); 3].map(|()| get(sidecar.address(), "/").bearer(&site.token(tenant)).send().status);
    assert_eq!(statuses("acme"), [200, 200, 429]);
    assert_eq!(statuses("globex"), [200, 200, 429]);
}

#[test]
fn a_shadow_limit_lets_pass_and_is_told() {
    let acme = Acme::with("limits: [{ name: trial, rate: 1/h, mode: shadow }]");
    for n in 0..3 {
        assert_eq!(acme.get(&format!("/{n}")).send().status, 200);
    }
    let line = acme.sidecar.log.line("/2");
    assert_eq!((&line["decision"], &line["shadow"]), (&"shadow".into(), &json!(["Tenant/acme: limits[trial]"])), "{line}");
    assert_eq!(acme.sidecar.log.line("/0")["decision"], "allow");
    let metric = acme.sidecar.admin.metric("ringfence_inbound_requests_total", "decision=\"shadow\",reason=\"rate_limited\"");
    assert_eq!(metric, 2.0);
}

#[test]
fn a_push_does_not_refill() {
    let acme = Acme::with("limits: [{ name: all, rate: 3/h }]");
    assert_eq!(passed(&acme, "GET", &acme.token, 4), 3);
    acme.site.tenant("acme", "inFlight: 7, limits: [{ name: all, rate: 3/h }, { name: more, rate: 5/s }]");
    in_force(&acme, |config| config["tenants"][0]["inFlight"] == 7);
    assert_eq!(passed(&acme, "GET", &acme.token, 1), 0, "another field of the tenant");
    // Keys rotate, the token is verified anew.
    acme.site.write("jwks.json", &token::jwks(&[&acme.site.key, &token::Key::new("next")]));
    in_force(&acme, |config| config["issuers"][0]["keys"] == 2);
    assert_eq!(passed(&acme, "GET", &acme.token, 1), 0, "another object");
}

#[test]
fn a_raised_rate_carries_over_what_was_used() {
    let acme = Acme::with("limits: [{ name: all, rate: 2/h }]");
    assert_eq!(passed(&acme, "GET", &acme.token, 3), 2);
    let wait = |reply: ringfence_tests::http::Reply| reply.header("retry-after").parse::<u64>().unwrap();
    assert!(wait(acme.get("/").send()) > 1700, "half an hour until the next");

    acme.site.tenant("acme", "limits: [{ name: all, rate: 4/m, burst: 2 }]");
    in_force(&acme, |config| config["tenants"][0]["limits"][0]["rate"] == "4/m");
    let refused = acme.get("/").send();
    assert_eq!(refused.status, 429, "used up it stays");
    assert!(wait(refused) <= 15, "and is earned back at the new rate");

    acme.site.tenant("acme", "limits: [{ name: all, rate: 100/s, burst: 2 }]");
    eventually("a request passes", || (acme.get("/").send().status == 200).then_some(()));
}

#[test]
fn requests_in_flight_are_limited() {
    let acme = Acme::with("inFlight: 2");
    let mut held: Vec<Raw> = (0..2)
        .map(|n| {
            let mut raw = Raw::connect(acme.address);
            raw.send(acme.head("GET", &format!("/hold/{n}")) + "\r\n");
            acme.upstream.begun(&format!("/hold/{n}"));
            raw
        })
        .collect();
    let refused = acme.get("/third").send();
    assert_eq!(refused.verdict(), (429, "rate_limited".into()));
    assert_eq!(refused.header("ratelimit-policy"), "\"inFlight\";q=2;qu=\"concurrent-requests\"");
    assert_eq!(acme.sidecar.log.line("/third")["rule"], "Tenant/acme: inFlight");

    acme.upstream.release();
    assert!(held.iter_mut().all(|raw| raw.response().starts_with("HTTP/1.1 200 ")));
    assert_eq!(acme.get("/third").send().status, 200);
}
