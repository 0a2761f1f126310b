//! Shared workloads: the tenant comes from the context or not at all.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ringfence_policy::{egress::EgressRule, tenant::ServedTenants};

use super::sidecar::{Sidecar, http};
use crate::{
    context::Contexts,
    hop::peers::{Origin, run},
};

fn token(contexts: &Contexts, tenant: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    contexts.mint(&tenant.parse().unwrap(), now).unwrap().to_str().unwrap().to_owned()
}

/// `acme` may go to a.test, `globex` to b.test; `other` has a policy and is not served.
async fn shared(port: u16) -> Sidecar {
    let tenants: BTreeSet<_> = ["acme", "globex"].map(|name| name.parse().unwrap()).into();
    let rules: Vec<(&str, Vec<EgressRule>)> =
        vec![("acme", vec![http(&["a.test"], port)]), ("globex", vec![http(&["b.test"], port)]), ("other", vec![http(&["a.test"], port)])];
    Sidecar::serving(ServedTenants::Some(tenants), rules).await
}

#[test]
fn only_a_context_says_whose_a_request_is() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let sidecar = shared(port).await;
        let [acme, globex, other] = ["acme", "globex", "other"].map(|tenant| token(&sidecar.contexts, tenant));
        let forged = token(&Contexts::new().unwrap(), "acme");
        let field = |token: &str| format!("X-Ringfence-Context: {token}\r\n");
        let bearer = |token: &str| format!("Proxy-Authorization: Bearer {token}\r\n");
        let basic =
            |user: &str, token: &str| format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{token}")));
        for (fields, expected) in [
            (field(&acme), "200"),
            (bearer(&acme), "200"),
            (basic("context", &acme), "200"),
            (field(&acme) + &basic("context", &acme), "200"),
            (String::new(), "407 egress_context_missing"),
            (field(&globex), "403 egress_host_not_listed"),
            (field(&other), "403 egress_context_invalid"),
            (field(&forged), "403 egress_context_invalid"),
            (field("acme"), "403 egress_context_invalid"),
            (basic("acme", &acme), "403 egress_context_invalid"),
            (field(&acme) + &field(&globex), "403 egress_context_invalid"),
            (field(&acme) + &bearer(&globex), "403 egress_context_invalid"),
            ("Proxy-Authorization: Digest x\r\n".to_owned(), "403 egress_context_invalid"),
            (format!("X-Ringfence-Tenant: {acme}\r\nX_Ringfence_Context: {acme}\r\n"), "407 egress_context_missing"),
        ] {
            let mut client = sidecar.client().await;
            client.send(format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n{fields}\r\n")).await;
            let (status, reason) = expected.split_once(' ').unwrap_or((expected, "ok"));
            if status == "200" {
                let mut upstream = origin.accept().await;
                let head = upstream.head().await;
                assert!(!head.contains("ringfence-context") && !head.contains("proxy-auth"), "{head}");
                upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
            let head = client.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{fields}: {head}");
            assert_eq!(head.contains("\r\nproxy-authenticate: basic realm=\"ringfence\"\r\n"), status == "407", "{head}");
            client.until(reason).await;
        }
    });
}

#[test]
fn tenants_on_one_connection_share_nothing() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let mut sidecar = shared(port).await;
        sidecar.push(vec![("acme", vec![http(&["a.test"], port)]), ("globex", vec![http(&["a.test"], port)])]);
        let mut client = sidecar.client().await;
        let mut upstreams = Vec::new();
        for tenant in ["acme", "globex"] {
            let context = token(&sidecar.contexts, tenant);
            client
                .send(format!(
                    "GET http://a.test:{port}/{tenant} HTTP/1.1\r\nHost: a.test:{port}\r\nX-Ringfence-Context: {context}\r\n\r\n"
                ))
                .await;
            let mut upstream = origin.accept().await;
            assert!(upstream.head().await.starts_with(&format!("get /{tenant} ")));
            upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            client.until("ok").await;
            upstreams.push(upstream);
        }
    });
}

#[test]
fn captured_requests_and_tunnels_need_a_context_too() {
    run(async {
        let (origin, address) = Origin::bind().await;
        let port = address.port();
        let sidecar = shared(port).await;
        let context = token(&sidecar.contexts, "acme");
        let mut captured = sidecar.captured(SocketAddr::new([192, 0, 2, 7].into(), port)).await;
        captured.send(format!("GET / HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n")).await;
        assert!(captured.head().await.starts_with("http/1.1 403 "), "nobody asked a proxy for anything");
        assert!(captured.rest().await.contains("egress_context_missing"));
        let mut captured = sidecar.captured(SocketAddr::new([192, 0, 2, 7].into(), port)).await;
        captured.send(format!("GET / HTTP/1.1\r\nHost: a.test:{port}\r\nX-Ringfence-Context: {context}\r\n\r\n")).await;
        assert!(!origin.accept().await.head().await.contains("ringfence-context"));

        let mut client = sidecar.client().await;
        client.send(format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 407 "));
        client.until("}").await;
        client
            .send(format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\nProxy-Authorization: Bearer {context}\r\n\r\n"))
            .await;
        assert!(client.head().await.starts_with("http/1.1 200 "));
        // What the tunnel carries is the same tenant's, whatever it says.
        let other = token(&sidecar.contexts, "globex");
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test:{port}\r\nX-Ringfence-Context: {other}\r\n\r\n")).await;
        assert!(!origin.accept().await.head().await.contains("ringfence-context"));
    });
}
