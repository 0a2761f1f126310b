use std::fs;

use super::connect::told;
use crate::quickstart;

const ZONES: &str = r#"
apiVersion: ringfence.dev/v1alpha1
kind: Platform
metadata: { name: platform }
spec: { dns: { zones: [baseline] } }
---
apiVersion: ringfence.dev/v1alpha1
kind: PolicyZone
metadata: { name: baseline }
spec:
  inline: |
    bad.example CNAME .
    tcp.example CNAME rpz-tcp-only.
    good.example CNAME rpz-passthru.
    32.9.2.0.192.rpz-client-ip CNAME rpz-drop.
---
apiVersion: ringfence.dev/v1alpha1
kind: PolicyZone
metadata: { name: early }
spec: { inline: "early.example CNAME .", override: disabled }
---
apiVersion: ringfence.dev/v1alpha1
kind: PolicyZone
metadata: { name: own }
spec:
  inline: |
    *.ads.example CNAME *.
    www.example CNAME garden.example.
    24.0.100.51.198.rpz-ip A 192.0.2.1
---
apiVersion: ringfence.dev/v1alpha1
kind: Workload
metadata: { name: shared }
spec: { tenants: ["*"], dns: { listen: 127.0.0.1:15054, zones: [early, own] } }
---
apiVersion: ringfence.dev/v1alpha1
kind: Workload
metadata: { name: counted }
spec:
  tenants: ["*"]
  dns:
    listen: 127.0.0.1:15055
    limits:
      - { name: queries, rate: 100/s, burst: 300 }
      - { name: labels, count: entropy, key: domain, rate: 16384/h }
      - { name: fresh, count: names, rate: 600/h, mode: shadow }
      - { name: txt, count: txt, rate: 65536/h }
"#;

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    quickstart::write(dir.path()).unwrap();
    fs::remove_file(dir.path().join("platform.yaml")).unwrap();
    fs::write(dir.path().join("zones.yaml"), ZONES).unwrap();
    dir
}

#[test]
fn a_query_is_explained_by_the_rule_that_decides() {
    let dir = directory();
    for (words, wanted) in [
        ("bad.example A", "deny name_blocked (PolicyZone/baseline: QNAME bad.example: NXDOMAIN)"),
        ("BAD.example. TYPE65", "deny name_blocked (PolicyZone/baseline: QNAME bad.example: NXDOMAIN)"),
        ("other.example A --client 192.0.2.9", "deny name_blocked (PolicyZone/baseline: CLIENT-IP 32.9.2.0.192.rpz-client-ip: DROP)"),
        ("tcp.example A", "allow (PolicyZone/baseline: QNAME tcp.example: TCP-Only)"),
        ("tcp.example A --tcp", "allow (PolicyZone/baseline: QNAME tcp.example: PASSTHRU)"),
        ("good.example a --address 198.51.100.7", "allow (PolicyZone/baseline: QNAME good.example: PASSTHRU)"),
        ("early.example A", "allow"),
        ("a.ads.example A", "deny name_blocked (PolicyZone/own: QNAME *.ads.example: NODATA)"),
        ("www.example A", "deny name_rewritten (PolicyZone/own: QNAME www.example: Local-Data)"),
        ("x.example A --address 198.51.100.7", "deny name_rewritten (PolicyZone/own: IP 24.0.100.51.198.rpz-ip: Local-Data)"),
        ("x.example A --cname y.example bad.example", "deny name_blocked (PolicyZone/baseline: QNAME bad.example: NXDOMAIN)"),
        ("x.example A --cname y.example x.example", "deny upstream_protocol"),
        ("x.example A --cname y.example --address 203.0.113.1", "allow"),
    ] {
        let words: Vec<&str> = ["shared", "dns"].into_iter().chain(words.split(' ')).collect();
        let told = told(dir.path(), &words).unwrap();
        assert_eq!(told.lines().last().unwrap().strip_prefix("decision   "), Some(wanted), "{words:?}\n{told}");
    }
}

#[test]
fn the_walk_over_the_aliases_is_shown() {
    let dir = directory();
    assert_eq!(
        told(dir.path(), &["shared", "dns", "early.example", "AAAA", "--cname", "y.example", "b.ads.example"]).unwrap(),
        "listener   asked of 127.0.0.1:15054 by 127.0.0.1
zones      baseline (the platform's), then early (disabled), own (the workload's own, for no query tells whose it is)
query      upstreams are asked for early.example.
alias      early.example. leads to y.example.
alias      y.example. leads to b.ads.example.: PolicyZone/own: QNAME *.ads.example: NODATA; answered: NOERROR with 2 records; nobody is asked for that
shadow     would have acted: PolicyZone/early: QNAME early.example: NXDOMAIN
decision   deny name_blocked (PolicyZone/own: QNAME *.ads.example: NODATA)
"
    );
    let error = told(dir.path(), &["globex-api", "dns", "a.example", "A"]).unwrap_err();
    assert_eq!(error.to_string(), "Workload/globex-api has no dns: its sidecar answers no queries");
}

#[test]
fn a_zone_in_shadow_mode_tells_what_enforcing_it_would_do() {
    let dir = directory();
    for (r#override, listed, action) in [
        ("given", "m (shadow)", "NXDOMAIN"),
        ("passthru", "m (passthru, shadow)", "PASSTHRU"),
        ("tcp-only", "m (tcp-only, shadow)", "TCP-Only"),
        ("nodata", "m (nodata, shadow)", "NODATA"),
        ("drop", "m (drop, shadow)", "DROP"),
        ("cname:w.example", "m (cname:w.example., shadow)", "Local-Data"),
        ("disabled", "m (disabled, shadow)", "NXDOMAIN"),
    ] {
        let objects = format!(
            "apiVersion: ringfence.dev/v1alpha1\nkind: PolicyZone\nmetadata: {{ name: m }}\nspec: {{ inline: \"*.m.example CNAME .\", override: \"{override}\" }}\n\
             ---\napiVersion: ringfence.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: trial }}\nspec: {{ identity: [{{ issuer: dev }}], dns: {{ zones: [m], mode: shadow }} }}\n\
             ---\napiVersion: ringfence.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: trial-job }}\nspec: {{ tenant: trial, dns: {{ listen: 127.0.0.1:15056 }} }}\n"
        );
        fs::write(dir.path().join("trial.yaml"), objects).unwrap();
        let told = told(dir.path(), &["trial-job", "dns", "a.m.example", "A"]).unwrap();
        let zones = format!("zones      baseline (the platform's), then {listed} (tenant trial's)\n");
        let end = format!("shadow     would have acted: PolicyZone/m: QNAME *.m.example: {action}\ndecision   allow\n");
        assert!(told.contains(&zones) && told.ends_with(&end), "{override}\n{told}");
    }
}

#[test]
fn what_a_query_costs_is_told() {
    let dir = directory();
    let labels = "nbswy3dpeb3w64tmmqqgs43vmvzsa2lomzxxe3lboruw63ramfzsaylomnwgk.t.example";
    assert_eq!(
        told(dir.path(), &["counted", "dns", labels, "TXT"]).unwrap(),
        "listener   asked of 127.0.0.1:15055 by 127.0.0.1
budget     a query: Workload/counted: dns.limits[queries] (100/s, burst 300, by tenant, enforced)
zones      baseline (the platform's)
query      upstreams are asked for nbswy3dpeb3w64tmmqqgs43vmvzsa2lomzxxe3lboruw63ramfzsaylomnwgk.t.example.
budget     43 octets, if the name was not asked for lately: Workload/counted: dns.limits[labels] (16384/h, burst 16384, by domain, enforced)
budget     a name, if it was not asked for lately: Workload/counted: dns.limits[fresh] (600/h, burst 600, by tenant, shadow)
budget     what free-form octets the answer has: Workload/counted: dns.limits[txt] (65536/h, burst 65536, by tenant, enforced)
response   no rule; addresses are judged once they are known: ask with --address, and with --cname for aliases
decision   allow
"
    );
    let told = told(dir.path(), &["counted", "dns", "bad.example", "A"]).unwrap();
    assert_eq!(told.matches("budget").count(), 1, "nobody is asked for what a zone refuses: {told}");
}
