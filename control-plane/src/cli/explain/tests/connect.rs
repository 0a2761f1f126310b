use std::{fs, path::Path};

use clap::Parser;

use super::super::*;
use crate::quickstart;

const OBJECTS: &str = r#"
apiVersion: ringfence.dev/v1alpha1
kind: Platform
metadata: { name: platform }
spec:
  egress: { deny: { cidrs: [198.51.99.0/24] } }
---
apiVersion: ringfence.dev/v1alpha1
kind: Tenant
metadata: { name: initech }
spec:
  identity: [{ issuer: dev }]
  peers: [hooli]
  egress:
    connectionRate: 7/m
    allow:
      - { name: stripe, hosts: ["*.stripe.com"] }
      - { name: db, cidrs: [10.20.0.0/16], ports: [5432], protocol: tcp }
      - { name: own, cidrs: [127.0.0.9/32], ports: [15001], protocol: tcp }
      - { name: billing, hosts: [billing.svc], cidrs: [10.30.0.0/16], ports: [18443], protocol: http, peer: { workload: billing } }
      - { name: partner, hosts: [partner.svc], ports: [18443], protocol: http, peer: { workload: api, tenant: hooli } }
      - { name: vault, hosts: [vault.svc], cidrs: [10.30.0.0/16], protocol: http, requests: [{ methods: [GET], paths: ["/t/{tenant}/**"] }] }
---
apiVersion: ringfence.dev/v1alpha1
kind: Tenant
metadata: { name: hooli }
spec:
  identity: [{ issuer: dev }]
  egress: { mode: shadow }
---
apiVersion: ringfence.dev/v1alpha1
kind: Workload
metadata: { name: job }
spec:
  tenant: initech
  inbound: [{ listen: 127.0.0.9:18443, upstream: 127.0.0.1:19000, public: [/open], mtls: true }]
  egress: { listen: 127.0.0.9:15001 }
---
apiVersion: ringfence.dev/v1alpha1
kind: Workload
metadata: { name: any }
spec:
  tenants: ["*"]
  egress: { listen: 127.0.0.1:15002, capture: redirect }
  dns: { listen: 127.0.0.1:15054 }
"#;

#[derive(Debug, Parser)]
struct Explain {
    #[command(flatten)]
    args: ExplainArgs,
}

pub(super) fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    quickstart::write(dir.path()).unwrap();
    fs::remove_file(dir.path().join("platform.yaml")).unwrap();
    fs::write(dir.path().join("egress.yaml"), OBJECTS).unwrap();
    dir
}

/// What is printed for `ringfence explain DIR --workload …`.
pub(super) fn told(dir: &Path, words: &[&str]) -> Result<String, ExplainError> {
    let args = ["explain", dir.to_str().unwrap(), "--workload"].into_iter().chain(words.iter().copied());
    let mut out = Vec::new();
    let allowed = run(&Explain::try_parse_from(args).unwrap().args, &mut out)?;
    let text = String::from_utf8(out).unwrap();
    assert_eq!(allowed, text.contains("decision   allow") || text.contains("\"decision\": \"allow\""));
    Ok(text)
}

#[test]
fn a_connection_is_explained_by_the_rule_that_decides() {
    let dir = directory();
    let stripe = "Tenant/initech: egress.allow[stripe]";
    for (words, wanted) in [
        (&["job", "connect", "api.stripe.com:443"][..], "allow".to_owned()),
        (&["job", "connect", "api.stripe.com:443", "--address", "8.8.8.8"], "allow -> 8.8.8.8:443".into()),
        (&["job", "connect", "api.stripe.com:443", "--address", "10.0.0.1", "8.8.8.8"], "allow -> 8.8.8.8:443".into()),
        (&["job", "connect", "api.stripe.com:443", "--address", "127.0.0.1"], "deny 403 egress_address_forbidden".into()),
        (
            &["job", "connect", "api.stripe.com:443", "--address", "198.51.99.1"],
            "deny 403 egress_address_forbidden (Platform/platform: egress.deny.cidrs[0])".into(),
        ),
        (&["job", "connect", "stripe.com:443"], "deny 403 egress_host_not_listed (Tenant/initech: egress.allow)".into()),
        (&["job", "connect", "api.stripe.com:8443"], format!("deny 403 egress_port_not_listed ({stripe})")),
        (&["job", "connect", "api.stripe.com:443", "--protocol", "tcp"], format!("deny 403 egress_protocol_not_allowed ({stripe})")),
        (&["job", "connect", "api.stripe.com:443", "--protocol", "http"], format!("deny 403 egress_protocol_not_allowed ({stripe})")),
        (&["job", "connect", "10.20.0.1:5432", "--protocol", "tcp"], "allow -> 10.20.0.1:5432".into()),
        (&["job", "connect", "127.0.0.9:15001", "--protocol", "tcp"], "deny 403 egress_address_forbidden".into()),
        (
            &["job", "connect", "vault.svc:80", "--request", "GET /t/initech/a?b=c", "--address", "10.30.0.1"],
            "allow -> 10.30.0.1:80".into(),
        ),
        (
            &["job", "connect", "vault.svc:80", "--request", "GET /t/acme/a"],
            "deny 403 egress_request_denied (Tenant/initech: egress.allow[vault])".into(),
        ),
        (&["job", "connect", "vault.svc:80", "--request", "GET /t/../a"], "deny 400 request_malformed".into()),
        (&["job", "connect", "billing.svc:18443", "--request", "GET /", "--address", "10.30.0.1"], "allow -> 10.30.0.1:18443".into()),
        (
            &["job", "connect", "billing.svc:18443", "--protocol", "tcp"],
            "deny 403 egress_protocol_not_allowed (Tenant/initech: egress.allow[billing])".into(),
        ),
        // initech lists hooli, which does not list it.
        (&["job", "connect", "partner.svc:18443", "--request", "GET /"], "deny 403 peer_not_allowed".into()),
        (&["any", "connect", "api.stripe.com:443", "--tenant", "initech"], "allow".into()),
        (
            &["any", "connect", "api.other.example:443", "--tenant", "acme"],
            "deny 403 egress_host_not_listed (Tenant/acme: egress.allow)".into(),
        ),
        (&["any", "connect", "api.stripe.com:443", "--tenant", "hooli", "--address", "8.8.8.8"], "allow -> 8.8.8.8:443".into()),
        (
            &["any", "connect", "api.stripe.com:443", "--tenant", "hooli", "--address", "127.0.0.1"],
            "deny 403 egress_address_forbidden".into(),
        ),
    ] {
        let told = told(dir.path(), words).unwrap();
        assert_eq!(told.lines().last().unwrap().strip_prefix("decision   "), Some(&*wanted), "{words:?}\n{told}");
    }
}

#[test]
fn every_stage_says_what_it_found() {
    let dir = directory();
    assert_eq!(
        told(dir.path(), &["job", "connect", "api.stripe.com:443", "--address", "8.8.8.8", "10.0.0.1", "2606:4700::1"]).unwrap(),
        "capture    asked of the explicit proxy at 127.0.0.9:15001
limit      counted for tenant initech: at most 1024 at once and 7/m new ones; its egress is enforced
decide     listed by Tenant/initech: egress.allow[stripe]
address    8.8.8.8 allowed by Tenant/initech: egress.allow[stripe]
address    egress_address_forbidden: 10.0.0.1:443 is private
address    2606:4700::1 allowed by Tenant/initech: egress.allow[stripe]
connect    dials 8.8.8.8:443, then [2606:4700::1]:443
decision   allow -> 8.8.8.8:443
"
    );
    assert_eq!(
        told(dir.path(), &["job", "connect", "billing.svc:18443", "--request", "GET /"]).unwrap().lines().nth(3).unwrap(),
        "peer       over mTLS, if Workload/billing of Tenant/initech is there"
    );
    assert_eq!(
        told(dir.path(), &["any", "connect", "api.stripe.com:443", "--tenant", "hooli"]).unwrap(),
        "capture    redirected to 127.0.0.1:15002, or asked of the proxy there
limit      counted for tenant hooli: at most 1024 at once and 200/s new ones; its egress is in shadow mode
decide     in shadow mode: would be refused, egress_host_not_listed: no rule names api.stripe.com (Tenant/hooli: egress.allow)
address    what api.stripe.com leads to is judged once it is known: ask with --address
decision   allow
"
    );
    let json = told(dir.path(), &["job", "-o", "json", "connect", "stripe.com:443"]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let last = &json["steps"][2];
    assert_eq!((&json["reason"], &json["status"]), (&"egress_host_not_listed".into(), &403.into()));
    assert_eq!((&last["stage"], &last["outcome"]), (&"decide".into(), &"no rule names stripe.com".into()));
}

#[test]
fn what_cannot_be_asked_is_said() {
    let dir = directory();
    for (words, wanted) in [
        (&["globex-api", "connect", "a.example:443"][..], "Workload/globex-api has no egress: nothing leaves through its sidecar"),
        (&["any", "connect", "a.example:443"], "Workload/any is shared: name one of its tenants, --tenant NAME"),
        (&["any", "connect", "a.example:443", "--tenant", "Nobody"], "Workload/any does not serve a tenant named \"Nobody\""),
        (&["job", "connect", "a.example:443", "--tenant", "acme"], "Workload/job does not serve a tenant named \"acme\""),
        (
            &["job", "connect", "a.example:443", "--protocol", "tls", "--request", "GET /"],
            "--request goes with --protocol http alone: of other connections no request is seen",
        ),
        (&["job", "connect", "8.8.8.8:443", "--address", "8.8.4.4"], "--address goes with a name: what is asked for is an address already"),
    ] {
        assert_eq!(told(dir.path(), words).unwrap_err().to_string(), wanted, "{words:?}");
    }
    for destination in ["a.example", "a.example:0", "127.1:443", "https://a.example:443", "bücher.example:443"] {
        assert!(Explain::try_parse_from(["explain", "dir", "--workload", "job", "connect", destination]).is_err(), "{destination}");
    }
}
