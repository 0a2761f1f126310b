use std::collections::{HashMap, HashSet};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use ringfence_policy::{
    identify::{
        IssuerPolicy,
        keys::{Algorithm, KeySet},
    },
    scope::ScopePolicy,
    tenant::WorkloadPolicy,
};
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::config::learn::Question;

const NOW: u64 = 1_800_000_000;

fn issuer(pair: &Ed25519KeyPair) -> Arc<IssuerPolicy> {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }).to_string();
    Arc::new(IssuerPolicy {
        name: "dev".parse().unwrap(),
        issuer: "https://idp.test/".into(),
        audiences: vec!["api".into()],
        keys: KeySet::parse(jwks.as_bytes(), &[Algorithm::EdDsa]).unwrap().0,
        tenant_claim: vec!["org".into()],
        clock_skew: 0,
    })
}

/// The field of a request with a token of `org`.
fn headers(pair: &Ed25519KeyPair, org: &str) -> HeaderMap {
    signed(pair, json!({ "alg": "EdDSA" }), org)
}

fn with_kid(pair: &Ed25519KeyPair, kid: &str) -> HeaderMap {
    signed(pair, json!({ "alg": "EdDSA", "kid": kid }), "acme")
}

fn signed(pair: &Ed25519KeyPair, header: serde_json::Value, org: &str) -> HeaderMap {
    let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({ "iss": "https://idp.test/", "aud": "api", "exp": NOW + 60, "org": org });
    let input = format!("{}.{}", encode(header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes()));
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {input}.{signature}")).unwrap())])
}

/// Of a workload that serves any tenant and knows `tenants`, each under its own name.
fn snapshot(generation: u64, issuer: Arc<IssuerPolicy>, tenants: &[&str]) -> Arc<Snapshot> {
    let tenant = |name: &str| TenantPolicy {
        id: name.parse().unwrap(),
        identities: Vec::new(),
        limits: Vec::new(),
        in_flight: None,
        inbound: ScopePolicy::Everywhere,
        peers: Default::default(),
        egress: Default::default(),
        dns: Default::default(),
    };
    let values: HashMap<_, _> = tenants.iter().map(|name| (name.to_string(), name.parse().unwrap())).collect();
    Arc::new(Snapshot {
        generation,
        identity_generation: generation,
        workload: Arc::new(WorkloadPolicy {
            name: "shared".parse().unwrap(),
            tenants: ServedTenants::Any,
            issuers: [issuer.name.clone()].into(),
            inbound: Vec::new(),
            outbound: None,
            dns: None,
        }),
        platform: Default::default(),
        trust: None,
        tenants: tenants.iter().map(|name| (name.parse().unwrap(), Arc::new(tenant(name)))).collect(),
        bindings: HashMap::from([(issuer.name.clone(), values)]),
        issuers: vec![issuer],
        versions: Vec::new(),
        zones: Some(Default::default()),
        budget: Default::default(),
    })
}

struct Stage {
    identify: Identify,
    current: Arc<Current>,
    questions: mpsc::Receiver<Question>,
}

impl Stage {
    fn new() -> Self {
        let (learner, questions) = Learner::new();
        let current = Arc::new(Current::default());
        let identify = Identify::new(learner, Default::default(), current.clone(), Default::default());
        Self { identify, current, questions }
    }
}

#[tokio::test]
async fn a_learnt_tenants_token_is_judged_by_the_policy_that_knows_it() {
    let (old, new) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    for (keys_then, expected) in [(&old, Ok("acme")), (&new, Err(Reason::TokenSignature))] {
        let Stage { identify, current, mut questions } = Stage::new();
        let headers = headers(&old, "acme");
        let before = snapshot(1, issuer(&old), &[]);
        let learnt = async {
            let Some(Question::Tenant { value, answer, .. }) = questions.recv().await else { panic!("it asks for the tenant") };
            assert_eq!(value, "acme");
            current.swap(snapshot(2, issuer(keys_then), &["acme"]));
            answer.send(Learnt::Known).unwrap();
        };
        let (identified, ()) = tokio::join!(identify.identify(&headers, &before, NOW), learnt);
        let verdict = identified.as_ref().map(|identified| identified.tenant.id.as_str()).map_err(|deny| deny.reason);
        assert_eq!(verdict, expected);
    }
}

#[tokio::test]
async fn a_remembered_token_dies_with_its_keys_and_its_time() {
    let (old, new) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let Stage { identify, .. } = Stage::new();
    let headers = headers(&old, "acme");
    for (generation, keys, now, expected) in [
        (1, &old, NOW, None),
        (1, &old, NOW + 59, None),
        (1, &old, NOW + 60, Some(Reason::TokenExpired)),
        (2, &new, NOW, Some(Reason::TokenSignature)),
        (3, &old, NOW, None),
    ] {
        let snapshot = snapshot(generation, issuer(keys), &["acme"]);
        let refused = identify.identify(&headers, &snapshot, now).await.err().map(|deny| deny.reason);
        assert_eq!(refused, expected, "generation {generation} at {now}");
    }
}

#[tokio::test]
async fn a_remembered_tokens_tenant_is_the_one_of_each_policy_and_used_in_each_sweep() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let Stage { identify, .. } = Stage::new();
    let (headers, issuer) = (headers(&pair, "acme"), issuer(&pair));
    let acme = HashSet::from(["acme".parse().unwrap()]);
    for (generation, in_flight) in [(1, Some(1)), (1, Some(1)), (2, Some(2)), (3, None)] {
        let mut snapshot = Arc::into_inner(snapshot(generation, issuer.clone(), &["acme"])).unwrap();
        // The same identities, so that the token stays the remembered one.
        snapshot.identity_generation = 1;
        for tenant in snapshot.tenants.values_mut() {
            Arc::get_mut(tenant).unwrap().in_flight = in_flight;
        }
        let snapshot = Arc::new(snapshot);
        for _ in 0..2 {
            let identified = identify.identify(&headers, &snapshot, NOW).await.unwrap();
            assert_eq!(identified.tenant.in_flight, in_flight, "generation {generation}");
        }
        assert_eq!(identify.used.take(), acme, "generation {generation}");
    }
    assert!(identify.used.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_nobody_asks_once_a_second_and_once_a_policy() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let Stage { identify, mut questions, .. } = Stage::new();
    let headers = headers(&pair, "ghost");
    let issuer = issuer(&pair);
    for (generation, now, is_asked) in [(1, NOW, true), (1, NOW, false), (1, NOW + 1, true), (2, NOW + 1, true), (2, NOW + 1, false)] {
        // The same identities, so that the token stays the remembered one.
        let mut snapshot = Arc::into_inner(snapshot(generation, issuer.clone(), &[])).unwrap();
        snapshot.identity_generation = 1;
        let snapshot = Arc::new(snapshot);
        let answer = async {
            let asked = timeout(Duration::from_secs(1), questions.recv()).await;
            assert_eq!(asked.is_ok(), is_asked, "generation {generation} at {now}");
            if let Ok(Some(Question::Tenant { answer, .. })) = asked {
                answer.send(Learnt::Unknown).unwrap();
            }
        };
        let (refused, ()) = tokio::join!(identify.identify(&headers, &snapshot, now), answer);
        assert_eq!(refused.unwrap_err().reason, Reason::TenantUnknown);
    }
}

#[tokio::test]
async fn made_up_keys_ask_once_a_second() {
    let (held, made_up) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let Stage { identify, mut questions, .. } = Stage::new();
    let headers = with_kid(&made_up, "made-up");
    let snapshot = snapshot(1, issuer(&held), &["acme"]);
    for (now, is_asked) in [(NOW, true), (NOW, false), (NOW, false), (NOW + 1, true)] {
        let deny = identify.identify(&headers, &snapshot, now).await.unwrap_err();
        assert_eq!(deny.reason, Reason::TokenKey);
        assert_eq!(questions.try_recv().is_ok(), is_asked, "at {now}");
    }
}
