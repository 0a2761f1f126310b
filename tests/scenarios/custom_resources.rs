//! Operators write custom resources: what a schema can tell is told at once, all else in the status, and what is written is enforced by the
//! sidecars of every replica, whether the API server is there or not.

use ringfence_tests::{
    KubeApi, Replica, Sidecar, Site, Traffic, Upstream, chart::NAMESPACE, control_plane::ringfence, eventually, http, kubernetes::User,
    site, token,
};
use serde_json::{Value, json};

/// An API server that knows the kinds.
fn with_kinds() -> Option<KubeApi> {
    let api = KubeApi::start()?;
    install_kinds(api.admin());
    api.admin().ok(["create", "namespace", NAMESPACE]);
    Some(api)
}

fn install_kinds(admin: &User) {
    let crds = ringfence(["crds"]);
    admin.apply(&String::from_utf8(crds.stdout).unwrap());
    admin.ok(["wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=ringfence", "--timeout=120s"]);
}

fn issuer(site: &Site) -> String {
    let jwks = token::jwks(&[&site.key]);
    let spec = format!(
        "{{ issuer: {:?}, audiences: [{:?}], algorithms: [ES256], tenantClaim: org, clockSkew: 0s, jwks: {{ inline: {jwks} }} }}",
        token::ISSUER,
        token::AUDIENCE
    );
    site::object("Issuer", "sso", &spec)
}

/// The issuer `sso`, the tenant `acme` and its workload `acme-api`.
fn acme(site: &Site, upstream: &Upstream) -> String {
    let workload = format!("{{ tenant: acme, inbound: [{{ listen: \"127.0.0.1:0\", upstream: \"{}\" }}] }}", upstream.address);
    [issuer(site), site::tenant("acme", ""), site::object("Workload", "acme-api", &workload)].join("---\n")
}

fn status(user: &User, object: &str) -> Value {
    user.get([object])["status"].clone()
}

fn condition(status: &Value, name: &str) -> (String, String) {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut found = conditions.filter(|condition| condition["type"] == name).map(|condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("message"))
    });
    found.next_back().unwrap_or_default()
}

#[track_caller]
fn enforced(user: &User, object: &str) {
    user.ok(["wait", "--for=condition=Enforced", object, "--timeout=120s"]);
}

fn rate(sidecar: &Sidecar) -> String {
    sidecar.admin.config()["tenants"][0]["limits"][0]["rate"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_schema_tells_what_it_can() {
    let Some(api) = KubeApi::shared() else { return };
    let admin = api.admin();
    install_kinds(admin);
    let cases = [
        (
            "Issuer",
            "a",
            "{ issuer: a, audiences: [a], algorithms: [ES256], tenantClaim: a, jwks: { file: a.json } }",
            "spec.jwks.file: Invalid value: \"a.json\": files are for directories: write the set inline, or its uri",
        ),
        (
            "Issuer",
            "a",
            "{ issuer: a, audiences: [a], algorithms: [ES256], tenantClaim: a, jwks: {} }",
            "must have exactly one of inline, uri",
        ),
        (
            "Issuer",
            "a",
            "{ issuer: a, audiences: [a], algorithms: [HS256], tenantClaim: a, jwks: { uri: \"https://a\" } }",
            "supported values: \"ES256\"",
        ),
        ("Tenant", "a.b", "{ identity: [{ issuer: sso }] }", "metadata.name must be a DNS label"),
        ("Tenant", "a", "{ identity: [] }", "spec.identity in body should have at least 1 items"),
        (
            "Tenant",
            "a",
            "{ identity: [{ issuer: sso }], limits: [{ name: all, rate: 5/d }] }",
            "spec.limits[0].rate: Invalid value: \"5/d\": must be N/s, N/m or N/h",
        ),
        ("Tenant", "a", "{ identity: [{ issuer: sso }], limits: [{ name: all, rate: 5/s }, { name: all, rate: 5/m }] }", "Duplicate value"),
        (
            "Tenant",
            "a",
            "{ identity: [{ issuer: sso }], egress: { allow: [{ name: db, ports: [5432], protocol: tcp }] } }",
            "must have hosts, cidrs, or both",
        ),
        ("Tenant", "a", "{ identity: [{ issuer: sso }], egress: { alow: [] } }", "unknown field \"spec.egress.alow\""),
        (
            "Workload",
            "a",
            "{ tenant: a, tenants: [b], egress: { listen: \"127.0.0.1:1\" } }",
            "must have exactly one of tenant and tenants",
        ),
        ("Workload", "a", "{ tenants: [\"*\", b], egress: { listen: \"127.0.0.1:1\" } }", "must stand alone"),
        ("Workload", "a", "{ tenant: a }", "its sidecar has nothing to do"),
        ("Workload", "a", "{ tenant: a, egress: { listen: \"127.0.0.1:1\", capture: redirect } }", "redirect needs dns.listen"),
        ("PolicyZone", "a", "{ inline: x, override: nodatta }", "must be given, nxdomain, nodata"),
        ("PolicyZone", "a", "{ transfer: { primary: \"192.0.2.1\", zone: a.example, tsig: { name: a, secretFile: a } } }", "use tls"),
        ("Platform", "other", "{}", "must be named platform"),
    ];
    for (kind, name, spec, reason) in cases {
        let output = admin.feed(["apply", "-f", "-"], &site::object(kind, name, spec));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{kind} {spec}: {said}");
    }
    // What it takes comes back with the defaults that the decoder has.
    admin.apply(&site::tenant("acme", "limits: [{ name: all, rate: 5/s }]"));
    assert_eq!(
        admin.get(["tenant", "acme"])["spec"]["limits"][0],
        json!({ "name": "all", "rate": "5/s", "key": "tenant", "mode": "enforce", "scope": "local" })
    );
    for query in [["get", "rft"], ["get", "ringfence"], ["describe", "tenant/acme"]] {
        assert!(admin.ok(query).contains("acme"), "{query:?}");
    }
}

#[test]
fn what_is_written_is_enforced_by_the_sidecars_of_every_replica_and_the_status_tells() {
    let Some(api) = with_kinds() else { return };
    let (admin, site, upstream) = (api.admin(), Site::new(), Upstream::start());
    let mut first = Replica::start(&site, &admin.kubeconfig, "first");
    let second = Replica::start(&site, &admin.kubeconfig, "second");
    admin.apply(&acme(&site, &upstream));
    let sidecars = [first.sidecar(&site, "acme-api", "0"), second.sidecar(&site, "acme-api", "1")];
    for object in ["tenant/acme", "issuer/sso", "workload/acme-api"] {
        enforced(admin, object);
    }
    eventually("both replicas' sidecars are counted", || (status(admin, "tenant/acme")["sidecars"] == "2/2").then_some(()));

    // An edit arrives everywhere, and that is told of this generation.
    admin.apply(&site::tenant("acme", "limits: [{ name: all, rate: 7/s }]"));
    eventually("the edit is acknowledged by both", || {
        let status = status(admin, "tenant/acme");
        (status["acknowledgedGeneration"] == 2 && condition(&status, "Enforced") == ("True".into(), "2 of 2 sidecars".into())).then_some(())
    });
    assert_eq!(sidecars.each_ref().map(rate), ["7/s", "7/s"]);

    // A bad edit takes nothing away, says what and where, and holds nobody else up.
    admin.apply(&site::tenant("acme", "limits: [{ name: all, rate: 9/s, burst: 1 }], peers: [nobody]"));
    admin.apply(&site::tenant("globex", ""));
    let status_of_acme = eventually("the fault is told", || {
        let status = status(admin, "tenant/acme");
        (condition(&status, "Accepted").0 == "False").then_some(status)
    });
    assert_eq!(status_of_acme["faults"], json!([{ "path": "spec.peers[0]", "message": "there is no Tenant named \"nobody\"" }]));
    assert_eq!((&status_of_acme["observedGeneration"], &status_of_acme["acknowledgedGeneration"]), (&json!(3), &json!(2)));
    assert_eq!(condition(&status_of_acme, "Enforced").0, "False");
    admin.ok(["wait", "--for=condition=Accepted", "tenant/globex", "--timeout=120s"]);
    assert_eq!(sidecars.each_ref().map(rate), ["7/s", "7/s"]);

    // A control plane that starts meanwhile knows what was in force, and whoever is left takes over what is to be written.
    first.process.kill();
    drop(first);
    let third = Replica::start(&site, &admin.kubeconfig, "third");
    let late = third.sidecar(&site, "acme-api", "2");
    assert_eq!(rate(&late), "7/s");
    let reply = http::get(late.address(), "/").bearer(&site.token("acme")).send();
    assert_eq!(reply.status, 200);

    // Mended, it is in force; deleted, it is gone.
    admin.apply(&site::tenant("acme", "limits: [{ name: all, rate: 9/s }]"));
    eventually("the mended edit arrives", || [&sidecars[1], &late].iter().all(|sidecar| rate(sidecar) == "9/s").then_some(()));
    eventually("who takes over tells it", || {
        let status = status(admin, "tenant/acme");
        (condition(&status, "Accepted").0 == "True" && status.get("lastAccepted").is_none() && status["acknowledgedGeneration"] == 4)
            .then_some(())
    });
    admin.ok(["delete", "tenant/globex"]);
}

#[test]
fn an_issuer_too_large_is_told_and_nothing_waits_for_it() {
    let Some(api) = with_kinds() else { return };
    let (admin, site, upstream) = (api.admin(), Site::new(), Upstream::start());
    let _replica = Replica::start(&site, &admin.kubeconfig, "only");
    let words = vec!["0123456789abcdef"; 70_000];
    let jwks = json!({ "keys": [], "more": words });
    let spec = format!("{{ issuer: huge, audiences: [a], algorithms: [ES256], tenantClaim: org, jwks: {{ inline: {jwks} }} }}");
    admin.apply(&site::object("Issuer", "huge", &spec));
    admin.apply(&acme(&site, &upstream));
    admin.ok(["wait", "--for=condition=Accepted", "tenant/acme", "--timeout=120s"]);
    let said = eventually("the fault is told", || {
        Some(condition(&status(admin, "issuer/huge"), "Accepted")).filter(|(status, _)| status == "False")
    });
    assert!(said.1.contains("larger than"), "{said:?}");
}

#[test]
fn without_the_api_server_traffic_goes_on_and_what_is_written_later_arrives() {
    let Some(mut api) = with_kinds() else { return };
    let (site, upstream) = (Site::new(), Upstream::start());
    let kubeconfig = api.admin().kubeconfig.clone();
    let mut replica = Replica::start(&site, &kubeconfig, "only");
    api.admin().apply(&acme(&site, &upstream));
    let sidecar = replica.sidecar(&site, "acme-api", "0");
    enforced(api.admin(), "tenant/acme");
    let traffic = Traffic::start(sidecar.address(), site.token("acme"));
    traffic.goes_on();
    api.stop();
    replica.process.line(|line| line.contains("what is in force stays"));
    traffic.goes_on();
    // Also for one that has nothing yet.
    let late = replica.sidecar(&site, "acme-api", "1");
    assert_eq!(http::get(late.address(), "/").bearer(&site.token("acme")).send().status, 200);
    api.resume();
    api.admin().apply(&site::tenant("acme", "limits: [{ name: all, rate: 100000/s }]"));
    eventually("the edit arrives", || [&sidecar, &late].iter().all(|sidecar| rate(sidecar) == "100000/s").then_some(()));
    traffic.goes_on();
    enforced(api.admin(), "tenant/acme");
    println!("without the API server: {:?}", traffic.was_whole());
}
