//! The API server asks for the sidecars of tenants' pods, and makes no such pod without; nobody else's pods are any concern of ours.

use std::process::Command;

use ringfence_tests::{KubeApi, binaries::binary, chart::NAMESPACE, control_plane::ringfence, corpora, eventually, process::Process};
use serde_json::{Value, json};

const WEBHOOK: &str = "ringfence-injector";

struct Cluster {
    api: KubeApi,
    /// `<address>:<port>` of the webhook's Service.
    webhook: String,
}

/// With the kinds, the webhook's configuration and its Service; two namespaces: a tenant's and nobody's.
fn cluster() -> Option<Cluster> {
    let api = KubeApi::start()?;
    let admin = api.admin();
    admin.apply(&String::from_utf8(ringfence(["crds"]).stdout).unwrap());
    admin.ok(["wait", "--for=condition=Established", "crd", "--all", "--timeout=120s"]);
    api.namespace(NAMESPACE);
    api.namespace("plain");
    api.namespace("team-a");
    // Its namespaces are this test's to make.
    let tenant = json!({
        "apiVersion": "ringfence.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
        "spec": {"identity": [{"issuer": "sso"}], "kubernetes": {"namespaces": []}},
    });
    admin.apply(&tenant.to_string());
    let uid = admin.get(["tenant", "acme"])["metadata"]["uid"].as_str().unwrap().to_owned();
    admin.ok(["annotate", "namespace", "team-a", &format!("ringfence.dev/tenant-uid={uid}")]);
    admin.ok(["label", "namespace", "team-a", "ringfence.dev/tenant=acme"]);
    api.namespace("left");
    admin.ok(["annotate", "namespace", "left", "ringfence.dev/tenant-uid=another"]);
    admin.ok(["label", "namespace", "left", "ringfence.dev/tenant=acme"]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ringfence-control-plane", "namespace": NAMESPACE},
        "spec": {"ports": [{"port": 15017}]},
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": WEBHOOK},
        "webhooks": [{
            "name": "injector.ringfence.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": NAMESPACE, "name": "ringfence-control-plane", "port": 15017, "path": "/inject"}},
            "failurePolicy": "Fail", "matchPolicy": "Equivalent", "reinvocationPolicy": "IfNeeded", "sideEffects": "None", "timeoutSeconds": 5,
            "namespaceSelector": {"matchExpressions": [{"key": "ringfence.dev/tenant", "operator": "Exists"}]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}],
        }],
    });
    admin.apply(&service.to_string());
    admin.apply(&configuration.to_string());
    let service = admin.get(["-n", NAMESPACE, "service", "ringfence-control-plane"]);
    let webhook = format!("{}:15017", service["spec"]["clusterIP"].as_str().unwrap());
    Some(Cluster { api, webhook })
}

impl Cluster {
    /// A control plane that the API server believes when this returns.
    fn serve(&self) -> Process {
        let mut command = Command::new(binary("ringfence"));
        command.args([
            "serve",
            "--kubernetes",
            "--tls",
            "127.0.0.1:0",
            "--webhook",
            &self.webhook,
            "--inject-image",
            "registry.test/proxy:1",
        ]);
        let mut process = Process::start(command.env("KUBECONFIG", &self.api.admin().kubeconfig));
        process.line(|line| line == "ready");
        eventually("the API server believes the webhook", || self.create("team-a", &pod(json!({})), true).ok());
        process
    }

    /// What became of a pod; or what was said.
    fn create(&self, namespace: &str, pod: &Value, dry_run: bool) -> Result<Value, String> {
        let dry_run = if dry_run { "--dry-run=server" } else { "--dry-run=none" };
        let output = self.api.admin().feed(["-n", namespace, "create", "-o", "json", dry_run, "-f", "-"], &pod.to_string());
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).unwrap())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }
}

fn pod(fields: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-"},
        "spec": {"containers": [{"name": "app", "image": "app.test/app"}], "initContainers": [{"name": "init", "image": "app.test/init"}]},
    });
    pod["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    pod
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|item| item["name"].as_str().unwrap()).collect()
}

/// What was asked for, of what became of it.
fn anew(pod: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "again-"}, "spec": pod["spec"]})
}

#[test]
fn pods_of_tenants_alone_get_a_sidecar() {
    let Some(cluster) = cluster() else { return };
    let _control_plane = cluster.serve();
    let injected = cluster.create("team-a", &pod(json!({})), false).unwrap();
    let spec = &injected["spec"];
    assert_eq!(names(&spec["initContainers"]), ["ringfence-capture", "ringfence-proxy", "init"]);
    // The API server's own webhook-like plugins gave the application its token, and ours nothing.
    let mounted = |container: &Value| names(&container["volumeMounts"]).into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert!(mounted(&spec["containers"][0])[0].starts_with("kube-api-access-"), "{spec}");
    assert_eq!(mounted(&spec["initContainers"][0]), ["ringfence-capture", "ringfence-empty"]);
    let own = ["ringfence-token", "ringfence-trust", "ringfence-state", "ringfence-empty", "ringfence-capture"];
    assert_eq!(mounted(&spec["initContainers"][1]), own);

    let again = cluster.create("team-a", &anew(&injected), true).unwrap();
    assert_eq!(again["spec"], *spec, "a second pass changes nothing");
    let left = cluster.create("left", &pod(json!({})), false).unwrap_err();
    assert!(left.contains("ringfence: namespace left is no namespace of the Tenant acme that there is"), "{left}");
    let plain = cluster.create("plain", &pod(json!({})), false).unwrap();
    assert_eq!(names(&plain["spec"]["initContainers"]), ["init"]);

    for (fields, wanted) in [
        (json!({"hostNetwork": true}), "ringfence: spec.hostNetwork: must be false"),
        (json!({"initContainers": [{"name": "ringfence-proxy", "image": "evil.test/proxy"}]}), "ringfence: spec.initContainers[0]."),
        (json!({"securityContext": {"runAsUser": 64015}}), "ringfence: spec.securityContext.runAsUser: 64015"),
    ] {
        let refused = cluster.create("team-a", &pod(fields.clone()), false).unwrap_err();
        assert!(refused.contains(wanted), "{refused}");
        cluster.create("plain", &pod(fields), true).unwrap();
    }
}

#[test]
fn without_an_answer_there_are_no_pods_in_a_tenants_namespace() {
    let Some(cluster) = cluster() else { return };
    let refused = |what: &str| {
        let refused = cluster.create("team-a", &pod(json!({})), false).unwrap_err();
        assert!(refused.contains("failed calling webhook \"injector.ringfence.dev\""), "{what}: {refused}");
        cluster.create("plain", &pod(json!({})), false).unwrap();
    };
    refused("before it was ever there");
    let control_plane = cluster.serve();
    drop(control_plane);
    refused("when it is gone");
    // Another finds the certificates in their Secret, and what the API server was told is still right.
    let bundle = || cluster.api.admin().get(["mutatingwebhookconfiguration", WEBHOOK])["webhooks"][0]["clientConfig"]["caBundle"].clone();
    let before = bundle();
    let _control_plane = cluster.serve();
    assert_eq!(bundle(), before);
    // Somebody else's hand in it is undone.
    let remove = r#"[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]"#;
    cluster.api.admin().ok(["patch", "mutatingwebhookconfiguration", WEBHOOK, "--type=json", "-p", remove]);
    eventually("the API server is told again", || (bundle() == before).then_some(()));
}

#[test]
fn what_others_would_inject_is_admitted_and_valid() {
    let Some(rows) = corpora::rows("k8s/admission_reviews.jsonl") else { return };
    let Some(cluster) = cluster() else { return };
    let _control_plane = cluster.serve();
    let (mut admitted, mut refused) = (0, Vec::new());
    for row in rows {
        let request = &row["request"]["request"];
        if request["operation"] != "CREATE" || !request["object"]["spec"].is_object() || row["id"].as_str().unwrap().starts_with("own/") {
            continue;
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "p-", "labels": request["object"]["metadata"]["labels"], "annotations": request["object"]["metadata"]["annotations"]},
            "spec": without_account(&request["object"]["spec"]),
        });
        // Some are no pods that an API server would take from anybody.
        if cluster.create("plain", &pod, true).is_err() {
            continue;
        }
        match cluster.create("team-a", &pod, true) {
            Ok(injected) => {
                assert_eq!(names(&injected["spec"]["initContainers"])[..2], ["ringfence-capture", "ringfence-proxy"], "{}", row["id"]);
                assert_eq!(cluster.create("team-a", &anew(&injected), true).unwrap()["spec"], injected["spec"], "{}", row["id"]);
                admitted += 1;
            }
            Err(why) => {
                assert!(why.contains("ringfence: spec."), "{}: {why}", row["id"]);
                assert_ne!(row["upstream_injects"], true, "{}: {why}", row["id"]);
                refused.push(row["id"].to_string());
            }
        }
    }
    eprintln!("{admitted} admitted; refused: {refused:?}");
    assert!(admitted > 60, "{admitted}");
}

/// The accounts are not here.
fn without_account(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for field in ["serviceAccountName", "serviceAccount"] {
        spec.as_object_mut().unwrap().remove(field);
    }
    spec
}
