//! The cluster that these scenarios have in common, and what its tenants run.

use std::{net::IpAddr, process::Output};

use ringfence_tests::{
    Node, Site, Upstream, chart, eventually,
    kubernetes::User,
    node::RunningPod,
    site::{object, tenant},
    token,
};
use serde_json::{Value, json};

/// What the allowed name leads to. Public, as far as anybody in here can tell.
pub(super) const ALLOWED: &str = "93.184.216.34";
/// Public too, and in no rule.
pub(super) const FOREIGN: &str = "45.33.32.156";
/// The one egress rule of either tenant.
pub(super) const PLAIN: &str = "{ name: plain, hosts: [allowed.test, blocked.test], ports: [80], protocol: http }";
pub(super) const INBOUND: u16 = 18080;
/// Of the tenant's containers.
const USER: u32 = 10_001;

// Ended in this order.
pub(super) struct Cluster {
    pub(super) control_planes: Vec<RunningPod>,
    pub(super) site: Site,
    pub(super) allowed: Upstream,
    pub(super) foreign: Upstream,
    pub(super) node: Node,
}

impl Cluster {
    /// With the chart, two replicas of the control plane that serve, and two tenants onboarded by them. `None`: see [`Node::start`].
    pub(super) fn start() -> Option<Self> {
        let node = Node::start()?;
        let upstream = |address: &str, name: &str| {
            let address: IpAddr = address.parse().unwrap();
            node.address(address);
            node.dns.set(name, &[&address.to_string()]);
            Upstream::on(node.listen(address, 80), None)
        };
        let (allowed, foreign) = (upstream(ALLOWED, "allowed.test"), upstream(FOREIGN, "foreign.test"));
        node.dns.set("blocked.test", &[ALLOWED]);
        node.api.namespace(chart::NAMESPACE);
        node.api.admin().apply(&chart::template::<&str>(node.api.admin(), &[]));
        let mut cluster = Self { control_planes: Vec::new(), site: Site::new(), allowed, foreign, node };
        cluster.start_control_planes();
        cluster.onboard();
        Some(cluster)
    }

    pub(super) fn admin(&self) -> &User {
        self.node.api.admin()
    }

    /// The pods that the Deployment came to.
    fn start_control_planes(&mut self) {
        let pods = eventually("the Deployment has made its pods", || {
            let list = self.admin().get(["-n", chart::NAMESPACE, "pods", "-l", "app.kubernetes.io/component=control-plane"]);
            Some(list["items"].as_array().unwrap().clone()).filter(|pods| pods.len() == 2)
        });
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            self.control_planes.push(self.node.run(chart::NAMESPACE, name));
        }
        self.node.serve(chart::NAMESPACE, "ringfence-control-plane", &self.control_planes);
    }

    fn onboard(&self) {
        let keys = token::jwks(&[&self.site.key]);
        let issuer = format!(
            "{{ issuer: {:?}, audiences: [{:?}], algorithms: [ES256], tenantClaim: org, clockSkew: 0s, jwks: {{ inline: {keys} }} }}",
            token::ISSUER,
            token::AUDIENCE
        );
        let zone = "{ inline: \"$TTL 60\\n@ SOA localhost. root.localhost. 1 60 60 600 60\\n@ NS localhost.\\nblocked.test CNAME .\\n\" }";
        let objects = [
            object("Issuer", "sso", &issuer),
            object("PolicyZone", "malware", zone),
            object("Platform", "platform", "{ dns: { zones: [malware] } }"),
            tenant("acme", &terms("alice", PLAIN)),
            tenant("globex", &terms("bob", PLAIN)),
            workload("acme"),
            workload("globex"),
        ];
        self.admin().apply(&objects.join("---\n"));
        for tenant in ["acme", "globex"] {
            self.admin().ok(["wait", "--for=condition=Onboarded", &format!("tenant/{tenant}"), "--timeout=120s"]);
        }
    }

    /// A pod of the tenant's, made by its own admin, injected by the webhook and run.
    #[track_caller]
    pub(super) fn app(&self, tenant: &str, admin: &User) -> RunningPod {
        let made = eventually("the API server believes the webhook", || {
            let output = admin.feed(["-n", tenant, "create", "-o", "json", "-f", "-"], &pod().to_string());
            created(output)
        });
        self.node.run(tenant, made["metadata"]["name"].as_str().unwrap())
    }
}

/// What a command in a container printed, either way.
pub(super) fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// `None`: nobody answers for the webhook yet.
#[track_caller]
fn created(output: Output) -> Option<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("failed calling webhook"), "{said}");
    serde_json::from_slice(&output.stdout).ok()
}

/// Fields of a Tenant's spec. `rules`: of `egress.allow`.
pub(super) fn terms(admin: &str, rules: &str) -> String {
    format!("kubernetes: {{ admins: {{ users: [{admin}] }} }}, egress: {{ allow: [{rules}] }}")
}

fn workload(tenant: &str) -> String {
    let spec = format!(
        "{{ tenant: {tenant}, inbound: [{{ listen: \"0.0.0.0:{INBOUND}\", upstream: \"127.0.0.1:8080\" }}], \
         egress: {{ listen: \"127.0.0.1:15001\", capture: redirect }}, dns: {{ listen: \"127.0.0.1:15053\" }} }}"
    );
    object("Workload", tenant, &spec)
}

/// As the restricted standard wants it; its program serves its directory on loopback.
fn pod() -> Value {
    let ready = "import socket; socket.create_connection(('127.0.0.1', 8080))";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "generateName": "app-" },
        "spec": {
            "securityContext": { "runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "app", "image": "app.test/app",
                "command": ["/usr/bin/python3", "-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", "/tmp"],
                "readinessProbe": { "exec": { "command": ["/usr/bin/python3", "-c", ready] } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}
