use http_body_util::BodyExt;
use ringfence_xds::{
    decode::{Decoded, decode},
    generated::{
        discovery::{DeltaDiscoveryRequest, Node},
        resource as proto,
    },
    resource::{Kind, Resource},
};
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    admin::roles::Role,
    compile::Delta,
    fleet::{Bound, Fleet},
    quickstart::DevKey,
};
use parking_lot::Mutex;

const ISSUER: &str = "https://staff.test/";

struct Served {
    state: State,
    key: DevKey,
    _connected: Vec<crate::fleet::Session>,
}

fn workload(name: &str, tenants: &[&str]) -> Resource {
    let (tenant, tenants) = match tenants {
        [tenant] => ((*tenant).to_owned(), Vec::new()),
        several => (String::new(), several.iter().map(|tenant| (*tenant).into()).collect()),
    };
    Resource::new(name, &proto::Workload { tenant, tenants, ..proto::Workload::default() })
}

fn issuer(key: &DevKey) -> Arc<IssuerPolicy> {
    let body = proto::Issuer {
        issuer: ISSUER.into(),
        audiences: vec!["ringfence".into()],
        algorithms: vec!["ES256".into()],
        jwks: key.jwks().unwrap().into(),
        tenant_claim: "none".into(),
        clock_skew: String::new(),
    };
    let resource = Resource::new("staff", &body);
    match decode(Kind::Issuer, "staff", &resource.bytes).unwrap() {
        Decoded::Issuer(issuer) => issuer,
        _ => unreachable!(),
    }
}

impl Served {
    /// Sidecars of acme, of globex and of a workload that both share are connected.
    fn new() -> Self {
        let key = DevKey::generate().unwrap();
        let (fleet, _) = Fleet::new();
        let tenant = |name: &str| Resource::new(name, &proto::Tenant::default());
        let upserts = vec![
            tenant("acme"),
            tenant("globex"),
            workload("acme-api", &["acme"]),
            workload("globex-api", &["globex"]),
            workload("shared", &["acme", "globex"]),
        ];
        fleet.publish(Delta { upserts, removed: Vec::new() });
        let connect = |name: &str| {
            let node = Some(Node { id: name.into(), ..Node::default() });
            let request = DeltaDiscoveryRequest { node, type_url: Kind::Workload.type_url().into(), ..DeltaDiscoveryRequest::default() };
            fleet.open(&Bound::Workload(name.into()), &request).unwrap()
        };
        let connected = ["acme-api", "globex-api", "shared"].map(connect).into();
        let operator = |subject: &str, role| Operator { issuer: "staff".into(), subject: subject.into(), role };
        let operators = vec![
            operator("alice", Role::PlatformAdmin),
            operator("victor", Role::Viewer),
            operator("tess", Role::TenantAdmin("acme".parse().unwrap())),
        ];
        let operators = Arc::new(ArcSwap::from_pointee(Operators { issuers: vec![issuer(&key)], operators }));
        let faults = Arc::new(Mutex::new(BTreeSet::from(["globex.yaml:1:1: Tenant/globex: a fault".to_owned()])));
        Self { state: State { running: Running { fleet, faults, trust: None }, operators }, key, _connected: connected }
    }

    fn token(&self, subject: &str, edit: impl FnOnce(&mut Map<String, Value>)) -> String {
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
        let Value::Object(mut claims) = json!({ "iss": ISSUER, "aud": "ringfence", "sub": subject, "exp": expires }) else {
            unreachable!()
        };
        edit(&mut claims);
        format!("Bearer {}", self.key.sign(&claims).unwrap())
    }

    fn ask(&self, authorization: Option<&str>, method: Method, path: &str) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let response = self.state.answer(&request.body(()).unwrap());
        let status = response.status().as_u16();
        let body = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(response.into_body().collect()).unwrap();
        (status, String::from_utf8(body.to_bytes().into()).unwrap())
    }
}

#[test]
fn each_role_at_each_endpoint() {
    let served = Served::new();
    let [alice, victor, tess, nobody] = ["alice", "victor", "tess", "nobody"].map(|subject| served.token(subject, |_| {}));
    let callers = [Some(alice.as_str()), Some(&victor), Some(&tess), Some(&nobody), None];
    for (path, wanted) in [
        ("/healthz", [200, 200, 200, 200, 200]),
        ("/status", [200, 200, 200, 401, 401]),
        ("/metrics", [200, 200, 404, 401, 401]),
        ("/resources/acme-api", [200, 404, 200, 401, 401]),
        ("/resources/globex-api", [200, 404, 404, 401, 401]),
        // It tells of globex too.
        ("/resources/shared", [200, 404, 404, 401, 401]),
        ("/resources/no-such", [404, 404, 404, 401, 401]),
        ("/join", [404, 404, 404, 401, 401]),
        ("/", [404, 404, 404, 401, 401]),
    ] {
        assert_eq!(callers.map(|caller| served.ask(caller, Method::GET, path).0), wanted, "{path}");
    }
    assert_eq!(served.ask(Some(&alice), Method::POST, "/status").0, 405);
    assert_eq!(served.ask(None, Method::POST, "/status").0, 401);
}

#[test]
fn a_tenants_admin_is_told_of_no_other_tenant() {
    let served = Served::new();
    let tess = served.token("tess", |_| {});
    for path in ["/status", "/resources/acme-api"] {
        let (_, told) = served.ask(Some(&tess), Method::GET, path);
        assert!(told.contains("acme") && !told.contains("globex") && !told.contains("shared"), "{told}");
    }
    // What there is of others is answered as what there is not.
    assert_eq!(served.ask(Some(&tess), Method::GET, "/resources/globex-api"), served.ask(Some(&tess), Method::GET, "/resources/no-such"));
    let (_, all) = served.ask(Some(&served.token("alice", |_| {})), Method::GET, "/status");
    assert!(all.contains("globex-api") && all.contains("a fault"), "{all}");
    let (_, metrics) = served.ask(Some(&served.token("victor", |_| {})), Method::GET, "/metrics");
    assert!(metrics.contains("ringfence_fleet_resources{kind=\"Tenant\"} 2") && !metrics.contains("acme"), "{metrics}");
    assert!(metrics.contains("ringfence_fleet_sidecars{state=\"behind\"} 3"), "{metrics}");
}

#[test]
fn who_is_no_operator_is_told_nothing() {
    let served = Served::new();
    let edited = |edit: fn(&mut Map<String, Value>)| served.token("alice", edit);
    let other_key = format!("Bearer {}", DevKey::generate().unwrap().sign(&Map::new()).unwrap());
    for (what, authorization) in [
        ("another audience", edited(|claims| drop(claims.insert("aud".into(), "api".into())))),
        ("another issuer", edited(|claims| drop(claims.insert("iss".into(), "https://dev.test/".into())))),
        ("expired", edited(|claims| drop(claims.insert("exp".into(), 1.into())))),
        ("no subject", edited(|claims| drop(claims.remove("sub")))),
        ("another key", other_key),
        ("Basic", "Basic YWxpY2U6".into()),
        ("nothing", "Bearer ".into()),
        ("too much", format!("Bearer {}", "a".repeat(100_000))),
    ] {
        for path in ["/status", "/metrics", "/resources/acme-api", "/no-such"] {
            assert_eq!(served.ask(Some(&authorization), Method::GET, path), (401, String::new()), "{what} {path}");
        }
    }
    // Who was an operator is none from the next request on.
    let alice = edited(|_| {});
    assert_eq!(served.ask(Some(&alice), Method::GET, "/status").0, 200);
    served.state.operators.store(Arc::default());
    assert_eq!(served.ask(Some(&alice), Method::GET, "/status").0, 401);
}
