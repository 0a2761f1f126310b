//! What an app in such a pod gets, and what its operators see.

use std::net::{SocketAddr, TcpStream};

use ringfence_tests::{eventually, http, http::Reply, node::RunningPod, site::tenant};

use super::cluster::{ALLOWED, Cluster, INBOUND, PLAIN, said, terms};

/// More than the webhook serves at a time, and so many again when it has ended the first.
const SILENT: usize = 64;

/// What the app's own client gets: the reply, or why there is none.
fn ask(pod: &RunningPod, url: &str, token: &str) -> String {
    let bearer = format!("authorization: Bearer {token}");
    let headers: &[&str] = if token.is_empty() { &[] } else { &["-H", &bearer] };
    said(&pod.exec("app", &[&["curl", "-sSi", "-m", "60"], headers, &[url]].concat()))
}

/// What somebody outside gets, past no sidecar but the pod's.
fn call(cluster: &Cluster, pod: &RunningPod, token: Option<&str>) -> Reply {
    let address = SocketAddr::from((pod.address, INBOUND));
    let request = http::get(address, "/");
    let request = token.into_iter().fold(request, http::Request::bearer);
    request.try_send_on(cluster.node.network.inside(|| TcpStream::connect(address).unwrap())).unwrap()
}

#[track_caller]
fn logged(pod: &RunningPod, name: &str, reason: &str) {
    eventually(&format!("the sidecar has told of {name}: {reason}"), || {
        pod.lines("ringfence-proxy").iter().any(|line| line.contains(name) && line.contains(reason)).then_some(())
    });
}

#[test]
fn an_injected_pod_runs_and_what_it_asks_for_is_policed() {
    let Some(cluster) = Cluster::start() else { return };
    let admin = cluster.admin();
    let acme = cluster.app("acme", &cluster.node.api.user("alice", None));
    admin.ok(["wait", "--for=condition=Enforced", "workload/acme", "--timeout=120s"]);
    admin.ok(["-n", "acme", "wait", "--for=condition=Ready", "pod", &acme.name, "--timeout=120s"]);

    let reply = ask(&acme, "http://allowed.test/hello", "");
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok"), "{reply}");
    assert_eq!(cluster.allowed.count("/hello"), 1);
    let refused = ask(&acme, "http://foreign.test/hello", "");
    assert!(!refused.contains("200"), "{refused}");
    logged(&acme, "foreign.test", "egress_host_not_listed");
    // A rule lists it, the platform's zone does not let it have an address.
    let refused = ask(&acme, "http://blocked.test/hello", "");
    assert!(refused.contains("Could not resolve host"), "{refused}");
    logged(&acme, "blocked.test", "name_blocked");
    let refused = ask(&acme, &format!("http://{ALLOWED}/by-address"), "");
    assert!(!refused.contains("200"), "{refused}");
    assert_eq!((cluster.foreign.connections(), cluster.allowed.count("/by-address")), (0, 0));

    let (own, others) = (cluster.site.token("acme"), cluster.site.token("globex"));
    assert_eq!(call(&cluster, &acme, Some(&own)).status, 200);
    for (token, verdict) in [(None, (401, "token_missing")), (Some(others.as_str()), (403, "tenant_mismatch"))] {
        assert_eq!(call(&cluster, &acme, token).verdict(), (verdict.0, verdict.1.to_owned()));
    }

    // An edit, in force in the same process.
    let sidecar = acme.pid("ringfence-proxy");
    let more = "{ name: more, hosts: [foreign.test], ports: [80], protocol: http }";
    admin.apply(&tenant("acme", &terms("alice", &format!("{PLAIN}, {more}"))));
    eventually("the edit arrives", || ask(&acme, "http://foreign.test/now", "").ends_with("ok").then_some(()));
    assert_eq!(acme.pid("ringfence-proxy"), sidecar);
    admin.ok(["wait", "--for=condition=Enforced", "tenant/acme", "--timeout=120s"]);
}

#[test]
fn one_tenants_app_comes_no_further_than_another_tenants_sidecar() {
    let Some(cluster) = Cluster::start() else { return };
    let acme = cluster.app("acme", &cluster.node.api.user("alice", None));
    let globex = cluster.app("globex", &cluster.node.api.user("bob", None));
    let (address, own) = (globex.address, cluster.site.token("acme"));
    assert_eq!(call(&cluster, &globex, Some(&cluster.site.token("globex"))).status, 200, "it is there");
    // Its own sidecar, as long as no rule of its own says otherwise.
    for port in [INBOUND, 8080] {
        let refused = ask(&acme, &format!("http://{address}:{port}/"), &own);
        assert!(!refused.contains("200 OK"), "{refused}");
    }
    assert!(!globex.lines("ringfence-proxy").iter().any(|line| line.contains("tenant_mismatch")), "nothing came so far");
    // And then the other's.
    let pods = format!("{{ name: pods, cidrs: [10.244.0.0/24], ports: [{INBOUND}], protocol: http }}");
    cluster.admin().apply(&tenant("acme", &terms("alice", &format!("{PLAIN}, {pods}"))));
    let url = format!("http://{address}:{INBOUND}/");
    let refused = eventually("the rule arrives", || Some(ask(&acme, &url, &own)).filter(|reply| reply.contains("tenant_mismatch")));
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let refused = ask(&acme, &url, "");
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("token_missing"), "{refused}");
}

#[test]
fn whoever_fills_the_webhook_leaves_the_control_plane_in_service() {
    let Some(cluster) = Cluster::start() else { return };
    for replica in &cluster.control_planes {
        let webhook = || TcpStream::connect((replica.address, 15017)).unwrap();
        let silent: Vec<TcpStream> = cluster.node.network.inside(|| (0..SILENT).map(|_| webhook()).collect());
        assert!(replica.is_ready(), "{}", replica.name);
        drop(silent);
    }
}
