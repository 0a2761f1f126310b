//! What operators see: a line for each request, metrics that name nobody, traces, and what is in force. None of it a secret.

use std::collections::BTreeSet;

use ringfence_tests::{Acme, Serve, Sidecar, Site, Upstream, collector::Collector, http::get, site::object};
use serde_json::json;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn each_request_leaves_one_line_without_secrets() {
    let acme = Acme::with("inbound: { allow: [{ paths: [\"/allowed/**\"] }, { paths: [\"/elsewhere\"], scopes: [admin] }] }");
    let signature = acme.token.rsplit('.').next().unwrap().to_owned();
    let allowed = acme.get("/allowed/a?api_key=hunter2").header("cookie", "session=hunter3").header("traceparent", TRACEPARENT).send();
    assert_eq!(allowed.status, 200);
    let refused = acme.get("/elsewhere?api_key=hunter2").send();
    assert_eq!(refused.verdict(), (403, "scope_missing".into()));
    assert_eq!(get(acme.address, "/anonymous").send().status, 401);

    let line = acme.sidecar.log.line("/allowed/a");
    for (field, wanted) in [
        ("workload", json!("acme-api")),
        ("tenant", json!("acme")),
        ("method", json!("GET")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("decision", json!("allow")),
        ("bytes_in", json!(0)),
        ("bytes_out", json!(2)),
        ("trace_id", json!(TRACE)),
    ] {
        assert_eq!(line[field], wanted, "{field} of {line}");
    }
    for field in ["time", "id", "listener", "subject_hash", "total_us", "identify_us", "upstream_us"] {
        assert!(!line[field].is_null(), "{field} of {line}");
    }
    let line = acme.sidecar.log.line("/elsewhere");
    assert_eq!((&line["decision"], &line["reason"], &line["status"]), (&json!("deny"), &json!("scope_missing"), &json!(403)));
    assert_eq!(line["rule"], "Tenant/acme: inbound.allow[1]");
    assert_eq!(line["id"], refused.json().unwrap()["id"], "the reply's id leads here");
    let line = acme.sidecar.log.line("/anonymous");
    assert!(line.get("tenant").is_none() && line["reason"] == "token_missing", "{line}");

    let text = acme.sidecar.log.text();
    assert_eq!(text.lines().count(), 3, "{text}");
    for secret in ["hunter", "api_key", "alice", "Bearer", &signature] {
        assert!(!text.contains(secret), "{secret} stands in {text}");
    }
}

/// The metrics of a sidecar after some traffic of every kind: each series with its value, but for times and memory.
fn metrics(names: [&str; 3]) -> (BTreeSet<String>, String) {
    let [tenant, other, value] = names;
    let upstream = Upstream::start();
    let site = Site::new();
    let spec = format!(
        "{{ displayName: {value}, identity: [{{ issuer: sso, values: [{value}] }}], limits: [{{ name: {value}, rate: 2/h, match: {{ paths: [\"/{tenant}\"] }} }}] }}"
    );
    site.write("one.yaml", &object("Tenant", tenant, &spec));
    site.tenant(other, "");
    let workload = format!("{tenant}-api");
    site.workload(&workload, &format!("tenants: [{tenant}, {other}]"), upstream.address);
    let serve = Serve::start(&site);
    let sidecar = Sidecar::start(&site, &serve, &workload);
    let (own, foreign) = (site.token(value), site.token(other));
    for (target, token) in [(tenant, &own), (tenant, &own), (tenant, &own), (other, &foreign), (tenant, &site.token("nobody"))] {
        get(sidecar.address(), &format!("/{target}")).bearer(token).send();
    }
    sidecar.log.line_where(&format!("/{tenant}"), |line| line["reason"] == "tenant_unknown" || line["reason"] == "tenant_mismatch");
    let text = sidecar.admin.get("/metrics").unwrap().text();
    let measured =
        |line: &&str| !line.contains("_seconds_sum") && !line.contains("_seconds_bucket") && !line.starts_with("process_resident");
    (text.lines().filter(measured).map(str::to_owned).collect(), text)
}

#[test]
fn metrics_of_two_runs_that_differ_in_names_are_the_same() {
    let names = ["acme", "globex", "org-of-acme"];
    let (one, text) = metrics(names);
    let (two, _) = metrics(["initech", "umbrella", "a-customer-with-a-long-name"]);
    assert_eq!(one, two);
    assert!(names.iter().all(|name| !text.contains(name)), "{text}");
    assert!(text.contains(r#"ringfence_inbound_requests_total{decision="deny",reason="rate_limited"} 1"#), "{text}");
}

#[test]
fn a_trace_is_carried_on_and_baggage_is_not() {
    let acme = Acme::start();
    let sent = acme.get("/t").header("traceparent", TRACEPARENT).header("tracestate", "a=b").header("baggage", "tenant=acme");
    assert_eq!(sent.send().status, 200);
    let seen = acme.upstream.seen("/t").headers;
    assert_eq!(
        (&seen["traceparent"], &seen["tracestate"], seen.get("baggage")),
        (&TRACEPARENT.parse().unwrap(), &"a=b".parse().unwrap(), None)
    );
}

#[test]
fn spans_reach_the_collector_and_name_nobody() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let serve = Serve::start(&site);
    let collector = Collector::start();
    let tracing = json!({ "tracing": { "otlpEndpoint": format!("http://{}", collector.address) } });
    let mut sidecar = Sidecar::start_with(&site, &serve, "acme-api", &tracing);
    let reply = get(sidecar.address(), "/secret-path").bearer(&site.token("acme")).header("traceparent", TRACEPARENT).send();
    assert_eq!(reply.status, 200);
    let passed = upstream.seen("/secret-path").headers["traceparent"].to_str().unwrap().to_owned();
    sidecar.log.line("/secret-path");
    // What is queued is sent at the end, so that nobody has to wait for the interval.
    assert!(sidecar.process.terminate().success());
    let span = collector.span();
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), "00f067aa0ba902b7".to_owned()));
    assert_eq!(passed, format!("00-{TRACE}-{}-01", hex(&span.span_id)), "the workload's parent is this span");
    let text = format!("{span:?}");
    for name in ["acme", "alice", "secret-path"] {
        assert!(!text.contains(name), "{name} stands in {text}");
    }
}

#[test]
fn the_admin_endpoint_only_shows_and_shows_no_secret() {
    let acme = Acme::start();
    for path in ["/readyz", "/healthz", "/metrics", "/config"] {
        assert_eq!(acme.sidecar.admin.get(path).unwrap().status, 200, "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let refused = acme.sidecar.admin.request(method, path).unwrap();
            assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    assert_eq!(acme.sidecar.admin.get("/quit").unwrap().status, 404);
    let config = acme.sidecar.admin.config();
    assert_eq!(config["issuers"][0]["keys"], 1, "keys are counted");
    let key = acme.site.key.jwk();
    assert!(!config.to_string().contains(key["x"].as_str().unwrap()), "and not shown");
    let versions = config["versions"].as_array().unwrap();
    assert_eq!(
        versions.iter().map(|version| version["kind"].as_str().unwrap()).collect::<BTreeSet<_>>(),
        BTreeSet::from(["Issuer", "Platform", "Tenant", "Workload"])
    );
}
