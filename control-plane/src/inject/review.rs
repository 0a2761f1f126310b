//! AdmissionReview v1: what the API server asks, and what it is answered. Pods stay raw JSON: a field that we do not know of is not ours to drop.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Denial, Place, Settings, inject, patch};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// HTTP's codes, as the author's client is told them.
const FORBIDDEN: u16 = 403;
const BAD_REQUEST: u16 = 400;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    operation: String,
    resource: Resource,
    sub_resource: Option<String>,
    namespace: Option<String>,
    object: Option<Value>,
}

#[derive(Deserialize)]
struct Resource {
    group: String,
    version: String,
    resource: String,
}

/// A request that is about the creation of a pod, or its answer already.
pub(super) enum Asked {
    Create(Create),
    /// Nothing to be done, or nothing that can be.
    Answered(Value),
    /// Nobody could be answered: not even the request's name can be read.
    Junk(String),
}

pub(super) struct Create {
    uid: String,
    pub(super) namespace: String,
    pod: Value,
}

pub(super) fn read(body: &[u8]) -> Asked {
    let review: Value = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return Asked::Junk(format!("this is no AdmissionReview: {error}")),
    };
    let uid = review.pointer("/request/uid").and_then(Value::as_str).filter(|uid| !uid.is_empty()).map(str::to_owned);
    let Some(uid) = uid else { return Asked::Junk("this is no AdmissionReview: request.uid is missing".into()) };
    let refused = |why: String| Asked::Answered(refuse(&uid, BAD_REQUEST, &why));
    let review = match Review::deserialize(review) {
        Ok(review) => review,
        Err(error) => return refused(format!("this is no AdmissionReview: {error}")),
    };
    if review.kind != KIND || review.api_version != API_VERSION {
        return refused(format!("ringfence answers {API_VERSION} {KIND}, not {} {}", review.api_version, review.kind));
    }
    let request = match Request::deserialize(review.request) {
        Ok(request) => request,
        Err(error) => return refused(format!("request: {error}")),
    };
    let Request { operation, resource, sub_resource, namespace, object } = request;
    let Resource { group, version, resource } = resource;
    if (group.as_str(), version.as_str(), resource.as_str()) != ("", "v1", "pods") {
        return refused(format!("ringfence injects v1 pods, and is asked about {group}/{version} {resource}"));
    }
    match (operation.as_str(), sub_resource.as_deref().unwrap_or_default()) {
        ("CREATE", "") => {}
        // A pod that runs gets no sidecar; what is done to it is for the admission policies.
        ("CREATE" | "UPDATE" | "DELETE" | "CONNECT", _) => return Asked::Answered(allow(&uid)),
        (operation, _) => return refused(format!("request.operation: {operation:?} is not known")),
    }
    match (namespace.filter(|namespace| !namespace.is_empty()), object) {
        (Some(namespace), Some(pod)) => Asked::Create(Create { uid, namespace, pod }),
        (None, _) => refused("request.namespace is missing".into()),
        (_, None) => refused("request.object is missing".into()),
    }
}

impl Create {
    /// `tenant`: the namespace's; or why it has none.
    pub(super) fn answer(&self, tenant: Result<&str, &str>, settings: &Settings) -> Value {
        let place = match tenant {
            Ok(tenant) => Place { namespace: &self.namespace, tenant },
            Err(why) => return refuse(&self.uid, FORBIDDEN, &format!("ringfence: {why}")),
        };
        let injected = match inject(&self.pod, place, settings) {
            Ok(injected) => injected,
            Err(denial) => return self.denied(&denial),
        };
        let operations = patch::of_spec(&self.pod, &injected.pod);
        let mut answer = allow(&self.uid);
        let response = &mut answer["response"];
        if !injected.warnings.is_empty() {
            response["warnings"] = injected.warnings.into();
        }
        if !operations.is_empty() {
            let Ok(patch) = serde_json::to_vec(&operations) else {
                return refuse(&self.uid, FORBIDDEN, "ringfence: the patch cannot be written");
            };
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch).into();
        }
        answer
    }

    fn denied(&self, denial: &Denial) -> Value {
        refuse(&self.uid, FORBIDDEN, &format!("ringfence: {denial}"))
    }
}

fn allow(uid: &str) -> Value {
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": {"uid": uid, "allowed": true}})
}

fn refuse(uid: &str, code: u16, message: &str) -> Value {
    let status = json!({"status": "Failure", "code": code, "message": message});
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": {"uid": uid, "allowed": false, "status": status}})
}
