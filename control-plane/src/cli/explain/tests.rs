mod connect;
mod dns;

use std::fs;

use ringfence_xds::policy::Reason;

use super::{http::HttpArgs, *};
use crate::{cli::token, quickstart};

fn explain_in(dir: &std::path::Path, workload: &str, method: &str, path: &str, tenant: Option<(&str, Option<&str>)>) -> Explanation {
    let token_file = tenant.map(|(tenant, scope)| {
        let file = dir.join("token");
        fs::write(&file, token::for_test(dir, tenant, scope)).unwrap();
        file
    });
    let http = HttpArgs { method: method.into(), path: path.into(), token_file, listen: None };
    let args = ExplainArgs { dir: dir.into(), workload: workload.into(), output: Output::Json, what: What::Http(http) };
    let mut out = Vec::new();
    run(&args, &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Explanation {
        steps: Vec::new(),
        decision: if json["decision"] == "allow" { "allow" } else { "deny" },
        status: json["status"].as_u64().map(|status| status as u16),
        reason: Reason::ALL.iter().map(|reason| reason.as_str()).find(|reason| json["reason"] == *reason),
        rule: text(&json["rule"]),
        upstream: text(&json["upstream"]),
    }
}

#[test]
fn the_quickstart_is_explained_by_the_rule_that_decides() {
    let dir = tempfile::tempdir().unwrap();
    quickstart::write(dir.path()).unwrap();
    let admin = Some(("acme", Some("admin")));
    for (workload, method, path, token, wanted) in [
        ("acme-api", "GET", "/healthz", None, ("allow", None, None)),
        ("acme-api", "GET", "/hello", None, ("deny", Some("token_missing"), None)),
        ("acme-api", "GET", "/hello?x=1", Some(("acme", None)), ("allow", None, None)),
        (
            "acme-api",
            "GET",
            "/tenants/globex/x",
            Some(("acme", None)),
            ("deny", Some("path_not_listed"), Some("Tenant/acme: inbound.allow")),
        ),
        ("acme-api", "GET", "/tenants/../hello", Some(("acme", None)), ("deny", Some("request_malformed"), None)),
        (
            "acme-api",
            "DELETE",
            "/tenants/acme/x",
            Some(("acme", None)),
            ("deny", Some("scope_missing"), Some("Tenant/acme: inbound.allow[2]")),
        ),
        ("acme-api", "DELETE", "/tenants/acme/x", admin, ("allow", None, None)),
        ("globex-api", "GET", "/hello", Some(("acme", None)), ("deny", Some("tenant_mismatch"), None)),
        ("shared-api", "GET", "/hello", Some(("globex", None)), ("allow", None, None)),
        ("shared-api", "GET", "/hello", Some(("initech", None)), ("deny", Some("tenant_unknown"), None)),
    ] {
        let explanation = explain_in(dir.path(), workload, method, path, token);
        let got = (explanation.decision, explanation.reason, explanation.rule.as_deref());
        assert_eq!(got, wanted, "{workload} {method} {path}");
        assert_eq!(explanation.upstream.is_some(), wanted.0 == "allow");
    }
}

#[test]
fn a_listener_for_peers_says_whom_it_takes() {
    let dir = connect::directory();
    assert_eq!(
        connect::told(dir.path(), &["job", "http", "GET", "/open"]).unwrap(),
        "request    GET /open at 127.0.0.9:18443
peer       over mTLS, from workloads of initech
public     needs no token, by /open
decision   allow -> 127.0.0.1:19000
"
    );
}

#[test]
fn what_cannot_be_explained_is_said() {
    let dir = tempfile::tempdir().unwrap();
    quickstart::write(dir.path()).unwrap();
    let explain = |workload: &str| {
        let http = HttpArgs { method: "GET".into(), path: "/".into(), token_file: None, listen: Some("127.0.0.1:1".parse().unwrap()) };
        let args = ExplainArgs { dir: dir.path().into(), workload: workload.into(), output: Output::Text, what: What::Http(http) };
        run(&args, &mut Vec::new()).unwrap_err().to_string()
    };
    assert_eq!(explain("nobody"), "there is no Workload named \"nobody\"");
    assert_eq!(explain("acme-api"), "Workload/acme-api has no such listener");
    fs::write(dir.path().join("bad.yaml"), "kind: Tenant").unwrap();
    assert!(explain("acme-api").contains("bad.yaml:1:1: "), "{}", explain("acme-api"));
}
