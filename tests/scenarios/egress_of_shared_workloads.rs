//! What leaves a workload of several tenants leaves on behalf of the one whose request it serves, as the context of that request proves.

use base64::{Engine, prelude::BASE64_STANDARD};
use ringfence_tests::{Egress, Sidecar, Site, Upstream, http::get};
use serde_json::json;

struct Shared {
    egress: Egress,
    /// The application.
    upstream: Upstream,
    /// What it asks for outside.
    outside: Upstream,
}

impl Shared {
    fn start() -> Self {
        let (upstream, outside) = (Upstream::start(), Upstream::start());
        let site = Site::new();
        for tenant in ["acme", "globex"] {
            let rule = format!("{{ name: own, hosts: [{tenant}.test], ports: [{}], protocol: tcp }}", outside.address.port());
            site.tenant(tenant, &format!("egress: {{ allow: [{rule}] }}"));
        }
        let more =
            format!("tenants: [acme, globex], inbound: [{{ listen: 127.0.0.1:0, upstream: {}, public: [/public/**] }}]", upstream.address);
        let egress = Egress::of(site, &more);
        egress.dns.set("acme.test", &["127.0.0.1"]);
        egress.dns.set("globex.test", &["127.0.0.1"]);
        Self { egress, upstream, outside }
    }

    /// The context that the application gets with a request of this tenant.
    #[track_caller]
    fn context(&self, tenant: &str, target: &str) -> String {
        let token = self.egress.site.token(tenant);
        let inbound = self.egress.sidecar.admin.listener("inbound");
        // Whatever a client sends in its place.
        let forged = "AQAAAAAAAAAA";
        assert_eq!(get(inbound, target).bearer(&token).header("x-ringfence-context", forged).send().status, 200);
        let seen = self.upstream.seen(target);
        let contexts: Vec<_> = seen.headers.get_all("x-ringfence-context").iter().collect();
        assert!(contexts.len() == 1 && contexts[0] != forged, "{contexts:?}");
        contexts[0].to_str().unwrap().to_owned()
    }

    /// CONNECT and a plain request alike.
    #[track_caller]
    fn verdict(&self, tenant: &str, fields: &str) -> (u16, String) {
        let authority = format!("{tenant}.test:{}", self.outside.address.port());
        let connected = self.egress.connect_with(&authority, fields).err().unwrap_or((200, String::new()));
        let asked = self.egress.ask(&format!("GET http://{authority}/{tenant} HTTP/1.1\r\nHost: {authority}\r\n{fields}"));
        assert_eq!(connected, asked, "{fields}");
        connected
    }
}

#[test]
fn a_context_gives_the_policy_of_its_tenant() {
    let shared = Shared::start();
    let (acme, globex) = (shared.context("acme", "/a"), shared.context("globex", "/g"));
    let field = |context: &str| format!("x-ringfence-context: {context}\r\n");
    let basic = |context: &str| format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("context:{context}")));
    let bearer = |context: &str| format!("Proxy-Authorization: Bearer {context}\r\n");
    let refused = || (403, "egress_host_not_listed".to_owned());
    for carried in [field(&acme), basic(&acme), bearer(&acme), field(&acme) + &basic(&acme)] {
        assert_eq!(shared.verdict("acme", &carried), (200, String::new()), "{carried}");
        assert_eq!(shared.verdict("globex", &carried), refused(), "{carried}");
    }
    assert_eq!(shared.verdict("globex", &field(&globex)), (200, String::new()));
    assert_eq!(shared.verdict("acme", &field(&globex)), refused());
    let seen = format!("{:?}", shared.outside.seen("/acme"));
    assert!(!seen.contains("x-ringfence") && !seen.contains("proxy-") && !seen.contains(&acme), "nothing of it gets out: {seen}");
    shared.egress.sidecar.log.find("globex's", |line| line["tenant"] == "globex" && line["host"] == "globex.test");
    assert!(!shared.egress.sidecar.log.text().contains(&acme), "nor into the log");
}

#[test]
fn without_a_context_or_with_another_nothing_leaves() {
    let mut shared = Shared::start();
    let acme = shared.context("acme", "/a");
    let globex = shared.context("globex", "/g");
    let changed = acme.chars().rev().collect::<String>();
    let invalid = || (403, "egress_context_invalid".to_owned());
    assert_eq!(shared.verdict("acme", ""), (407, "egress_context_missing".into()));
    for fields in [
        format!("x-ringfence-context: {changed}\r\n"),
        "x-ringfence-context: \r\n".to_owned(),
        "x-ringfence-context: acme\r\n".to_owned(),
        format!("x-ringfence-context: {acme}\r\nx-ringfence-context: {globex}\r\n"),
        format!("x-ringfence-context: {acme}\r\nProxy-Authorization: Bearer {globex}\r\n"),
        "Proxy-Authorization: Basic Zm9vOmJhcg==\r\n".to_owned(),
        "Proxy-Authorization: Negotiate abc\r\n".to_owned(),
    ] {
        assert_eq!(shared.verdict("acme", &fields), invalid(), "{fields}");
    }
    // The tenant's name and token are no context.
    let token = shared.egress.site.token("acme");
    let fields = format!("x-ringfence-tenant: acme\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(shared.verdict("acme", &fields), (407, "egress_context_missing".into()));
    assert_eq!(shared.outside.connections(), 0);

    // One that another process minted.
    assert!(shared.egress.sidecar.process.terminate().success());
    let control_plane = json!({ "controlPlane": { "unix": shared.egress.serve.socket("job") } });
    shared.egress.sidecar = Sidecar::begin(&shared.egress.site, "job", &control_plane).ready();
    shared.egress.address = shared.egress.sidecar.admin.listener("outbound");
    assert_eq!(shared.verdict("acme", &format!("x-ringfence-context: {acme}\r\n")), invalid());
    assert_eq!(shared.outside.connections(), 0);
}

#[test]
fn what_needs_no_token_has_no_context() {
    let shared = Shared::start();
    let inbound = shared.egress.sidecar.admin.listener("inbound");
    assert_eq!(get(inbound, "/public/x").header("x-ringfence-context", "forged").send().status, 200);
    assert!(!format!("{:?}", shared.upstream.seen("/public/x").headers).contains("x-ringfence"));
}
