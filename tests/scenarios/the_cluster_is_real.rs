//! What scenarios say of Kubernetes they say of Kubernetes: its API server stores, decides, issues and asks here as it does in a cluster.

use std::net::{IpAddr, TcpListener};

use base64::{Engine, prelude::BASE64_STANDARD};
use ringfence_tests::{KubeApi, Node, Upstream, eventually, kubernetes::ISSUER, tls};
use serde_json::{Value, json};

fn pod(privileged: bool) -> String {
    let container = json!({ "name": "app", "image": "app.test/app", "securityContext": { "privileged": privileged } });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "app" }, "spec": { "containers": [container] } }).to_string()
}

/// What the API server says of a token that is presented to whoever is `audience`.
fn review(api: &KubeApi, token: &str, audience: &str) -> Value {
    let spec = json!({ "token": token, "audiences": [audience] });
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec });
    let output = api.admin().feed(["create", "-o", "json", "-f", "-"], &review.to_string());
    let mut review: Value = serde_json::from_slice(&output.stdout).unwrap();
    review["status"].take()
}

#[test]
fn a_pod_is_admitted_as_its_namespace_allows() {
    let Some(api) = KubeApi::shared() else { return };
    let version: Value = serde_json::from_str(&api.admin().ok(["version", "-o", "json"])).unwrap();
    assert_eq!(version["serverVersion"]["major"], "1", "{version}");
    api.namespace("real-pods");
    api.admin().ok(["label", "namespace", "real-pods", "pod-security.kubernetes.io/enforce=baseline"]);

    let refused = api.admin().feed(["-n", "real-pods", "apply", "-f", "-"], &pod(true));
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains(r#"violates PodSecurity "baseline:latest": privileged"#), "{refused}");

    assert!(api.admin().feed(["-n", "real-pods", "apply", "-f", "-"], &pod(false)).status.success());
    let pod = api.admin().get(["-n", "real-pods", "pod", "app"]);
    let spec = &pod["spec"];
    assert_eq!((&pod["status"]["phase"], &spec["serviceAccountName"]), (&json!("Pending"), &json!("default")), "{pod}");
    // What admission adds to every pod.
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount", "{pod}");
}

#[test]
fn a_token_is_good_for_its_audience_until_its_account_is_gone() {
    let Some(api) = KubeApi::shared() else { return };
    api.namespace("real-tokens");
    api.admin().ok(["-n", "real-tokens", "create", "serviceaccount", "job"]);
    let token = api.admin().ok(["-n", "real-tokens", "create", "token", "job", "--audience", "ringfence"]);
    let token = token.trim();

    let status = review(api, token, "ringfence");
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:real-tokens:job", "{status}");
    let status = review(api, token, ISSUER);
    assert_eq!(status["authenticated"], Value::Null, "{status}");

    api.admin().ok(["-n", "real-tokens", "delete", "serviceaccount", "job"]);
    eventually("the token is no good any more", || review(api, token, "ringfence")["authenticated"].is_null().then_some(()));
}

#[test]
fn nobody_may_what_no_role_allows() {
    let Some(api) = KubeApi::shared() else { return };
    api.namespace("real-roles");
    let (stranger, member) = (api.user("mallory", None), api.user("alice", Some("readers")));
    let bearer = api.bearer(api.admin().ok(["-n", "real-roles", "create", "token", "default"]).trim());
    let pods = ["-n", "real-roles", "get", "pods"];
    for (user, name) in [(&stranger, "mallory"), (&member, "alice"), (&bearer, "system:serviceaccount:real-roles:default")] {
        let refused = user.refused(pods);
        assert!(
            refused.contains(&format!(r#"User "{name}" cannot list resource "pods" in API group "" in the namespace "real-roles""#)),
            "{refused}"
        );
    }

    api.admin().ok(["-n", "real-roles", "create", "rolebinding", "readers", "--clusterrole=view", "--group=readers"]);
    eventually("the group may", || member.kubectl(pods).status.success().then_some(()));
    stranger.refused(pods);
}

#[test]
fn its_controllers_count_and_clear_away() {
    let Some(api) = KubeApi::shared() else { return };
    api.namespace("real-controllers");
    let admin = api.admin();
    admin.ok(["-n", "real-controllers", "create", "quota", "pods", "--hard=pods=1"]);
    eventually("the quota is known", || {
        let quota = admin.get(["-n", "real-controllers", "quota", "pods"]);
        (quota["status"]["used"]["pods"] == "0").then_some(())
    });
    let run = |name: &str| admin.kubectl(["-n", "real-controllers", "run", name, "--image=app.test/app"]);
    assert!(run("first").status.success());
    let refused = String::from_utf8(run("second").stderr).unwrap();
    assert!(refused.contains("exceeded quota: pods, requested: pods=1, used: pods=1, limited: pods=1"), "{refused}");

    admin.ok(["delete", "namespace", "real-controllers", "--timeout=120s"]);
    admin.refused(["get", "namespace", "real-controllers"]);
}

#[test]
fn a_webhook_is_asked_at_the_address_of_its_service() {
    let Some(api) = KubeApi::shared() else { return };
    api.namespace("real-hooks");
    let admin = api.admin();
    admin.ok(["-n", "real-hooks", "create", "service", "clusterip", "hook", "--tcp=8443:8443"]);
    let service = admin.get(["-n", "real-hooks", "service", "hook"]);
    let address: IpAddr = service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    let certificates = tls::server(&["hook.real-hooks.svc"]);
    let upstream = Upstream::on(TcpListener::bind((address, 8443)).unwrap(), Some(certificates));
    let webhook = json!({
        "name": "hook.real-hooks.test",
        "clientConfig": {
            "service": { "namespace": "real-hooks", "name": "hook", "port": 8443, "path": "/admit" },
            "caBundle": BASE64_STANDARD.encode(api.ca()),
        },
        "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }],
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "real-hooks" } },
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 7,
    });
    let kind = "MutatingWebhookConfiguration";
    let metadata = json!({ "name": "real-hooks" });
    let hooks = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "webhooks": [webhook] });
    admin.apply(&hooks.to_string());

    // It takes a moment until new ones are asked; this one is no webhook: all it says is `ok`.
    let refused = eventually("a pod is refused", || {
        let output = admin.feed(["-n", "real-hooks", "create", "--dry-run=server", "-f", "-"], &pod(false));
        (!output.status.success()).then_some(output.stderr)
    });
    let refused = String::from_utf8(refused).unwrap();
    assert!(refused.contains(r#"failed calling webhook "hook.real-hooks.test""#), "{refused}");
    let review: Value = serde_json::from_slice(&upstream.seen("/admit?timeout=7s").body).unwrap();
    assert_eq!(review["request"]["object"]["metadata"]["name"], "app", "{review}");
    admin.ok(["delete", kind, "real-hooks"]);
}

#[test]
fn what_it_stores_outlives_it() {
    let Some(mut api) = KubeApi::start() else { return };
    api.admin().ok(["create", "configmap", "kept", "--from-literal=a=b"]);
    api.stop();
    let refused = api.admin().refused(["get", "configmap", "kept"]);
    assert!(refused.contains("refused"), "{refused}");
    api.resume();
    assert_eq!(api.admin().get(["configmap", "kept"])["data"]["a"], "b");
}

#[test]
fn a_node_runs_containers_as_they_are_told_and_refuses_what_it_does_not_know() {
    let Some(node) = Node::start() else { return };
    node.api.namespace("real-nodes");
    let admin = node.api.admin();
    let make = |name: &str, spec: &Value| {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec });
        let output = admin.feed(["-n", "real-nodes", "create", "-f", "-"], &pod.to_string());
        assert!(output.status.success(), "{output:?}");
        node.try_run("real-nodes", name)
    };
    let container = |name: &str, security: Value| {
        let mounts = json!([{ "name": "shared", "mountPath": "/shared" }, { "name": "own", "mountPath": "/own" }]);
        json!({
            "name": name, "image": "app.test/app", "command": ["sleep", "infinity"], "volumeMounts": mounts, "securityContext": security,
            "env": [{ "name": "WHO", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
        })
    };
    let mut first = container("first", json!({ "runAsUser": 7 }));
    first["command"] = json!(["sh", "-c", "echo \"$WHO\" > /shared/who"]);
    let token = json!({ "serviceAccountToken": { "audience": "vault", "path": "token" } });
    let pod = make(
        "runs",
        &json!({
            "securityContext": { "runAsUser": 1234, "runAsGroup": 1235, "fsGroup": 1236, "supplementalGroups": [1237] },
            "initContainers": [first],
            "containers": [
                container("plain", json!({})),
                container("bare", json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })),
                container("root", json!({
                    "runAsUser": 0, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
                })),
            ],
            "volumes": [{ "name": "shared", "emptyDir": {} }, { "name": "own", "projected": { "sources": [token] } }],
        }),
    );
    let pod = pod.unwrap();
    let said = |container: &str, script: &str| {
        let output = pod.exec(container, &["sh", "-c", script]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    // Of capabilities(7): those of containerd's default; NET_ADMIN.
    for (container, user, effective, bounding, no_new) in [
        ("plain", 1234, "0000000000000000", "00000000a80425fb", 0),
        ("bare", 1234, "0000000000000000", "0000000000000000", 1),
        ("root", 0, "0000000000001000", "0000000000001000", 0),
    ] {
        let status = said(container, "cat /proc/self/status");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        assert_eq!(field("Uid:"), format!("{user}\t{user}\t{user}\t{user}"), "{container}");
        assert_eq!((field("Gid:"), field("Groups:")), ("1235\t1235\t1235\t1235".into(), "1236 1237".into()), "{container}");
        assert_eq!((field("CapEff:"), field("CapBnd:")), (effective.into(), bounding.into()), "{container}");
        assert_eq!(field("NoNewPrivs:"), no_new.to_string(), "{container}");
        assert_eq!(said(container, "hostname; cat /shared/who"), "runs\nruns\n");
    }
    assert!(said("root", "touch /x").contains("Read-only file system"));
    assert!(said("root", "touch /own/x").contains("Read-only file system"));
    let status = review(&node.api, &said("plain", "cat /own/token"), "vault");
    let bound = &status["user"]["extra"]["authentication.kubernetes.io/pod-name"];
    assert_eq!((&status["authenticated"], bound), (&json!(true), &json!(["runs"])), "{status}");

    let app = container("app", json!({ "runAsNonRoot": true }));
    for (name, field, value, wanted) in [
        ("network", "hostNetwork", json!(true), "unknown field `hostNetwork`"),
        ("root", "volumes", json!([{ "name": "shared", "emptyDir": {} }, { "name": "own", "emptyDir": {} }]), "it would run as root"),
        ("path", "volumes", json!([{ "name": "shared", "emptyDir": {} }, { "name": "own", "hostPath": { "path": "/" } }]), "`hostPath`"),
    ] {
        let volumes = json!([{ "name": "shared", "emptyDir": {} }, { "name": "own", "emptyDir": {} }]);
        let mut spec = json!({ "containers": [app], "volumes": volumes });
        spec[field] = value;
        let refused = make(name, &spec).err().unwrap_or_default();
        assert!(refused.contains(wanted), "{name}: {refused}");
    }
}
