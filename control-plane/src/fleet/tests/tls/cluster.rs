//! Sidecars that prove by a real API server who they are, and replicas that share what they vouch by.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::{
    apiserver::ApiServer,
    names::{AUTHORITY_SECRET, CONFIG_KEY_SECRET, TENANT_LABEL, TOKEN_AUDIENCE, WORKLOAD_LABEL},
    secret::{SecretError, SharedSecret},
    trust::{self, TrustText},
};

const SYSTEM: &str = "ringfence-system";

struct Replica {
    served: Secured,
    text: watch::Receiver<TrustText>,
}

/// Serves acme's `acme` and `api`, globex's `other`, and `shared`.
async fn replica(api: &ApiServer) -> Replica {
    let (fleet, _) = Fleet::new();
    let config = TrustConfig { trust_domain: DOMAIN.parse().unwrap(), svid_ttl: DEFAULT_SVID_TTL, given: None };
    let keys = trust::sign(&api.client, SYSTEM, &fleet).await.unwrap();
    let vouching = trust::vouch(&api.client, SYSTEM, &config, &fleet, keys).await.unwrap();
    fleet.publish(upserts(vec![
        dedicated("acme", "acme"),
        dedicated("api", "acme"),
        dedicated("other", "globex"),
        workload("shared", &["*"]),
    ]));
    fleet.publish(upserts(vec![tenant("acme", 1), tenant("globex", 2)]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(ads::serve_tls(fleet.clone(), vouching.trust.clone(), listener));
    let served = Secured { fleet, trust: vouching.trust, address, _dir: tempfile::tempdir().unwrap() };
    Replica { served, text: vouching.text }
}

impl Replica {
    /// What a sidecar with this token is answered, over a connection as `svid` or as nobody.
    async fn prove(&self, svid: Option<&Svid>, token: Option<String>) -> Result<Svid, Status> {
        let channel = self.served.connect(svid).await.map_err(Status::aborted)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let answer = issue(&channel, request_of(&key, token.map(Proof::ServiceAccountToken))).await?;
        Ok(svid_of(&key, &answer))
    }

    fn sequence(&self) -> u64 {
        self.served.trust.status().sequence
    }
}

async fn cluster() -> Option<ApiServer> {
    let api = ApiServer::start().await?;
    api.namespace(SYSTEM, json!({})).await;
    for tenant in ["acme", "globex"] {
        api.tenant(tenant, tenant, None).await;
    }
    api.tenant("acme", "forerunners", Some("another")).await;
    api.namespace("nobodys", json!({ "team": "acme" })).await;
    Some(api)
}

async fn delete(api: &ApiServer, namespace: &str, pod: &str) {
    let pods = api.within::<Pod>(namespace);
    pods.delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    soon("the pod is gone", async { while pods.get_opt(pod).await.unwrap().is_some() {} }).await;
}

/// The same with other claims, and signed again.
fn signed_anew(token: &str, edit: impl FnOnce(&mut Value), key: &[u8]) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    edit(&mut claims);
    let header = Header { kid: jsonwebtoken::decode_header(token).unwrap().kid, ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(key)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_token_is_its_sidecars_proof_and_nothing_else_is() {
    let Some(mut api) = cluster().await else { return };
    let replica = replica(&api).await;
    let ours = [TOKEN_AUDIENCE];
    let (own, named) = (api.pod("acme", "own", json!({})).await, api.pod("acme", "named", json!({ WORKLOAD_LABEL: "api" })).await);
    let token = api.token("acme", &ours, Some(&own)).await;
    for (token, workload) in [(token.clone(), "acme"), (api.token("acme", &ours, Some(&named)).await, "api")] {
        let svid = replica.prove(None, Some(token)).await.unwrap();
        assert_eq!(svid.id, id(&format!("/tenant/acme/workload/{workload}")));
        let (_channel, mut sidecar) = replica.served.sidecar(&svid, request(workload, Kind::Tenant, &["acme"])).await.unwrap();
        assert_eq!(sidecar.told().await, [("acme".into(), 1)]);
    }
    // It is good again: a sidecar whose SVID has expired recovers by it.
    let svid = replica.prove(None, Some(token.clone())).await.unwrap();
    let renewed = replica.prove(Some(&svid), Some(token.clone())).await.unwrap();
    assert_eq!(renewed.id, svid.id);

    let pod = |name: &'static str, namespace: &'static str, labels: Value| {
        let api = &api;
        async move {
            let pod = api.pod(namespace, name, labels).await;
            api.token(namespace, &ours, Some(&pod)).await
        }
    };
    let (gone, remade) = (pod("gone", "acme", json!({})).await, pod("remade", "acme", json!({})).await);
    delete(&api, "acme", "gone").await;
    delete(&api, "acme", "remade").await;
    api.pod("acme", "remade", json!({})).await;
    let done = pod("done", "acme", json!({})).await;
    let phase = Patch::Merge(json!({ "status": { "phase": "Succeeded" } }));
    api.within::<Pod>("acme").patch_status("done", &PatchParams::default(), &phase).await.unwrap();
    let past = |claims: &mut Value| {
        for (claim, ago) in [("iat", 7200), ("nbf", 7200), ("exp", 3600)] {
            claims[claim] = json!(since_epoch().as_secs() - ago);
        }
    };
    let strangers = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
    let cases = [
        ("for another audience", api.token("acme", &["vault"], Some(&own)).await),
        ("for the API server", api.token("acme", &[], Some(&own)).await),
        ("bound to nothing", api.token("acme", &ours, None).await),
        ("of a pod that is gone", gone),
        ("of a pod that was made anew", remade),
        ("of a pod that is done", done),
        ("of a namespace of nobody's", pod("nobody", "nobodys", json!({ TENANT_LABEL: "acme", WORKLOAD_LABEL: "api" })).await),
        ("of a namespace that an earlier Tenant of the name has left", pod("left", "forerunners", json!({})).await),
        ("of a pod that claims another tenant's Workload", pod("thief", "globex", json!({ WORKLOAD_LABEL: "api" })).await),
        ("of a pod that claims a shared Workload", pod("sharer", "acme", json!({ WORKLOAD_LABEL: "shared" })).await),
        ("of a pod that claims what there is not", pod("dreamer", "acme", json!({ WORKLOAD_LABEL: "absent" })).await),
        ("of a pod whose tenant has no Workload of its name", pod("early", "globex", json!({})).await),
        ("expired", signed_anew(&token, past, &api.signing_key)),
        ("a stranger's", signed_anew(&token, |_| {}, &strangers)),
        ("of letters", "a.b.c".into()),
        ("no token", "s3cret".into()),
        ("empty", String::new()),
    ];
    let mut told = std::collections::HashSet::new();
    for (what, token) in cases {
        let status = replica.prove(None, Some(token)).await.expect_err(what);
        assert_eq!(status.code(), Code::Unauthenticated, "{what}");
        told.insert(status.message().to_owned());
    }
    assert_eq!(told.len(), 1, "one answer for all: {told:?}");
    assert!(replica.prove(None, Some(signed_anew(&token, |_| {}, &api.signing_key))).await.is_ok(), "what is signed anew is a token");

    // A stolen SVID is renewed for nobody: neither without the token, nor after the pod.
    assert_eq!(replica.prove(Some(&renewed), None).await.unwrap_err().code(), Code::Unauthenticated);
    delete(&api, "acme", "own").await;
    assert_eq!(replica.prove(Some(&renewed), Some(token)).await.unwrap_err().code(), Code::Unauthenticated);

    // While the API server is away, who has an SVID goes on with it, and who has none waits.
    let token = api.token("acme", &ours, Some(&named)).await;
    let svid = replica.prove(None, Some(token.clone())).await.unwrap();
    api.stop();
    assert_eq!(replica.prove(Some(&svid), Some(token.clone())).await.unwrap().id, svid.id);
    assert_eq!(replica.prove(None, Some(token.clone())).await.unwrap_err().code(), Code::Unavailable);
    api.resume().await;
    assert!(replica.prove(None, Some(token)).await.is_ok());
}

/// Waits for something that watches bring.
async fn comes(what: &str, mut is_there: impl FnMut() -> bool) {
    soon(what, async {
        while !is_there() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_vouch_by_one_authority_through_its_rotation() {
    let Some(api) = cluster().await else { return };
    // Of two that found nothing one is first, and the other knows.
    let secret = SharedSecret::new(&api.client, SYSTEM, "first");
    assert!(secret.create([]).await.is_ok());
    assert!(matches!(secret.create([]).await, Err(SecretError::Raced { .. })));
    let [mine, theirs] = [(); 2].map(|()| secret.read());
    let (mut mine, mut theirs) = (mine.await.unwrap().unwrap(), theirs.await.unwrap().unwrap());
    mine.set("key", b"mine".to_vec());
    theirs.set("key", b"theirs".to_vec());
    assert!(secret.replace(&mine).await.is_ok());
    assert!(matches!(secret.replace(&theirs).await, Err(SecretError::Raced { .. })));
    let (first, second) = tokio::join!(replica(&api), replica(&api));
    assert_eq!(first.served.bundle(), second.served.bundle());
    assert_eq!(*first.text.borrow(), *second.text.borrow());
    let pod = api.pod("acme", "own", json!({})).await;
    let token = api.token("acme", &[TOKEN_AUDIENCE], Some(&pod)).await;
    let svid = first.prove(None, Some(token.clone())).await.unwrap();
    second.served.sidecar(&svid, request("acme", Kind::Tenant, &["acme"])).await.unwrap();
    assert!(second.prove(Some(&svid), Some(token.clone())).await.is_ok(), "it goes on at either");

    let now = since_epoch();
    first.served.trust.rotate(now).await.unwrap();
    comes("the bundle", || second.sequence() == 2).await;
    assert!(second.served.trust.rotate(now).await.unwrap_err().to_string().contains("under way"));
    comes("the text", || second.text.borrow().bundle == first.text.borrow().bundle).await;
    assert_eq!(second.text.borrow().bundle.matches("BEGIN CERTIFICATE").count(), 2);
    // None of them knows whether all sidecars have it: whoever comes first after the wait begins the overlap, for both.
    first.served.trust.step(now).await.unwrap();
    let phases = |replica: &Replica| replica.served.trust.status().authorities;
    assert!(matches!(phases(&first)[..], [Phase::Issuing, Phase::Announced { .. }]));
    // Certificates are backdated by as much: they are good already.
    let late = now + Duration::from_secs(60);
    let (one, other) = tokio::join!(first.served.trust.step(late), second.served.trust.step(late));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    comes("the overlap", || phases(&first) == phases(&second) && matches!(phases(&first)[..], [Phase::Retiring { .. }, Phase::Issuing]))
        .await;
    let renewed = second.prove(Some(&svid), Some(token)).await.unwrap();
    second.served.trust.finish(now).await.unwrap();
    comes("the end of the old one", || first.sequence() == 3).await;
    first.served.sidecar(&renewed, request("acme", Kind::Tenant, &["acme"])).await.unwrap();
    assert!(first.served.sidecar(&svid, request("acme", Kind::Tenant, &["acme"])).await.is_err());

    // The Secret is brought back, not made anew: every sidecar would have to be.
    let secrets = api.within::<Secret>(SYSTEM);
    let before = secrets.get(AUTHORITY_SECRET).await.unwrap().data;
    secrets.delete(AUTHORITY_SECRET, &DeleteParams::default()).await.unwrap();
    soon("the Secret", async { while secrets.get_opt(AUTHORITY_SECRET).await.unwrap().is_none_or(|secret| secret.data != before) {} })
        .await;
    // One that starts finds what the others have.
    assert_eq!(replica(&api).await.served.bundle(), first.served.bundle());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_signs_is_later_than_what_another_did() {
    let Some(api) = cluster().await else { return };
    // An earlier one had a clock that was an hour ahead.
    let ahead = u64::try_from((since_epoch() + Duration::from_secs(3600)).as_millis()).unwrap();
    drop(replica(&api).await);
    let annotation = Patch::Merge(json!({ "metadata": { "annotations": { "ringfence.dev/config-epoch": ahead.to_string() } } }));
    api.within::<Secret>(SYSTEM).patch(CONFIG_KEY_SECRET, &PatchParams::default(), &annotation).await.unwrap();
    let (first, second) = (replica(&api).await, replica(&api).await);
    let publish = |replica: &Replica, in_flight: u32| {
        replica.served.fleet.publish(upserts(vec![tenant("acme", in_flight)]));
        let resources = replica.served.fleet.resources();
        resources.iter().find(|resource| resource.kind == Kind::Tenant && &*resource.name == "acme").unwrap().epoch().unwrap()
    };
    let mut last = ahead;
    for (round, replica) in [(10, &first), (20, &second), (30, &first), (40, &second)] {
        let mut epoch = publish(replica, round);
        // As soon as it has heard of the other's.
        comes("a later epoch", || {
            epoch = publish(replica, round);
            epoch > last
        })
        .await;
        last = epoch;
    }
    let keys = |replica: &Replica| replica.text.borrow().config_keys.clone();
    assert_eq!(keys(&first), keys(&second));
}
