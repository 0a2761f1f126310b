//! Between workloads: a listener with `mtls` is reached by workloads of its own tenant, and by those of another only where both tenants say
//! so; the authority that vouches for them is replaced under way.

use ringfence_tests::{
    Site, Up, Upstream, eventually, free_port,
    raw::{exchange, status},
    ringfence,
    site::object,
};

struct Mesh {
    up: Up,
    site: Site,
    upstream: Upstream,
    port: u16,
}

impl Mesh {
    /// `acme-api` is for workloads; `acme-web` calls it, and so would `globex-web`.
    fn start() -> Self {
        let (upstream, port) = (Upstream::start(), free_port());
        let site = Site::new();
        site.write("platform.yaml", &object("Platform", "platform", "{ egress: { dangerousAllowPrivate: [127.0.0.0/8] } }"));
        site.tenant("acme", &calls(port, "{ workload: acme-api }", "peers: []"));
        site.tenant("globex", &calls(port, "{ tenant: acme, workload: acme-api }", "peers: [acme]"));
        site.workload_at(
            "acme-api",
            "tenant: acme",
            &format!("[{{ listen: 127.0.0.1:{port}, upstream: {}, mtls: true, public: [/public/**] }}]", upstream.address),
        );
        for tenant in ["acme", "globex"] {
            let web = format!("{tenant}-web");
            site.write(
                &format!("{web}.yaml"),
                &object("Workload", &web, &format!("{{ tenant: {tenant}, egress: {{ listen: 127.0.0.1:0 }} }}")),
            );
        }
        let up = Up::start(&site.dir());
        Self { up, site, upstream, port }
    }

    /// The reply to `GET path` of `workload`, by way of its sidecar and that of `acme-api`.
    fn call(&self, workload: &str, path: &str, token: Option<&str>) -> String {
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let proxy = self.up.admin(workload).listener("outbound");
        let host = format!("api.localhost:{}", self.port);
        exchange(proxy, format!("GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: close\r\n\r\n"))
    }
}

/// A tenant that may call `acme-api` as `peer` says.
fn calls(port: u16, peer: &str, peers: &str) -> String {
    let rule = format!("{{ name: api, hosts: [api.localhost], ports: [{port}], protocol: http, peer: {peer} }}");
    format!("{peers}, egress: {{ allow: [{rule}] }}")
}

#[test]
fn a_workload_is_called_by_its_own_tenants_and_by_others_once_both_say_so() {
    let mesh = Mesh::start();
    let (acme, globex) = (mesh.site.token("acme"), mesh.site.token("globex"));
    let reply = mesh.call("acme-web", "/mine", Some(&acme));
    assert_eq!(status(&reply), 200, "{reply}");
    assert_eq!(mesh.upstream.seen("/mine").headers["x-ringfence-tenant"], "acme");
    let line = mesh.up.access_log("acme-api").line("/mine");
    assert_eq!(line["peer"], "spiffe://ringfence.internal/tenant/acme/workload/acme-web");
    assert_eq!(status(&mesh.call("acme-web", "/mine", None)), 401, "an identity is no token");

    // One side alone says so.
    for token in [None, Some(globex.as_str()), Some(&acme)] {
        let reply = mesh.call("globex-web", "/public/x", token);
        assert!(status(&reply) == 403 && reply.contains("peer_not_allowed"), "{reply}");
    }
    mesh.site.tenant("acme", &calls(mesh.port, "{ workload: acme-api }", "peers: [globex]"));
    // A connection that the change meets is ended without an answer.
    eventually("both say so", || mesh.call("globex-web", "/public/x", None).starts_with("HTTP/1.1 200").then_some(()));
    // A token counts with its own tenant's peer alone, and a dedicated workload takes its own tenant's alone.
    for token in [&globex, &acme] {
        let reply = mesh.call("globex-web", "/mine", Some(token));
        assert!(status(&reply) == 403 && reply.contains("tenant_mismatch"), "{reply}");
    }
    mesh.site.tenant("globex", &calls(mesh.port, "{ tenant: acme, workload: acme-api }", "peers: []").replace("tenant: acme, ", ""));
    let is_another = |reply: &str| reply.starts_with("HTTP/1.1 502") && reply.contains("upstream_identity");
    eventually("globex means a workload of its own now", || is_another(&mesh.call("globex-web", "/public/x", None)).then_some(()));
    assert_eq!(mesh.upstream.count("/mine"), 1, "nothing else came through");
}

#[test]
fn who_shows_no_identity_reaches_nothing() {
    let mesh = Mesh::start();
    let listener = mesh.up.address("acme-api");
    let told = exchange(listener, "GET /public/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(!told.contains("HTTP/1.1 200"), "{told}");
    let anonymous = ringfence_tests::tls::get(std::net::TcpStream::connect(listener).unwrap(), "api.localhost", "/public/x");
    assert!(anonymous.is_err(), "{anonymous:?}");
    assert_eq!(mesh.upstream.connections(), 0);
}

#[test]
fn the_authority_is_replaced_while_workloads_call_each_other() {
    let mesh = Mesh::start();
    let acme = mesh.site.token("acme");
    let works = || mesh.call("acme-web", "/mine", Some(&acme)).starts_with("HTTP/1.1 200");
    assert!(works());
    let bundle = |workload: &str| mesh.up.admin(workload).config()["identity"]["trustBundle"]["sequence"].as_u64();
    let before = bundle("acme-web");
    assert!(ringfence(["trust".as_ref(), "rotate".as_ref(), mesh.site.dir().as_os_str()]).status.success());
    for workload in ["acme-web", "acme-api"] {
        eventually("the new bundle is everywhere", || (bundle(workload) > before).then_some(()));
    }
    assert!(works(), "both authorities are believed");
}
