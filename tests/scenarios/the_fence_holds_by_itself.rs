//! What the chart's admission policies refuse, the API server refuses by itself: nobody of ours runs here. Asked by one who may everything,
//! so that a refusal is a policy's and not RBAC's. The cases stand in `data/admission`.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use ringfence_tests::{
    KubeApi,
    binaries::binary,
    chart, eventually,
    http::{self, Reply},
    kubernetes::program,
    process::Process,
};
use serde_json::{Map, Value, json};

/// Of whom the policies know who they are, by request.
const USERS: [(&str, &str, &str); 3] = [
    ("somebody", "platform-admin", "system:masters"),
    ("controller", "system:serviceaccount:ringfence-system:ringfence-control-plane", "system:masters"),
    // May what the node authorizer lets it.
    ("node", "system:node:n1", "system:nodes"),
];

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn data(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(repository("tests/data/admission").join(name)).unwrap()).unwrap()
}

/// A table's rows, which have these fields and no others: one that is misspelt would test nothing.
fn cases(name: &str, fields: &[&str]) -> Vec<Map<String, Value>> {
    let Value::Array(rows) = data(name) else { panic!("{name} is no list") };
    let rows = rows.into_iter().map(|row| if let Value::Object(row) = row { row } else { panic!("{row}") });
    let known = |row: &Map<String, Value>| row.keys().all(|field| fields.contains(&field.as_str()));
    rows.inspect(|row| assert!(known(row), "{row:?}")).collect()
}

fn text<'a>(case: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    case.get(field).map(|value| value.as_str().unwrap_or_else(|| panic!("{field} of {case:?} is no text")))
}

/// What the chart comes to with one of its examples of values.
fn template(api: &KubeApi, values: Option<&str>) -> String {
    let file = values.map(|name| chart::folder().join("examples").join(name).display().to_string());
    let more: Vec<&str> = file.iter().flat_map(|file| ["--values", file]).collect();
    chart::template(api.admin(), &more)
}

/// A cluster with the chart, and what speaks HTTP with it.
struct Fenced {
    api: KubeApi,
    proxy: Process,
    address: SocketAddr,
}

impl Fenced {
    fn start() -> Option<Self> {
        let api = KubeApi::start()?;
        api.namespace(chart::NAMESPACE);
        api.admin().apply(&template(&api, None));
        let mut command = Command::new(program("kubectl").unwrap());
        // Whoever gets there may everything, for as long as this test lasts.
        command.args(["proxy", "--port=0", "--disable-filter"]).env("KUBECONFIG", &api.admin().kubeconfig).stdin(Stdio::null());
        let mut proxy = Process::start(&mut command);
        let line = proxy.line(|line| line.starts_with("Starting to serve on "));
        let address = line.rsplit(' ').next().unwrap().parse().unwrap();
        Some(Self { api, proxy, address })
    }

    /// As the onboarding controller makes one.
    fn tenant(&self, namespace: &str, standard: &str) {
        let labels =
            json!({ "ringfence.dev/tenant": namespace, "ringfence.dev/fence": "standing", "ringfence.dev/pod-security": standard });
        let uid = json!({ "ringfence.dev/tenant-uid": "0c5b3f6e" });
        let body = json!({ "metadata": { "name": namespace, "labels": labels, "annotations": uid } });
        let reply = self.ask("controller", "POST /api/v1/namespaces", Some(&body));
        assert_eq!(reply.status, 201, "{}", reply.text());
        let account = format!("GET /api/v1/namespaces/{namespace}/serviceaccounts/default");
        eventually("the service account is made", || (self.ask("somebody", &account, None).status == 200).then_some(()));
    }

    /// `request`: method and target. `by`: of [`USERS`], or a user's name.
    fn ask(&self, by: &str, request: &str, body: Option<&Value>) -> Reply {
        let (method, target) = request.split_once(' ').unwrap();
        let (_, user, group) = USERS.into_iter().find(|(name, ..)| *name == by).unwrap_or((by, by, "system:masters"));
        let kind = match method {
            "PATCH" if body.is_some_and(merges_by_name) => "application/strategic-merge-patch+json",
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = body.map(|body| body.to_string().into());
        let request = http::post(self.address, target, http::frames(body, None)).method(method);
        request.header("content-type", kind).header("impersonate-user", user).header("impersonate-group", group).send()
    }

    /// Takes the webhook away, which refuses every pod as long as nobody answers for it: the policies are to hold alone.
    fn without_webhook(&self, pod: &Value) {
        let make = |pod: &Value| self.ask("somebody", "POST /api/v1/namespaces/acme/pods?dryRun=All", Some(pod)).text();
        eventually("the API server asks the webhook", || {
            make(pod).contains("failed calling webhook \\\"injector.ringfence.dev\\\"").then_some(())
        });
        self.api.admin().ok(["delete", "mutatingwebhookconfiguration", "ringfence-injector"]);
        // The API server comes to know policies and bindings one after the other: these are the last by their names and by their files.
        let last = [
            ("ringfence-trust", "somebody", "POST /api/v1/namespaces/acme/configmaps?dryRun=All"),
            ("ringfence-webhook", "controller", "POST /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?dryRun=All"),
        ];
        for (policy, by, request) in last {
            let object = json!({ "metadata": { "name": policy } });
            eventually("the policies are in force", || {
                self.ask(by, request, Some(&object)).text().contains(&format!("{policy}' with binding")).then_some(())
            });
        }
    }
}

/// Containers are told apart by their names there.
fn merges_by_name(patch: &Value) -> bool {
    ["containers", "initContainers", "ephemeralContainers"].iter().any(|list| !patch["spec"][list].is_null())
}

/// The pod as the webhook's own code writes it.
fn injected() -> Value {
    let plain = repository("tests/data/admission/plain.json");
    let mut command = Command::new(binary("ringfence"));
    command
        .args(["inject", "--tenant", "acme", "--inject-image", "localhost:5000/ringfence/proxy:0.1.0"])
        .args(["--inject-resolver", "10.96.0.10", "-o", "json", "--file"])
        .arg(plain);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Sets `field` of `object`, a pointer whose last part may be `-`; `None`: takes it away.
fn change(object: &mut Value, field: &str, value: Option<&Value>) {
    let (parent, key) = field.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/");
    // What is not there yet is made by way of the index.
    let parent = parent.split('/').skip(1).fold(object, |object, key| match object {
        Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
        object => &mut object[key.replace("~1", "/")],
    });
    match (parent, value) {
        (Value::Array(items), Some(value)) if key == "-" => items.push(value.clone()),
        (Value::Array(items), Some(value)) => items[key.parse::<usize>().unwrap()] = value.clone(),
        (Value::Array(items), None) => drop(items.remove(key.parse().unwrap())),
        (parent, Some(value)) => parent[&key] = value.clone(),
        (parent, None) => assert!(parent.as_object_mut().unwrap().remove(&key).is_some(), "there is no {field}"),
    }
}

/// What is wrong with an answer; `None`: nothing.
fn judge(case: &Map<String, Value>, reply: &Reply) -> Option<String> {
    let message = reply.json().and_then(|status| Some(status["message"].as_str()?.to_owned())).unwrap_or_else(|| reply.text());
    let says = text(case, "says").is_none_or(|says| message.contains(says));
    let is_right = match text(case, "policy") {
        Some(policy) => message.contains(&format!("ValidatingAdmissionPolicy '{policy}'")) && says,
        None if case.contains_key("says") => says && !message.contains("ValidatingAdmissionPolicy"),
        None => (200..300).contains(&reply.status),
    };
    (!is_right).then(|| format!("{}: {} {message}", text(case, "case").unwrap(), reply.status))
}

#[test]
fn pods_that_get_past_their_sidecar_are_not_admitted() {
    let Some(fenced) = Fenced::start() else { return };
    fenced.tenant("acme", "restricted");
    fenced.tenant("globex", "baseline");
    let pod = injected();
    fenced.without_webhook(&pod);

    let cases = cases("pods.json", &["case", "set", "unset", "standard", "policy", "says"]);
    let mut faults = Vec::new();
    for case in &cases {
        let mut pod = pod.clone();
        for field in case.get("unset").and_then(Value::as_array).into_iter().flatten() {
            change(&mut pod, field.as_str().unwrap(), None);
        }
        for (field, value) in case.get("set").and_then(Value::as_object).into_iter().flatten() {
            change(&mut pod, field, Some(value));
        }
        let reply = fenced.ask("somebody", "POST /api/v1/namespaces/acme/pods?dryRun=All", Some(&pod));
        faults.extend(judge(case, &reply));
        if case.contains_key("standard") {
            // What the restricted standard alone refuses. The bootstrap names the namespace's tenant.
            let pod = pod
                .to_string()
                .replace(r#""namespace":"acme""#, r#""namespace":"globex""#)
                .replace(r#"\"workload\":\"acme\""#, r#"\"workload\":\"globex\""#);
            let reply = fenced.ask("somebody", "POST /api/v1/namespaces/globex/pods?dryRun=All", serde_json::from_str(&pod).ok().as_ref());
            faults.extend((reply.status != 201).then(|| format!("under baseline: {}: {}", text(case, "case").unwrap(), reply.text())));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_the_fence_is_made_of_is_changed_by_its_controller_alone() {
    let Some(fenced) = Fenced::start() else { return };
    fenced.tenant("acme", "restricted");
    let pod = injected();
    fenced.without_webhook(&pod);
    let owned = json!({ "app.kubernetes.io/managed-by": "ringfence" });
    let made = [
        (
            "networking.k8s.io/v1/namespaces/acme/networkpolicies",
            json!({ "metadata": { "name": "fence", "labels": owned }, "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] } }),
        ),
        (
            "v1/namespaces/acme/resourcequotas",
            json!({ "metadata": { "name": "quota", "labels": owned }, "spec": { "hard": { "services": "5" } } }),
        ),
        ("v1/nodes", json!({ "metadata": { "name": "n1" } })),
        ("v1/namespaces/acme/pods", pod),
    ];
    let mut uid = String::new();
    for (kind, object) in made {
        // The controller's rights are not its own here: nodes and pods are somebody's.
        let by = if kind.ends_with("nodes") || kind.ends_with("pods") { "somebody" } else { "controller" };
        let group = if kind.contains('.') { "apis" } else { "api" };
        let reply = fenced.ask(by, &format!("POST /{group}/{kind}"), Some(&object));
        assert_eq!(reply.status, 201, "{kind}: {}", reply.text());
        uid = reply.json().unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    }

    let mut faults = Vec::new();
    for case in &cases("requests.json", &["case", "by", "do", "body", "policy", "says"]) {
        let body = case.get("body").map(|body| serde_json::from_str(&body.to_string().replace("$UID", &uid)).unwrap());
        let reply = fenced.ask(text(case, "by").unwrap_or("somebody"), text(case, "do").unwrap(), body.as_ref());
        faults.extend(judge(case, &reply));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_chart_is_taken_with_every_example_of_values() {
    let Some(fenced) = Fenced::start() else { return };
    let mut examples: Vec<_> =
        fs::read_dir(repository("charts/ringfence/examples")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    examples.sort();
    assert_eq!(examples.len(), 3, "{examples:?}");
    let chart = repository("charts/ringfence").display().to_string();
    for name in examples.iter().map(|name| name.to_str().unwrap()) {
        let file = repository("charts/ringfence/examples").join(name).display().to_string();
        let lint = fenced.api.admin().helm(["lint", "--strict", "--kube-version", "1.34.0", "--values", &file, &chart]);
        assert!(lint.status.success(), "{name}: {}", String::from_utf8_lossy(&lint.stdout));
        // Over what stands: an upgrade.
        fenced.api.admin().apply(&template(&fenced.api, Some(name)));
    }
    let wrong = fenced.api.admin().helm(["template", "x", &chart, "--kube-version", "1.34.0", "--set", "admission.tier=none"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("'tier' not allowed"), "{wrong:?}");
    drop(fenced.proxy);
}

#[test]
fn the_clusters_dns_is_found_where_the_values_do_not_name_it() {
    let Some(api) = KubeApi::start() else { return };
    let named = |more: &[&str]| {
        let chart = chart::template(api.admin(), &[&["--dry-run=server"], more].concat());
        let lines = chart.lines().filter(|line| line.contains("--inject-resolver=") || line.contains(r#""resolvers\":["#));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let [unchecked] = &named(&[])[..] else { panic!("{:?}", named(&[])) };
    assert!(unchecked.contains(r#"contains('\"resolvers\":[\"'))"#), "whichever the webhook names: {unchecked}");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "kube-system", "name": "kube-dns" },
        "spec": { "ports": [{ "port": 53, "protocol": "UDP" }] },
    });
    api.admin().apply(&service.to_string());
    let service = api.admin().get(["-n", "kube-system", "service", "kube-dns"]);
    let found = service["spec"]["clusterIP"].as_str().unwrap();
    for (more, address) in [(&[][..], found), (&["--set", "injection.clusterDns={192.0.2.53}"], "192.0.2.53")] {
        let [argument, check] = &named(more)[..] else { panic!("{:?}", named(more)) };
        assert!(argument.ends_with(&format!("--inject-resolver={address}:53")), "{argument}");
        assert!(check.contains(&format!(r#"\"resolvers\":[\"{address}:53\"]"#)), "{check}");
    }
}
