//! AdmissionReview v1: what the API server asks, and what it is answered. Pods stay raw JSON: a field that we do not know of is not ours to drop.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{Place, Settings, inject, patch};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// HTTP's codes, as the author's client is told them.
const FORBIDDEN: u16 = 403;
const BAD_REQUEST: u16 = 400;

/// Longest JSON of a pod that is looked into. Parsed it takes a hundred times as much at worst; the largest that anybody has sent us has 20 KiB.
const MAX_POD_BYTES: usize = 256 * 1024;

/// Who is answered, whatever else there is.
#[derive(Deserialize)]
struct Asker {
    request: AskerRequest,
}

#[derive(Deserialize)]
struct AskerRequest {
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    request: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    operation: String,
    resource: Resource,
    sub_resource: Option<String>,
    namespace: Option<String>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Resource {
    group: String,
    version: String,
    resource: String,
}

/// A request that is about the creation of a pod, or its answer already.
pub(super) enum Asked<'a> {
    Create(Create<'a>),
    /// Nothing to be done, or nothing that can be.
    Answered(Value),
    /// Nobody could be answered: not even the request's name can be read.
    Junk(String),
}

pub(super) struct Create<'a> {
    uid: String,
    pub(super) namespace: String,
    /// Not parsed yet.
    pod: &'a str,
}

/// Holds no more than `body` does.
pub(super) fn read(body: &[u8]) -> Asked<'_> {
    let uid = match serde_json::from_slice::<Asker>(body) {
        Ok(Asker { request: AskerRequest { uid } }) if !uid.is_empty() => uid,
        Ok(_) => return Asked::Junk("this is no AdmissionReview: request.uid is empty".into()),
        Err(error) => return Asked::Junk(format!("this is no AdmissionReview: {error}")),
    };
    let refused = |why: String| Asked::Answered(refuse(&uid, BAD_REQUEST, &why));
    let review: Review<'_> = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return refused(format!("this is no AdmissionReview: {error}")),
    };
    if review.kind != KIND || review.api_version != API_VERSION {
        return refused(format!("ringfence answers {API_VERSION} {KIND}, not {} {}", review.api_version, review.kind));
    }
    let request: Request<'_> = match serde_json::from_str(review.request.get()) {
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
    let pod = object.map(RawValue::get);
    match (namespace.filter(|namespace| !namespace.is_empty()), pod) {
        (None, _) => refused("request.namespace is missing".into()),
        (_, None) => refused("request.object is missing".into()),
        (_, Some(pod)) if pod.len() > MAX_POD_BYTES => {
            let why =
                format!("ringfence: the pod is {} bytes of JSON, and must be at most {MAX_POD_BYTES}: keep data in a ConfigMap", pod.len());
            Asked::Answered(refuse(&uid, FORBIDDEN, &why))
        }
        (Some(namespace), Some(pod)) => Asked::Create(Create { uid, namespace, pod }),
    }
}

impl Create<'_> {
    /// Why there can be no sidecar, whatever the pod is.
    pub(super) fn refused(&self, why: &str) -> Value {
        refuse(&self.uid, FORBIDDEN, &format!("ringfence: {why}"))
    }

    /// `tenant`: the namespace's.
    pub(super) fn answer(&self, tenant: &str, settings: &Settings) -> Value {
        let pod: Value = match serde_json::from_str(self.pod) {
            Ok(pod) => pod,
            Err(error) => return refuse(&self.uid, BAD_REQUEST, &format!("request.object: {error}")),
        };
        let injected = match inject(&pod, Place { namespace: &self.namespace, tenant }, settings) {
            Ok(injected) => injected,
            Err(denial) => return self.refused(&denial.to_string()),
        };
        let operations = patch::of_spec(&pod, &injected.pod);
        let mut answer = allow(&self.uid);
        let response = &mut answer["response"];
        if !injected.warnings.is_empty() {
            response["warnings"] = injected.warnings.into();
        }
        if !operations.is_empty() {
            let Ok(patch) = serde_json::to_vec(&operations) else { return self.refused("the patch cannot be written") };
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch).into();
        }
        answer
    }
}

fn allow(uid: &str) -> Value {
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": {"uid": uid, "allowed": true}})
}

fn refuse(uid: &str, code: u16, message: &str) -> Value {
    let status = json!({"status": "Failure", "code": code, "message": message});
    json!({"apiVersion": API_VERSION, "kind": KIND, "response": {"uid": uid, "allowed": false, "status": status}})
}
