//! What an injected pod looks like.

use super::*;

fn injected(pod: &Value, capture: Capture) -> Value {
    let once = inject(pod, ACME, &settings(capture)).unwrap().pod;
    let twice = inject(&once, ACME, &settings(capture)).unwrap().pod;
    assert_eq!(once, twice, "a second pass changes nothing");
    once
}

#[test]
fn our_containers_come_first_and_the_pods_own_are_as_they_were() {
    let pod = pod(json!({
        "containers": [{"name": "a", "future": {"unknown": [1]}}, {"name": "b"}],
        "initContainers": [{"name": "init"}, {"name": "native", "restartPolicy": "Always"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "futureField": 7,
    }));
    let injected = injected(&pod, Capture::Redirect);
    assert_eq!(names(&injected["spec"]["initContainers"]), ["ringfence-capture", "ringfence-proxy", "init", "native"]);
    assert_eq!(injected["spec"]["containers"], pod["spec"]["containers"]);
    assert_eq!(injected["spec"]["initContainers"].as_array().unwrap()[2..], pod["spec"]["initContainers"].as_array().unwrap()[..]);
    assert_eq!((&injected["spec"]["futureField"], &injected["metadata"]), (&json!(7), &pod["metadata"]));
    let volumes = ["v", "ringfence-token", "ringfence-trust", "ringfence-state", "ringfence-empty", "ringfence-capture"];
    assert_eq!(names(&injected["spec"]["volumes"]), volumes);
    assert!(injected["spec"].get("dnsPolicy").is_none());
}

#[test]
fn the_token_is_mounted_in_the_sidecar_alone() {
    let injected = injected(&plain(json!({})), Capture::Redirect);
    let with_token: Vec<&str> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| injected["spec"][*list].as_array().unwrap())
        .filter(|container| names(&container["volumeMounts"]).contains(&"ringfence-token"))
        .map(|container| container["name"].as_str().unwrap())
        .collect();
    assert_eq!(with_token, ["ringfence-proxy"]);
    // The application's own token, which the ServiceAccount plugin adds to every container that has nothing there.
    for container in injected["spec"]["initContainers"].as_array().unwrap() {
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"));
    }
}

#[test]
fn the_sidecar_reads_its_bootstrap_from_its_environment() {
    let injected = injected(&plain(json!({})), Capture::Redirect);
    let bootstrap = injected.pointer("/spec/initContainers/1/env/0/value").unwrap().as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(bootstrap).unwrap(),
        json!({
            "workload": "acme",
            "controlPlane": {"tls": "10.96.0.10:15010"},
            "identity": {
                "trustDomain": "ringfence.internal",
                "bundle": "/etc/ringfence/trust/bundle.pem",
                "source": {"controlPlane": {"serviceAccountToken": {"file": "/var/run/secrets/ringfence/token"}}},
            },
            "configKeys": "/etc/ringfence/trust/config-keys.pem",
            "stateDir": "/var/lib/ringfence",
            "admin": "unix:/var/lib/ringfence/admin.sock",
            "resolvers": ["10.96.0.53:53"],
        })
    );
}

#[test]
fn what_other_webhooks_did_is_repaired() {
    let wanted = injected(&plain(json!({"initContainers": [{"name": "init"}]})), Capture::Redirect);
    let again = |change: fn(&mut Value)| {
        let mut pod = wanted.clone();
        change(&mut pod["spec"]);
        inject(&pod, ACME, &settings(Capture::Redirect)).map(|injected| injected.pod)
    };
    // One that came before ours, additions to every container, ours gone.
    let moved = again(|spec| spec["initContainers"].as_array_mut().unwrap().rotate_left(1)).unwrap();
    assert_eq!(names(&moved["spec"]["initContainers"]), ["ringfence-capture", "ringfence-proxy", "init"]);
    let first = again(|spec| spec["initContainers"].as_array_mut().unwrap().insert(0, json!({"name": "theirs"}))).unwrap();
    assert_eq!(names(&first["spec"]["initContainers"]), ["ringfence-capture", "ringfence-proxy", "theirs", "init"]);
    let embellished = again(|spec| {
        for container in spec["initContainers"].as_array_mut().unwrap() {
            container["envFrom"] = json!([{"secretRef": {"name": "x"}}]);
        }
    });
    let mut other = wanted.clone();
    other["spec"]["initContainers"][2]["envFrom"] = json!([{"secretRef": {"name": "x"}}]);
    assert_eq!(embellished.unwrap(), other);
    assert_eq!(again(|spec| drop(spec["initContainers"].as_array_mut().unwrap().drain(..2))).unwrap(), wanted);
    let changed = again(|spec| spec["initContainers"][1]["image"] = json!("evil")).unwrap_err();
    assert_eq!(changed.field, "spec.initContainers[1].image");
    let uid = again(|spec| spec["initContainers"][0]["securityContext"]["privileged"] = json!(true)).unwrap_err();
    assert_eq!(uid.field, "spec.initContainers[0].securityContext.privileged");
}

#[test]
fn a_limit_range_may_add_to_our_resources() {
    let mut pod = injected(&plain(json!({})), Capture::Redirect);
    pod["spec"]["initContainers"][1]["resources"]["limits"]["ephemeral-storage"] = json!("1Gi");
    assert_eq!(injected(&pod, Capture::Redirect), pod);
}

#[test]
fn a_pod_with_resources_as_a_whole_shares_them() {
    let injected = injected(&plain(json!({"resources": {"limits": {"cpu": "1"}}})), Capture::Redirect);
    assert_eq!(injected["spec"]["initContainers"][1]["resources"], json!({}));
}

#[test]
fn the_pod_does_not_choose_whom_the_sidecar_asks() {
    let dns = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["x"], "options": [{"name": "ndots", "value": "1"}]}});
    let injected = injected(&plain(dns), Capture::Redirect);
    assert_eq!(injected["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(injected["spec"]["dnsConfig"], json!({"searches": ["x"], "options": [{"name": "ndots", "value": "1"}]}));
}

#[test]
fn without_capture_programs_are_told_where_the_sidecar_is() {
    let pod = pod(json!({
        "containers": [{"name": "a", "env": [{"name": "HTTPS_PROXY", "value": "mine"}]}],
        "initContainers": [{"name": "init", "env": null}],
        "dnsConfig": {"searches": ["x"]},
    }));
    let injected = injected(&pod, Capture::Explicit);
    let spec = &injected["spec"];
    assert_eq!(names(&spec["initContainers"]), ["ringfence-proxy", "init"]);
    let env = |container: &Value| names(&container["env"]).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(env(&spec["containers"][0]), ["HTTPS_PROXY", "HTTP_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy"]);
    assert_eq!(spec["containers"][0]["env"][0]["value"], "mine");
    assert_eq!(spec["initContainers"][1]["env"][0], json!({"name": "HTTP_PROXY", "value": "http://127.0.0.1:15001"}));
    let bootstrap: Value = serde_json::from_str(spec["initContainers"][0]["env"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(bootstrap["resolvers"], json!(["10.96.0.53:53"]), "not what resolv.conf says, which is the sidecar itself");
    assert_eq!(spec["dnsPolicy"], "None");
    assert_eq!(
        spec["dnsConfig"],
        json!({
            "nameservers": ["127.0.0.1"],
            "searches": ["team-a.svc.cluster.local", "svc.cluster.local", "cluster.local", "x"],
            "options": [{"name": "ndots", "value": "5"}],
        })
    );
    assert_eq!(spec["securityContext"], json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"}]}));
    assert!(!names(&spec["volumes"]).contains(&"ringfence-capture"));
    let high = plain(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}}));
    assert_eq!(inject(&high, ACME, &settings(Capture::Explicit)).unwrap_err().field, "spec.securityContext.sysctls");
    let redirected = self::injected(&pod, Capture::Redirect);
    let denial = inject(&redirected, ACME, &settings(Capture::Explicit)).unwrap_err();
    assert_eq!(denial.field, "spec.initContainers[0].name");
}
