//! The controller, with the rights that the chart gives it and no others, against a real API server. Nobody counts quotas or empties
//! namespaces there but these tests.

use std::{fmt::Debug, path::Path, process::Command, time::Duration};

use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicyBinding,
    core::v1::{Namespace, Pod, ResourceQuota},
    networking::v1::NetworkPolicy,
};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    kubernetes::{
        apiserver::{ApiServer, programs},
        crd,
        names::{FENCE_LABEL, TENANT_UID_ANNOTATION},
    },
    spec::Kind,
};

const SYSTEM: &str = "ringfence-system";
const OURSELVES: &str = "system:serviceaccount:ringfence-system:ringfence-control-plane";
const TEMPLATES: [&str; 5] =
    ["rbac-tenancy", "admission-pod-gate", "admission-tenancy-reach", "admission-references", "admission-pod-pool"];
/// A test that waits for longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(120);

struct Cluster {
    api: ApiServer,
    controller: JoinHandle<()>,
    trust: watch::Sender<TrustText>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

impl Cluster {
    /// With the chart's kinds, rights and of its policies those that the fence rests on. `None`, and said, where a program is missing.
    async fn start() -> Option<Self> {
        let helm = programs()?.join("helm");
        let api = ApiServer::start().await?;
        if !helm.is_file() {
            say("skipped: needs helm in KUBEBUILDER_ASSETS");
            return None;
        }
        for kind in Kind::ALL {
            apply_to(&api.client, crd::definition(*kind)).await;
        }
        for kind in Kind::ALL {
            let objects: Api<DynamicObject> = Api::all_with(api.client.clone(), &super::kind(kind.as_str()));
            eventually("the kind is served", async || objects.list(&ListParams::default()).await.ok()).await;
        }
        api.namespace(SYSTEM, json!({})).await;
        for object in rendered(&helm, &TEMPLATES) {
            apply_to(&api.client, object).await;
        }
        let (trust, told) = watch::channel(TrustText { bundle: "BUNDLE".into(), config_keys: "KEYS".into() });
        let settings = Settings { system_namespace: SYSTEM.into(), pods_capture: true, pods_end_within: Duration::from_secs(1) };
        let controller = tokio::spawn(run(api.client_as(OURSELVES), settings, told));
        let cluster = Self { api, controller, trust };
        cluster.policies_hold().await;
        Some(cluster)
    }

    /// The API server takes a moment to judge by a policy that it has taken.
    async fn policies_hold(&self) {
        let stray = Namespace { metadata: ObjectMeta { name: Some("stray".into()), ..Default::default() }, ..Default::default() };
        let ours = Api::<Namespace>::all(self.api.client_as(OURSELVES));
        let dry = PostParams { dry_run: true, field_manager: None };
        eventually("our reach ends", async || refused(ours.create(&dry, &stray).await, "says whose it is")).await;
        self.api.namespace("nobodys", json!({ "ringfence.dev/tenant": "nobody" })).await;
        self.account("nobodys").await;
        let pods = self.api.within::<Pod>("nobodys");
        eventually("the gate is shut", async || refused(pods.create(&dry, &self.pod()).await, "does not stand")).await;
    }

    fn of(&self, kind: &str) -> Api<DynamicObject> {
        Api::all_with(self.api.client.clone(), &super::kind(kind))
    }

    async fn tenant(&self, name: &str, kubernetes: Value) -> String {
        let spec = json!({
            "identity": [{ "issuer": "dev" }],
            "egress": { "allow": [{ "name": "web", "hosts": ["a.example"] }] },
            "kubernetes": kubernetes,
        });
        let tenant = json!({ "apiVersion": API_VERSION, "kind": "Tenant", "metadata": { "name": name }, "spec": spec });
        apply_to(&self.api.client, tenant).await.uid().unwrap()
    }

    /// Until the condition `Onboarded` of the Tenant is so; its message.
    async fn is_onboarded(&self, tenant: &str, status: &str, reason: &str) -> String {
        let tenants = self.of("Tenant");
        eventually(&format!("{tenant}: {status} {reason}"), async || {
            let live = tenants.get(tenant).await.unwrap();
            let conditions = live.data["status"]["conditions"].as_array()?.clone();
            let condition = conditions.into_iter().find(|condition| condition["type"] == "Onboarded")?;
            (condition["status"] == status && condition["reason"] == reason).then(|| condition["message"].as_str().unwrap().to_owned())
        })
        .await
    }

    /// All that is ours in the namespace, by kind and name, but for what changes with every write.
    async fn fence(&self, namespace: &str) -> Vec<(ApiResource, DynamicObject)> {
        let mut found = Vec::new();
        for kind in fence::kinds() {
            let ours = apply::ours(&self.api.client, &kind, namespace).await.unwrap();
            found.extend(ours.into_values().map(|object| (kind.clone(), object)));
        }
        found
    }

    async fn namespace(&self, name: &str) -> Option<Namespace> {
        self.api.all::<Namespace>().get_opt(name).await.unwrap()
    }

    fn pod(&self) -> Pod {
        let pod = json!({ "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "app", "image": "app" }] } });
        serde_json::from_value(pod).unwrap()
    }

    /// What each namespace gets of the cluster's own controllers, and without which no pod is looked at.
    async fn account(&self, namespace: &str) {
        let metadata = json!({ "name": "default", "namespace": namespace });
        apply_to(&self.api.client, json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })).await;
    }

    /// As the quota controller does it.
    async fn counted(&self, namespace: &str) {
        let quotas = self.api.within::<ResourceQuota>(namespace);
        let hard = quotas.get(fence::QUOTA).await.unwrap().spec.unwrap().hard.unwrap();
        let used: serde_json::Map<String, Value> = hard.keys().map(|name| (name.clone(), "0".into())).collect();
        let status = json!({ "status": { "hard": hard, "used": used } });
        quotas.patch_status(fence::QUOTA, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    /// As the namespace controller ends a namespace.
    async fn finalize(&self, namespace: &str) {
        for (kind, object) in self.fence(namespace).await {
            apply::delete(&apply::api_of(&self.api.client, &kind, Some(namespace)), &object).await.unwrap();
        }
        let mut live = serde_json::to_value(self.namespace(namespace).await.unwrap()).unwrap();
        live["spec"]["finalizers"] = json!([]);
        let request = hyper::Request::put(format!("/api/v1/namespaces/{namespace}/finalize")).header("content-type", "application/json");
        let _: Value = self.api.client.request(request.body(live.to_string().into_bytes()).unwrap()).await.unwrap();
    }
}

async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let met = async {
        loop {
            if let Some(met) = condition().await {
                return met;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// `Some`: by a message that has `says` in it.
fn refused<T: Debug>(outcome: Result<T, kube::Error>, says: &str) -> Option<()> {
    match outcome {
        Err(kube::Error::Api(status)) if status.message.contains(says) => Some(()),
        _ => None,
    }
}

async fn apply_to(client: &Client, object: Value) -> DynamicObject {
    let (group, version) = object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap()));
    let api = apply::api_of(client, &kind, object["metadata"]["namespace"].as_str());
    let name = object["metadata"]["name"].as_str().unwrap();
    api.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await.unwrap()
}

fn rendered(helm: &Path, templates: &[&str]) -> Vec<Value> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ringfence");
    let mut command = Command::new(helm);
    command.args(["template", "ringfence", "--namespace", SYSTEM]).arg(chart);
    command.args(["--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"]);
    for template in templates {
        command.arg("--show-only").arg(format!("templates/{template}.yaml"));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = text.split("\n---").filter(|document| document.lines().any(|line| line.starts_with("kind:")));
    documents.map(|document| serde_saphyr::from_str(document.trim_start_matches("---")).unwrap()).collect()
}

fn revision(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

/// One cluster for all of it: each part has tenants of its own, and its own place in the order.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_fenced_in_a_real_cluster() {
    let Some(cluster) = Cluster::start().await else { return };
    a_fence_that_cannot_stand_lets_no_pod_in(&cluster).await;
    what_others_change_is_repaired_and_what_is_theirs_is_left(&cluster).await;
    what_the_api_server_refuses_is_told_and_what_stands_is_kept(&cluster).await;
    a_namespace_is_of_one_tenant(&cluster).await;
    an_operators_workload_stays(&cluster).await;
    rights_end_at_tenants_namespaces(&cluster).await;
    nothing_refers_to_what_is_another_tenants(&cluster).await;
    pods_go_before_the_fence_and_a_new_tenant_is_another(&cluster).await;
}

async fn a_fence_that_cannot_stand_lets_no_pod_in(cluster: &Cluster) {
    let roles: Api<DynamicObject> = Api::all_with(
        cluster.api.client.clone(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "ClusterRole")),
    );
    let whole = roles.get("ringfence-tenancy").await.unwrap();
    let mut less = whole.data["rules"].as_array().unwrap().clone();
    less.retain(|rule| rule["apiGroups"][0] != "networking.k8s.io");
    let rules = |rules: Value| Patch::Merge(json!({ "rules": rules }));
    roles.patch("ringfence-tenancy", &PatchParams::default(), &rules(json!(less))).await.unwrap();
    cluster.tenant("acme", json!({ "quota": { "pods": 7 } })).await;

    let namespace = eventually("it is made", async || cluster.namespace("acme").await).await;
    assert_eq!(namespace.labels().get(FENCE_LABEL).map(String::as_str), Some("closed"), "from its first revision on");
    cluster.account("acme").await;
    let pods = cluster.api.within::<Pod>("acme");
    assert_eq!(
        refused(pods.create(&PostParams::default(), &cluster.pod()).await, "the fence of this tenant's namespace does not stand"),
        Some(())
    );
    let none = || async { cluster.api.within::<ResourceQuota>("acme").get_opt(fence::QUOTA).await.unwrap() };
    let quota = eventually("a quota stands", async || none().await).await;
    assert_eq!(quota.spec.unwrap().hard.unwrap()["pods"].0, "0");

    roles.patch("ringfence-tenancy", &PatchParams::default(), &rules(whole.data["rules"].clone())).await.unwrap();
    cluster.is_onboarded("acme", "True", "FenceStands").await;
    let namespace = cluster.namespace("acme").await.unwrap();
    assert_eq!(namespace.labels().get(FENCE_LABEL).map(String::as_str), Some("standing"));
    let fence = cluster.fence("acme").await;
    assert_eq!(fence.len(), 8, "{fence:?}");
    for (kind, object) in &fence {
        let last = revision(&object.metadata);
        assert!(last < revision(&namespace.metadata), "{} {}: stands before any pod may come in", kind.kind, object.name_any());
    }
    assert_eq!(cluster.api.within::<ResourceQuota>("acme").get(fence::QUOTA).await.unwrap().spec.unwrap().hard.unwrap()["pods"].0, "7");
    cluster.counted("acme").await;
    eventually("a pod comes in", async || pods.create(&PostParams::default(), &cluster.pod()).await.ok()).await;
}

async fn what_others_change_is_repaired_and_what_is_theirs_is_left(cluster: &Cluster) {
    cluster.tenant("drift", json!({ "namespaces": ["drift-1"], "admins": { "users": ["ada"] } })).await;
    cluster.is_onboarded("drift", "True", "FenceStands").await;
    let theirs = [
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "theirs", "namespace": "drift-1" }, "data": { "a": "b" } }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "theirs", "namespace": "drift-1" },
            "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
        }),
    ];
    let mut left = Vec::new();
    for object in &theirs {
        left.push((object.clone(), apply_to(&cluster.api.client, object.clone()).await.resource_version()));
    }
    let standing = cluster.fence("drift-1").await;
    let changes = [
        json!({ "metadata": { "labels": null } }),
        json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": "eve", "ringfence.dev/tenant": "eve" }, "annotations": null } }),
    ];
    let own = |kind: &str| match kind {
        "NetworkPolicy" => json!({ "spec": { "podSelector": { "matchLabels": { "x": "y" } }, "ingress": [{}], "egress": [{}] } }),
        "ResourceQuota" => json!({ "spec": { "hard": { "pods": "1000", "limits.cpu": null } } }),
        "LimitRange" => json!({ "spec": { "limits": [{ "type": "Pod", "max": { "cpu": "1" } }] } }),
        "ConfigMap" => json!({ "data": { "bundle.pem": "EVIL", "more": "x" }, "immutable": true }),
        "RoleBinding" => json!({ "subjects": [{ "kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io" }] }),
        _ => json!({ "automountServiceAccountToken": true }),
    };
    for (kind, before) in &standing {
        let (api, name) = (apply::api_of(&cluster.api.client, kind, Some("drift-1")), before.name_any());
        let is_back = async |change: &str| {
            eventually(&format!("{} {name}: {change}", kind.kind), async || {
                let live = api.get_opt(&name).await.unwrap()?;
                let marked = live.labels() == before.labels() && live.annotations() == before.annotations();
                (marked && live.data == before.data).then_some(())
            })
            .await;
        };
        for change in changes.iter().chain([&own(&kind.kind)]) {
            api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
            is_back(&change.to_string()).await;
        }
        api.delete(&name, &DeleteParams::default()).await.unwrap();
        is_back("deleted").await;
    }
    // A role cannot be changed in a binding: another binding is made under its name.
    let bindings = apply::api_of(&cluster.api.client, &fence::kinds()[5], Some("drift-1"));
    let mut other = bindings.get(ADMIN_ROLE).await.unwrap();
    other.metadata = ObjectMeta { name: Some(ADMIN_ROLE.into()), ..Default::default() };
    other.data["roleRef"]["name"] = "cluster-admin".into();
    eventually("another takes the name", async || {
        let _ = bindings.delete(ADMIN_ROLE, &DeleteParams::default()).await;
        bindings.create(&PostParams::default(), &other).await.ok()
    })
    .await;
    // It is not marked as ours, so that nothing tells of it but its namespace's next event.
    let relabel = json!({ "metadata": { "labels": { "team": "a", "ringfence.dev/pod-security": "none", "ringfence.dev/tenant": null } } });
    cluster.api.all::<Namespace>().patch("drift-1", &PatchParams::default(), &Patch::Merge(&relabel)).await.unwrap();
    eventually("labels and the binding are back", async || {
        let labels = cluster.namespace("drift-1").await.unwrap().labels().clone();
        let binding = bindings.get_opt(ADMIN_ROLE).await.unwrap()?;
        let is_back = labels.get("ringfence.dev/pod-security").is_some_and(|standard| standard == "restricted")
            && labels.get("ringfence.dev/tenant").is_some_and(|tenant| tenant == "drift")
            && binding.data["roleRef"]["name"] == ADMIN_ROLE;
        is_back.then(|| assert_eq!(labels.get("team").map(String::as_str), Some("a")))
    })
    .await;

    cluster.trust.send_replace(TrustText { bundle: "NEXT".into(), config_keys: "KEYS".into() });
    let maps = cluster.api.within::<k8s_openapi::api::core::v1::ConfigMap>("drift-1");
    eventually("the bundle is told", async || {
        let data = maps.get("ringfence-trust").await.unwrap().data.unwrap();
        (data["bundle.pem"] == "NEXT").then_some(())
    })
    .await;
    let inbound = json!({
        "apiVersion": API_VERSION, "kind": "Workload", "metadata": { "name": "drift-api" },
        "spec": { "tenant": "drift", "inbound": [{ "listen": "0.0.0.0:8080", "upstream": "127.0.0.1:80" }] },
    });
    apply_to(&cluster.api.client, inbound).await;
    let policies = cluster.api.within::<NetworkPolicy>("drift-1");
    eventually("its listener is open", async || policies.get_opt("ringfence-inbound-drift-api").await.unwrap()).await;
    cluster.of("Workload").delete("drift-api", &DeleteParams::default()).await.unwrap();
    eventually("and is not", async || policies.get_opt("ringfence-inbound-drift-api").await.unwrap().is_none().then_some(())).await;

    for (object, version) in left {
        let kind = object["kind"].as_str().unwrap();
        let live = match kind {
            "ConfigMap" => maps.get("theirs").await.unwrap().resource_version(),
            _ => policies.get("theirs").await.unwrap().resource_version(),
        };
        assert_eq!(live, version, "{kind}: nobody has touched it");
    }
}

async fn what_the_api_server_refuses_is_told_and_what_stands_is_kept(cluster: &Cluster) {
    let cases = [
        (
            "refused-network",
            "NetworkPolicy",
            network::EGRESS,
            json!({ "egress": { "allow": [{ "name": "web", "hosts": ["a.example"], "ports": [8443] }] } }),
        ),
        ("refused-admins", "RoleBinding", ADMIN_ROLE, json!({ "kubernetes": { "admins": { "users": ["eve"] } } })),
    ];
    for (tenant, ..) in &cases {
        cluster.tenant(tenant, json!({})).await;
        cluster.is_onboarded(tenant, "True", "FenceStands").await;
    }
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "tests-invalid" },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [
                { "apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["networkpolicies"] },
                { "apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["rolebindings"] },
            ] },
            // Answered by 422, as a value is that no schema takes.
            "validations": [{ "expression": "!request.namespace.startsWith('refused-')", "message": "is never right", "reason": "Invalid" }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "tests-invalid" },
        "spec": { "policyName": "tests-invalid", "validationActions": ["Deny"] },
    });
    apply_to(&cluster.api.client, policy).await;
    apply_to(&cluster.api.client, binding).await;
    for (tenant, kind, name, spec) in &cases {
        let kind = fence::kinds().into_iter().find(|known| known.kind == *kind).unwrap();
        let api = apply::api_of(&cluster.api.client, &kind, Some(tenant));
        let change = Patch::Merge(json!({ "metadata": { "annotations": { "a": "b" } } }));
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        eventually("the policy is in force", async || refused(api.patch(name, &dry, &change).await, "is never right")).await;
        let before = api.get(name).await.unwrap();
        cluster.of("Tenant").patch(tenant, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await.unwrap();
        let message = cluster.is_onboarded(tenant, "False", "ApiRefuses").await;
        assert!(message.contains("is never right (422)"), "{message}");
        let after = api.get(name).await.unwrap();
        assert_eq!((after.uid(), after.data), (before.uid(), before.data), "{name}: it stands as it did");
    }
    let bindings = cluster.api.all::<ValidatingAdmissionPolicyBinding>();
    bindings.delete("tests-invalid", &DeleteParams::default()).await.unwrap();
    for (tenant, ..) in &cases {
        cluster.is_onboarded(tenant, "True", "FenceStands").await;
    }
}

async fn a_namespace_is_of_one_tenant(cluster: &Cluster) {
    let uid = cluster.tenant("first", json!({ "namespaces": ["contested"] })).await;
    cluster.is_onboarded("first", "True", "FenceStands").await;
    cluster.tenant("second", json!({ "namespaces": ["second-1", "contested"] })).await;
    let message = cluster.is_onboarded("second", "False", "NamespaceTaken").await;
    assert!(message.contains("\"contested\" stands already") && !message.contains("first"), "{message}");
    assert_eq!(cluster.namespace("contested").await.unwrap().annotations()[TENANT_UID_ANNOTATION], uid);
    assert!(cluster.namespace("second-1").await.is_some(), "the others are its own");

    cluster.api.namespace("plain", json!({ "team": "a" })).await;
    let before = cluster.namespace("plain").await.unwrap();
    cluster.tenant("third", json!({ "namespaces": ["plain"] })).await;
    cluster.is_onboarded("third", "False", "NamespaceTaken").await;
    assert_eq!(cluster.namespace("plain").await.unwrap().resource_version(), before.resource_version());

    // What is no longer listed is closed and kept.
    cluster.tenant("second", json!({ "namespaces": [] })).await;
    cluster.is_onboarded("second", "False", "NamespaceNotListed").await;
    let kept = cluster.namespace("second-1").await.unwrap();
    assert_eq!((kept.labels()[FENCE_LABEL].as_str(), kept.metadata.deletion_timestamp.as_ref()), ("closed", None));
    assert!(!cluster.fence("second-1").await.is_empty());
}

async fn an_operators_workload_stays(cluster: &Cluster) {
    let spec = json!({ "tenant": "own", "dns": { "listen": "127.0.0.1:5353" } });
    let own = json!({ "apiVersion": API_VERSION, "kind": "Workload", "metadata": { "name": "own" }, "spec": spec });
    let before = apply_to(&cluster.api.client, own).await;
    cluster.tenant("own", json!({})).await;
    cluster.is_onboarded("own", "True", "FenceStands").await;
    assert_eq!(cluster.of("Workload").get("own").await.unwrap().resource_version(), before.resource_version());
    let default = cluster.of("Workload").get("acme").await.unwrap();
    assert_eq!(default.data["spec"]["egress"]["capture"], "redirect");
}

async fn rights_end_at_tenants_namespaces(cluster: &Cluster) {
    let client = cluster.api.client_as(OURSELVES);
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(client.clone(), "plain");
    let map = serde_json::from_value(json!({ "metadata": { "name": "x" } })).unwrap();
    assert_eq!(refused(maps.create(&PostParams::default(), &map).await, "writes in tenants' namespaces alone"), Some(()));
    // Where it is itself it could come to a node: no policy of pods holds there.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), SYSTEM);
    let account = serde_json::from_value(json!({ "metadata": { "name": "x" } })).unwrap();
    assert_eq!(refused(accounts.create(&PostParams::default(), &account).await, "writes in tenants' namespaces alone"), Some(()));
    let namespaces = Api::<Namespace>::all(client.clone());
    assert_eq!(refused(namespaces.delete("plain", &DeleteParams::default()).await, "that it has made, and no other"), Some(()));
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(client, "acme");
    assert_eq!(refused(secrets.list(&ListParams::default()).await, "cannot list resource \"secrets\""), Some(()));
}

/// Each case of `references.json` in the namespace of a tenant with nodes of its own; those that nothing is said of are admitted.
async fn nothing_refers_to_what_is_another_tenants(cluster: &Cluster) {
    const NAMESPACE: &str = "pooled";
    cluster.tenant(NAMESPACE, json!({ "nodePool": "gold" })).await;
    cluster.is_onboarded(NAMESPACE, "True", "FenceStands").await;
    cluster.account(NAMESPACE).await;
    cluster.counted(NAMESPACE).await;
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/admission/references.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text.replace("NAMESPACE", NAMESPACE)).unwrap();
    let post = async |case: &Value| -> Result<Value, kube::Error> {
        let request =
            hyper::Request::post(format!("{}?dryRun=All", case["post"].as_str().unwrap())).header("content-type", "application/json");
        cluster.api.client.request(request.body(case["body"].to_string().into_bytes()).unwrap()).await
    };
    // The quota's admission hears of the count a moment later.
    let plain = cases.iter().find(|case| case["case"] == "a pod that says nothing of nodes").unwrap();
    eventually("pods come in", async || post(plain).await.ok()).await;
    for case in &cases {
        let outcome = post(case).await;
        match case["says"].as_str() {
            Some(says) => assert_eq!(refused(outcome, says), Some(()), "{case}"),
            None => {
                let object = outcome.unwrap_or_else(|error| panic!("{}: {error}", case["case"]));
                if object["kind"] == "Pod" {
                    let tolerated = |t: &&Value| t["key"] == "ringfence.dev/node-pool" && t["value"] == "gold";
                    assert_eq!(object["spec"]["nodeSelector"]["ringfence.dev/node-pool"], "gold", "{case}");
                    assert_eq!(object["spec"]["tolerations"].as_array().unwrap().iter().filter(tolerated).count(), 1, "{case}");
                }
            }
        }
    }
    assert!(cases.len() > 20, "{}", cases.len());
}

async fn pods_go_before_the_fence_and_a_new_tenant_is_another(cluster: &Cluster) {
    let pods = cluster.api.within::<Pod>("acme");
    let hold = json!({ "metadata": { "finalizers": ["tests.example/hold"] } });
    pods.patch("web", &PatchParams::default(), &Patch::Merge(&hold)).await.unwrap();
    // On a node that is not there, and with a day to end since its own tenant has deleted it.
    let mut slow = cluster.pod();
    slow.metadata.name = Some("slow".into());
    slow.spec.as_mut().unwrap().node_name = Some("n1".into());
    slow.spec.as_mut().unwrap().termination_grace_period_seconds = Some(86_400);
    pods.create(&PostParams::default(), &slow).await.unwrap();
    pods.delete("slow", &DeleteParams::default()).await.unwrap();
    assert_eq!(pods.get("slow").await.unwrap().metadata.deletion_grace_period_seconds, Some(86_400));
    let first = cluster.of("Tenant").get("acme").await.unwrap().uid();
    cluster.of("Tenant").delete("acme", &DeleteParams::default()).await.unwrap();

    eventually("the pod is told to go", async || pods.get("web").await.unwrap().metadata.deletion_timestamp).await;
    let namespace = cluster.namespace("acme").await.unwrap();
    assert_eq!((namespace.labels()[FENCE_LABEL].as_str(), namespace.metadata.deletion_timestamp.as_ref()), ("closed", None));
    assert_eq!(cluster.fence("acme").await.len(), 8, "it ends behind its fence");
    let mut another = cluster.pod();
    another.metadata.name = Some("another".into());
    assert_eq!(refused(pods.create(&PostParams::default(), &another).await, "does not stand"), Some(()));
    let hard = cluster.api.within::<ResourceQuota>("acme").get(fence::QUOTA).await.unwrap().spec.unwrap().hard.unwrap();
    assert_eq!(hard["pods"].0, "0");

    eventually("a grace that has begun is shortened", async || {
        let slow = pods.get("slow").await.unwrap();
        (slow.metadata.deletion_grace_period_seconds == Some(60)).then_some(())
    })
    .await;
    let message = cluster.is_onboarded("acme", "False", "PodsStay").await;
    assert!(message.contains("acme/slow, acme/web"), "{message}");
    pods.delete("slow", &DeleteParams::default().grace_period(0)).await.unwrap();

    let release = json!({ "metadata": { "finalizers": null } });
    pods.patch("web", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    eventually("the namespace is told to go", async || cluster.namespace("acme").await.unwrap().metadata.deletion_timestamp).await;
    assert!(cluster.of("Tenant").get_opt("acme").await.unwrap().is_some(), "it waits for its namespaces");
    cluster.finalize("acme").await;
    eventually("the Tenant is gone", async || cluster.of("Tenant").get_opt("acme").await.unwrap().is_none().then_some(())).await;
    assert!(cluster.of("Workload").get_opt("acme").await.unwrap().is_none());

    let second = cluster.tenant("acme", json!({})).await;
    assert_ne!(Some(&second), first.as_ref());
    cluster.is_onboarded("acme", "True", "FenceStands").await;
    assert_eq!(cluster.namespace("acme").await.unwrap().annotations()[TENANT_UID_ANNOTATION], second);
}
