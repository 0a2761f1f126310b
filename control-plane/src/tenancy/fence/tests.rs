use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::{
    kubernetes::trust::TrustText,
    spec::{PlatformSpec, TenantSpec, WorkloadSpec},
    tenancy::{
        claim::{Serving, platform_egress, tenant_policy},
        terms::Terms,
    },
};

/// The objects of namespace `acme-1` of the tenant `acme`, by kind and name, in their order.
fn fence(tenant: Value, platform: Value, workloads: &[(&str, Value)], peers: &[&str]) -> Vec<(String, Value)> {
    let mut spec = json!({"identity": [{"issuer": "dev"}]});
    spec.as_object_mut().unwrap().extend(tenant.as_object().unwrap().clone());
    let spec: TenantSpec = serde_json::from_value(spec).unwrap();
    let platform: PlatformSpec = serde_json::from_value(platform).unwrap();
    let workloads: Vec<(&str, WorkloadSpec)> =
        workloads.iter().map(|(name, spec)| (*name, serde_json::from_value(spec.clone()).unwrap())).collect();
    let trust = TrustText { bundle: "BUNDLE".into(), config_keys: "KEYS".into() };
    let claim = Claim {
        terms: Terms::read("acme", spec.kubernetes.as_deref(), platform.kubernetes.as_ref()).unwrap(),
        peers: peers.to_vec(),
        workloads: workloads.iter().map(|(name, spec)| Serving::new(name, spec)).collect(),
        ..claim(&trust)
    };
    let policy = tenant_policy("acme", &spec, peers).unwrap();
    let egress = network::egress(&policy, &platform_egress("platform", &platform).unwrap());
    let mut objects = vec![quota(&claim, "acme-1", Gate::Open).unwrap()];
    objects.extend(children(&claim, "acme-1", Some(egress)).unwrap());
    let shown = |child: &Child| (format!("{} {}", child.kind.kind, child.name()), serde_json::to_value(&child.object).unwrap());
    objects.iter().map(shown).collect()
}

/// Of a tenant that says nothing.
fn claim(trust: &TrustText) -> Claim<'_> {
    Claim {
        name: "acme",
        uid: "u-1",
        terms: Terms::read("acme", None, None).unwrap(),
        peers: Vec::new(),
        workloads: Vec::new(),
        system_namespace: "ringfence-system",
        pods_capture: true,
        trust,
    }
}

#[test]
fn the_default_workload_listens_where_pods_are_led() {
    let trust = TrustText { bundle: "BUNDLE".into(), config_keys: "KEYS".into() };
    for (pods_capture, egress, dns) in [
        (true, json!({"listen": "127.0.0.1:15001", "capture": "redirect"}), json!({"listen": "127.0.0.1:15053"})),
        // resolv.conf(5) names no port.
        (false, json!({"listen": "127.0.0.1:15001", "capture": "none"}), json!({"listen": "127.0.0.1:53"})),
    ] {
        let workload = default_workload(&Claim { pods_capture, ..claim(&trust) });
        assert_eq!((&workload["spec"]["egress"], &workload["spec"]["dns"]), (&egress, &dns));
    }
}

fn of<'a>(objects: &'a [(String, Value)], name: &str) -> &'a Value {
    &objects.iter().find(|(shown, _)| shown == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn what_denies_stands_first_and_everything_is_marked() {
    let objects = fence(json!({}), json!({}), &[], &[]);
    let names: Vec<&str> = objects.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "ResourceQuota ringfence-quota",
            "NetworkPolicy ringfence-default-deny",
            "NetworkPolicy ringfence-infrastructure",
            "NetworkPolicy ringfence-egress",
            "LimitRange ringfence-defaults",
            "ConfigMap ringfence-trust",
            "ServiceAccount ringfence-tenant-admin",
            "RoleBinding ringfence-tenant-admin",
        ]
    );
    for (name, object) in &objects {
        let meta = &object["metadata"];
        assert_eq!(meta["namespace"], "acme-1", "{name}");
        assert_eq!(meta["labels"], json!({"app.kubernetes.io/managed-by": "ringfence", "ringfence.dev/tenant": "acme"}), "{name}");
        assert_eq!(meta["annotations"], json!({"ringfence.dev/tenant-uid": "u-1"}), "{name}");
        assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{name}: server-side apply needs both");
    }
    let kinds: BTreeSet<String> = kinds().iter().map(|kind| kind.kind.clone()).collect();
    let made: BTreeSet<String> = names.iter().map(|name| name.split_once(' ').unwrap().0.to_owned()).collect();
    assert_eq!(kinds, made, "what is made is watched");
}

#[test]
fn objects_say_what_the_spec_says() {
    let spec = json!({"kubernetes": {
        "quota": {"cpu": "8", "memory": "32Gi", "pods": 20, "storage": "1Ti", "gpus": 2},
        "containerDefaults": {"cpu": "100m", "memory": "64Mi"},
        "admins": {"users": ["ada"], "groups": ["acme-ops"]},
    }});
    let objects = fence(spec, json!({"kubernetes": {"maxQuota": {"gpus": 1}}}), &[], &[]);
    for (name, field, wanted) in [
        (
            "ResourceQuota ringfence-quota",
            "/spec/hard",
            json!({
                "requests.cpu": "8", "limits.cpu": "8", "requests.memory": "32Gi", "limits.memory": "32Gi", "pods": "20",
                "requests.storage": "1Ti", "requests.nvidia.com/gpu": "1",
            }),
        ),
        ("NetworkPolicy ringfence-default-deny", "/spec", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        ("NetworkPolicy ringfence-egress", "/spec", json!({"podSelector": {}, "policyTypes": ["Egress"]})),
        (
            "LimitRange ringfence-defaults",
            "/spec/limits",
            json!([{
                "type": "Container",
                "default": {"cpu": "100m", "memory": "64Mi"}, "defaultRequest": {"cpu": "100m", "memory": "64Mi"},
            }]),
        ),
        ("ConfigMap ringfence-trust", "/data", json!({"bundle.pem": "BUNDLE", "config-keys.pem": "KEYS"})),
        (
            "RoleBinding ringfence-tenant-admin",
            "/subjects",
            json!([
                {"kind": "User", "name": "ada", "apiGroup": "rbac.authorization.k8s.io"},
                {"kind": "Group", "name": "acme-ops", "apiGroup": "rbac.authorization.k8s.io"},
                {"kind": "ServiceAccount", "name": "ringfence-tenant-admin", "namespace": "acme-1"},
            ]),
        ),
        (
            "NetworkPolicy ringfence-infrastructure",
            "/spec/egress",
            json!([
                {
                    "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ringfence-system"}}}],
                    "ports": [{"port": 15010, "protocol": "TCP"}],
                },
                {
                    "to": [{
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                    }],
                    "ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                },
            ]),
        ),
    ] {
        assert_eq!(of(&objects, name).pointer(field), Some(&wanted), "{name}{field}");
    }
}

/// (rules, platform's egress, wanted blocks as `CIDR ports`, wanted exceptions, exceptions that must not be there)
#[test]
fn egress_leads_where_its_rules_could() {
    let private = json!({"dangerousAllowPrivate": ["10.96.0.0/12"], "deny": {"cidrs": ["10.96.0.0/24", "192.0.4.0/24"]}});
    for (rules, platform, wanted, except, not_except) in [
        (json!([]), json!({}), "", &[] as &[&str], &[] as &[&str]),
        (
            json!([{"name": "web", "hosts": ["a.example"], "ports": [443, 8443]}]),
            json!({}),
            "0.0.0.0/0 443,8443 2000::/3 443,8443",
            &["10.0.0.0/8", "169.254.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "168.63.129.16/32", "2002::/16"],
            &["fc00::/7"],
        ),
        (
            json!([{"name": "in-the-cluster", "hosts": ["vault.platform.svc"], "protocol": "http", "ports": [8200]}]),
            private.clone(),
            "0.0.0.0/0 8200 2000::/3 8200 10.96.0.0/12 8200",
            &["10.96.0.0/24", "192.0.4.0/24", "10.0.0.0/8"],
            &[],
        ),
        (
            json!([{"name": "db", "cidrs": ["10.20.0.0/16"], "ports": [5432], "protocol": "tcp"}]),
            json!({}),
            "10.20.0.0/16 5432",
            &[],
            &["10.0.0.0/8"],
        ),
        (
            json!([{"name": "denied", "cidrs": ["10.96.0.0/26", "8.8.8.8/32"], "ports": [53], "protocol": "tcp"}]),
            private,
            "8.8.8.8/32 53",
            &[],
            &["10.96.0.0/24"],
        ),
        (
            json!([{"name": "all-denied", "cidrs": ["192.0.4.0/23"], "ports": [53], "protocol": "tcp"}]),
            json!({"deny": {"cidrs": ["192.0.4.0/24", "192.0.5.0/24"]}}),
            "",
            &[],
            &[],
        ),
        (
            json!([{"name": "a", "hosts": ["a.example"]}, {"name": "b", "hosts": ["b.example"]}]),
            json!({}),
            "0.0.0.0/0 443 2000::/3 443",
            &[],
            &[],
        ),
    ] {
        let objects = fence(json!({"egress": {"allow": rules}}), json!({"egress": platform}), &[], &[]);
        let spec = &of(&objects, "NetworkPolicy ringfence-egress")["spec"];
        let (mut blocks, mut exceptions) = (Vec::new(), BTreeSet::new());
        for rule in spec["egress"].as_array().into_iter().flatten() {
            let ports: Vec<String> = rule["ports"].as_array().unwrap().iter().map(|port| port["port"].to_string()).collect();
            for to in rule["to"].as_array().unwrap() {
                blocks.push(format!("{} {}", to["ipBlock"]["cidr"].as_str().unwrap(), ports.join(",")));
                exceptions.extend(to["ipBlock"]["except"].as_array().into_iter().flatten().map(|e| e.as_str().unwrap().to_owned()));
            }
        }
        assert_eq!(blocks.join(" "), wanted, "{rules}");
        for wanted in except {
            assert!(exceptions.contains(*wanted), "{rules}: {wanted} not in {exceptions:?}");
        }
        for other in not_except {
            assert!(!exceptions.contains(*other), "{rules}: {other} in {exceptions:?}");
        }
    }
}

#[test]
fn shadow_rules_close_no_port() {
    let spec = json!({"egress": {"mode": "shadow", "allow": [{"name": "web", "hosts": ["a.example"]}]}});
    let objects = fence(spec, json!({}), &[], &[]);
    let rules = &of(&objects, "NetworkPolicy ringfence-egress")["spec"]["egress"];
    assert_eq!(rules.as_array().unwrap().len(), 1);
    assert_eq!(rules[0]["ports"], Value::Null);
    assert_eq!(rules[0]["to"][0]["ipBlock"]["cidr"], "0.0.0.0/0");
}

#[test]
fn listeners_are_open_to_the_tenant_to_those_named_and_over_mtls_to_its_peers() {
    let workloads = [
        ("acme", json!({"tenant": "acme", "inbound": [{"listen": "0.0.0.0:8080", "upstream": "127.0.0.1:80"}]})),
        (
            "api",
            json!({"tenant": "acme", "inbound": [
                {"listen": "0.0.0.0:8443", "upstream": "127.0.0.1:80", "mtls": true},
                {"listen": "127.0.0.1:9000", "upstream": "127.0.0.1:80"},
            ], "dns": {"listen": "127.0.0.1:15053", "upstreams": ["udp://192.0.2.53", "tls://192.0.2.54#dns.example"]}}),
        ),
        ("inside", json!({"tenant": "acme", "inbound": [{"listen": "127.0.0.1:9000", "upstream": "127.0.0.1:80"}]})),
    ];
    let spec = json!({"peers": ["globex"], "kubernetes": {"ingressFrom": ["ingress-nginx"]}});
    let objects = fence(spec, json!({}), &workloads, &["globex"]);
    let own = json!({"namespaceSelector": {"matchLabels": {"ringfence.dev/tenant": "acme"}}});
    let named = json!({"namespaceSelector": {"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["ingress-nginx"]},
    ]}});
    let peers =
        json!({"namespaceSelector": {"matchExpressions": [{"key": "ringfence.dev/tenant", "operator": "In", "values": ["globex"]}]}});
    let port = |number: u16| json!([{"port": number, "protocol": "TCP"}]);
    for (name, selector, ingress) in [
        (
            "NetworkPolicy ringfence-inbound",
            json!({"matchExpressions": [{"key": "ringfence.dev/workload", "operator": "DoesNotExist"}]}),
            json!([{"from": [own, named], "ports": port(8080)}]),
        ),
        (
            "NetworkPolicy ringfence-inbound-acme",
            json!({"matchLabels": {"ringfence.dev/workload": "acme"}}),
            json!([{"from": [own, named], "ports": port(8080)}]),
        ),
        (
            "NetworkPolicy ringfence-inbound-api",
            json!({"matchLabels": {"ringfence.dev/workload": "api"}}),
            json!([{"from": [own, named, peers], "ports": port(8443)}]),
        ),
    ] {
        let spec = &of(&objects, name)["spec"];
        assert_eq!(*spec, json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": ingress}), "{name}");
    }
    let inbound = objects.iter().filter(|(name, _)| name.contains("ringfence-inbound")).count();
    assert_eq!(inbound, 3, "nobody but the pod itself reaches a loopback listener");
    let infrastructure = &of(&objects, "NetworkPolicy ringfence-infrastructure")["spec"]["egress"];
    assert_eq!(
        infrastructure.as_array().unwrap()[2..],
        [
            json!({"to": [{"ipBlock": {"cidr": "192.0.2.53/32"}}], "ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
            json!({"to": [{"ipBlock": {"cidr": "192.0.2.54/32"}}], "ports": [{"port": 853, "protocol": "TCP"}]}),
        ]
    );
}
