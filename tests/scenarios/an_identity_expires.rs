//! The control plane is gone until the identities that it issued have expired: what needs none goes on, what needs one is refused, and one
//! join token is enough to come back.

use ringfence_tests::{
    Link, ServeTls, Sidecar, Site, Traffic, Upstream, free_port,
    http::get,
    raw::{exchange, status},
    site::object,
};
use serde_json::{Value, json};

const TTL: &str = "10s";

fn with_identity(sidecar: &Sidecar, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    sidecar.admin.config_where(what, |config| fits(&config["identity"]))["identity"].clone()
}

#[test]
fn with_the_authority_gone_policy_holds_peers_are_refused_and_a_token_brings_it_back() {
    let (upstream, peers) = (Upstream::start(), free_port());
    let site = Site::new();
    site.write("platform.yaml", &object("Platform", "platform", "{ egress: { dangerousAllowPrivate: [127.0.0.0/8] } }"));
    let rule = format!("{{ name: api, hosts: [api.localhost], ports: [{peers}], protocol: http, peer: {{ workload: api }} }}");
    let tenant = |rate: &str| format!("limits: [{{ name: all, rate: {rate} }}], egress: {{ allow: [{rule}] }}");
    site.tenant("acme", &tenant("70000/s"));
    let to = upstream.address;
    let listeners = format!("[{{ listen: 127.0.0.1:0, upstream: {to} }}, {{ listen: 127.0.0.1:{peers}, upstream: {to}, mtls: true }}]");
    site.workload_at("api", "tenant: acme", &listeners);
    site.write("web.yaml", &object("Workload", "web", "{ tenant: acme, egress: { listen: 127.0.0.1:0 } }"));
    let mut serve = ServeTls::start(&site, TTL);
    let link = Link::new(serve.address);
    let [mut api, web] = ["api", "web"].map(|workload| {
        serve.join(&site, workload);
        Sidecar::begin(&site, workload, &serve.bootstrap(&site, workload, link.address)).ready()
    });
    let token = site.token("acme");
    let (proxy, host) = (web.admin.listener("outbound"), format!("api.localhost:{peers}"));
    let call = || {
        let request =
            format!("GET http://{host}/called HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        exchange(proxy, request)
    };
    assert_eq!(status(&call()), 200);
    let traffic = Traffic::start(api.address(), token.clone());
    traffic.goes_on();

    serve.process.kill();
    for sidecar in [&api, &web] {
        let identity = with_identity(sidecar, "its SVID has expired", |identity| identity["svid"].is_null());
        assert!(identity["trustBundle"].is_object(), "{identity}");
    }
    let reply = call();
    assert!(status(&reply) == 502 && reply.contains("upstream_identity"), "{reply}");
    // Who would come without a peer of its own does not get in either.
    assert_eq!(exchange(([127, 0, 0, 1], peers).into(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "");
    api.process.line(|line| line.contains(&format!("127.0.0.1:{peers} takes no connections: this sidecar has no SVID")));
    traffic.goes_on();
    assert_eq!(get(api.address(), "/").send().verdict(), (401, "token_missing".into()), "the policy in force is what it was");
    assert_eq!(api.admin.get("/readyz").unwrap().status, 200);
    assert_eq!(upstream.count("/called"), 1);

    // An identity that has expired proves nothing: it is not renewed. The sidecar says what would help.
    site.tenant("acme", &tenant("80000/s"));
    let serve = ServeTls::start(&site, TTL);
    link.lead_to(serve.address);
    for (sidecar, workload) in [(&api, "api"), (&web, "web")] {
        let identity = with_identity(sidecar, "it says what it lacks", |identity| {
            identity["failure"].as_str().is_some_and(|failure| failure.contains("ringfence join"))
        });
        assert_eq!(identity["svid"], json!(null), "{workload}: {identity}");
        assert_eq!(sidecar.admin.metric("ringfence_control_plane_connected", ""), 0.0);
        serve.join(&site, workload);
    }
    for sidecar in [&api, &web] {
        with_identity(sidecar, "it is who it was", |identity| identity["svid"].is_object() && identity["failure"].is_null());
        let has_it = |config: &Value| config["tenants"][0]["limits"][0]["rate"] == "80000/s";
        sidecar.admin.config_where("the edit made meanwhile has arrived", has_it);
    }
    assert_eq!(status(&call()), 200);
    println!("expired: {:?}", traffic.was_whole());
}
