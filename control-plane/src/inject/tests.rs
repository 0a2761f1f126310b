mod corpus;
mod decisions;
mod manifests;
mod pods;
mod properties;
mod pss;
mod reviews;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    review::{self, Asked},
    *,
};

const ACME: Place<'static> = Place { namespace: "team-a", tenant: "acme" };

pub(super) fn settings(capture: Capture) -> Settings {
    Settings {
        image: "registry.example/ringfence-proxy:1".into(),
        control_plane: "10.96.0.10:15010".into(),
        trust_domain: "ringfence.internal".parse().unwrap(),
        capture,
        resolvers: vec!["10.96.0.53:53".parse().unwrap()],
        resources: Resources::default(),
        cluster_domain: "cluster.local".into(),
    }
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

/// A pod of one container, with these fields in its spec besides.
fn plain(fields: Value) -> Value {
    let mut pod = pod(json!({"containers": [{"name": "a", "image": "a"}]}));
    pod["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    pod
}

/// What the webhook answers; `Err`: nothing but an HTTP error.
fn answered(body: &[u8], tenant: Result<&str, &str>, capture: Capture) -> Result<Value, String> {
    match review::read(body) {
        Asked::Create(create) => Ok(match tenant {
            Ok(tenant) => create.answer(tenant, &settings(capture)),
            Err(why) => create.refused(why),
        }),
        Asked::Answered(answer) => Ok(answer),
        Asked::Junk(why) => Err(why),
    }
}

/// What an API server makes of an answer that allows.
fn patched(pod: &Value, answer: &Value) -> Value {
    let mut patched = pod.clone();
    if let Some(patch) = answer["response"]["patch"].as_str() {
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        let patch: json_patch::Patch = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
        json_patch::patch(&mut patched, &patch).unwrap();
    }
    patched
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|item| item["name"].as_str().unwrap()).collect()
}
