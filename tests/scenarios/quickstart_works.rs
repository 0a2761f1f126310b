//! What the README shows: `init`, `up`, `token`, and 200, 401, 403, 429.

use std::{fs, net::SocketAddr, path::Path};

use ringfence_tests::{
    Site, Up, Upstream,
    control_plane::status,
    http::{Reply, get},
    ringfence,
};

/// The quickstart with ports of the system's choice in place of its own.
fn quickstart() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let output = ringfence(["init".as_ref(), dir.path().join("demo").as_os_str()]);
    assert!(output.status.success(), "{output:?}");
    let file = dir.path().join("demo/workloads.yaml");
    let mut text = fs::read_to_string(&file).unwrap();
    let demos: Vec<std::net::TcpListener> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    for (i, demo) in demos.iter().enumerate() {
        text = text.replace(&format!("listen: 127.0.0.1:1808{i}"), "listen: 127.0.0.1:0");
        text = text.replace(&format!("upstream: 127.0.0.1:1900{i}"), &format!("upstream: {}", demo.local_addr().unwrap()));
    }
    fs::write(
        &file,
        text.replace("listen: 127.0.0.1:15001", "listen: 127.0.0.1:0").replace("listen: 127.0.0.1:15053", "listen: 127.0.0.1:0"),
    )
    .unwrap();
    dir
}

fn token(dir: &Path, tenant: &str) -> String {
    let output = ringfence(["token".as_ref(), "--dir".as_ref(), dir.as_os_str(), "--tenant".as_ref(), tenant.as_ref()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"", "the token and nothing else");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Of a line such as `acme-api  inbound http://127.0.0.1:18080 -> 127.0.0.1:19000  tenant acme`.
fn endpoint(up: &mut Up, workload: &str) -> SocketAddr {
    let line = up.process.line(|line| line.starts_with(workload) && line.contains(" inbound "));
    line.split_whitespace().find_map(|word| word.strip_prefix("http://")?.parse().ok()).expect(&line)
}

fn assert_refusal(reply: &Reply, status: u16, reason: &str) {
    assert_eq!(reply.verdict(), (status, reason.into()), "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert!(reply.header("proxy-status").starts_with("ringfence; error=") && reply.header("proxy-status").contains(reason), "{reply:?}");
    let body = reply.json().unwrap();
    assert_eq!((&body["status"], body["id"].as_str().unwrap().len()), (&status.into(), 32));
    assert!(!body["title"].as_str().unwrap().is_empty());
}

#[test]
fn init_up_token_and_the_four_answers() {
    let dir = quickstart();
    let dir = dir.path().join("demo");
    let mut up = Up::start(&dir);
    let (acme, shared) = (endpoint(&mut up, "acme-api"), endpoint(&mut up, "shared-api"));
    let (of_acme, of_globex) = (token(&dir, "acme"), token(&dir, "globex"));
    let pasted = up.process.line(|line| line.contains("curl -i -H"));
    assert!(pasted.contains(&format!("http://{acme}/tenants/acme/hello")), "{pasted}");

    let allowed = get(acme, "/tenants/acme/hello").bearer(&of_acme).send();
    assert_eq!(allowed.status, 200, "{allowed:?}");
    let seen = allowed.json().unwrap();
    assert_eq!((&seen["method"], &seen["path"]), (&"GET".into(), &"/tenants/acme/hello".into()));
    assert_eq!(seen["headers"]["x-ringfence-tenant"], "acme");
    assert_eq!(seen["headers"]["x-ringfence-subject"], "dev-user");
    assert!(seen["headers"].get("authorization").is_none(), "the workload does not get the token: {seen}");

    let missing = get(acme, "/hello").send();
    assert_refusal(&missing, 401, "token_missing");
    assert_eq!(missing.header("www-authenticate"), r#"Bearer realm="ringfence""#);
    let malformed = get(acme, "/hello").bearer("x").send();
    assert_refusal(&malformed, 401, "token_malformed");
    assert!(malformed.header("www-authenticate").contains(r#"error="invalid_token""#), "{malformed:?}");

    assert_refusal(&get(acme, "/hello").bearer(&of_globex).send(), 403, "tenant_mismatch");
    assert_refusal(&get(acme, "/tenants/globex/hello").bearer(&of_acme).send(), 403, "path_not_listed");
    let unscoped = get(acme, "/tenants/acme/hello").method("DELETE").bearer(&of_acme).send();
    assert_refusal(&unscoped, 403, "scope_missing");
    assert!(unscoped.header("www-authenticate").contains("insufficient_scope"), "{unscoped:?}");

    // Ten at once and five a second: a hundred in a row cannot all pass.
    let limited = (0..100).map(|_| get(acme, "/hello").bearer(&of_acme).send()).find(|reply| reply.status != 200).unwrap();
    assert_refusal(&limited, 429, "rate_limited");
    assert_eq!(limited.header("retry-after"), "1");
    assert_eq!(limited.header("ratelimit"), r#""all";r=0;t=1"#);
    assert_eq!(limited.header("ratelimit-policy"), r#""all";q=10;w=2"#);

    for (token, tenant) in [(&of_acme, "acme"), (&of_globex, "globex")] {
        let reply = get(shared, "/hello").bearer(token).send();
        assert_eq!((reply.status, &reply.json().unwrap()["headers"]["x-ringfence-tenant"]), (200, &tenant.into()), "{reply:?}");
    }
    let status = status(&dir);
    let sidecars = status["sidecars"].as_array().unwrap();
    assert!(sidecars.len() == 3 && sidecars.iter().all(|sidecar| sidecar["inSync"] == true), "{status}");
    assert!(up.process.terminate().success());
    assert!(ringfence(["status".as_ref(), dir.as_os_str()]).status.code() == Some(1), "nobody serves the directory any more");
}

#[test]
fn a_second_up_is_ready_though_nothing_has_changed() {
    let dir = quickstart();
    let dir = dir.path().join("demo");
    drop(Up::start(&dir));
    Up::start(&dir);
}

#[test]
fn each_listener_is_printed_with_its_own_address() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let listener = format!("{{ listen: 127.0.0.1:0, upstream: {} }}", upstream.address);
    site.workload_at("acme-api", "tenant: acme", &format!("[{listener}, {listener}]"));
    let up = Up::start(&site.dir());
    let printed: Vec<SocketAddr> =
        up.process.lines().iter().filter_map(|line| line.split("http://").nth(1)?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(printed, up.admin("acme-api").addresses());
    assert_ne!(printed[0], printed[1]);
}

#[test]
fn init_leaves_a_directory_alone_that_holds_anything() {
    let site = Site::new();
    let output = ringfence(["init".as_ref(), site.dir().as_os_str()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"), "{output:?}");
    assert!(!site.path("platform.yaml").exists());
}
