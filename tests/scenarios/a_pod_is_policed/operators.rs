//! The operators' commands, as `kubectl exec` runs them in a control plane's pod.

use ringfence_tests::{eventually, node::RunningPod};
use serde_json::Value;

use super::cluster::{Cluster, said};

const STATE: &str = "/var/lib/ringfence";

/// What it prints.
#[track_caller]
fn ringfence(pod: &RunningPod, arguments: &[&str]) -> String {
    let output = pod.exec("control-plane", &[&["/usr/local/bin/ringfence"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn operators_ask_a_control_plane_in_its_pod() {
    let Some(cluster) = Cluster::start() else { return };
    let _acme = cluster.app("acme", &cluster.node.api.user("alice", None));
    let status = |pod: &RunningPod| -> Value { serde_json::from_str(&ringfence(pod, &["status", STATE, "-o", "json"])).unwrap() };
    // One of the replicas has the sidecar.
    eventually("the sidecar is told of", || {
        let sidecars: Vec<Value> =
            cluster.control_planes.iter().flat_map(|pod| status(pod)["sidecars"].as_array().unwrap().clone()).collect();
        matches!(&sidecars[..], [sidecar] if sidecar["inSync"] == true).then_some(())
    });
    let [first, second] = &cluster.control_planes[..] else { panic!("two replicas") };
    let token = ringfence(first, &["join", STATE, "--workload", "acme"]);
    assert!(token.trim().len() > 20 && !token.trim().contains(char::is_whitespace), "{token}");
    let rotated = ringfence(first, &["trust", "rotate", STATE]);
    assert!(rotated.contains("authority announced") && rotated.contains("authority issuing"), "{rotated}");
    // What one replica does is done for all.
    eventually("the other replica has it", || ringfence(second, &["status", STATE]).contains("bundle 2").then_some(()));
}
