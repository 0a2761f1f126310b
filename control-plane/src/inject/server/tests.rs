use std::convert::Infallible;

use kube::client::Body as ApiBody;
use serde_json::json;
use tower::service_fn;

use super::*;
use crate::inject::tests::settings;

/// Of an API server that has the namespaces `team-a`, which is acme's, and `plain`; and fails for `broken`.
fn state() -> State {
    let api = service_fn(|request: Request<ApiBody>| async move {
        let (status, reply) = match request.uri().path().rsplit('/').next().unwrap() {
            name @ "team-a" => (200, json!({"metadata": {"name": name, "labels": {"ringfence.dev/tenant": "acme"}}})),
            name @ "plain" => (200, json!({"metadata": {"name": name}})),
            "broken" => (500, json!({"kind": "Status", "status": "Failure", "message": "etcd is away", "reason": "", "code": 500})),
            _ => (404, json!({"kind": "Status", "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404})),
        };
        Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(Bytes::from(reply.to_string()))).unwrap())
    });
    let (namespaces, _watching) = Namespaces::watch(Client::new(api, "default"));
    State { settings: settings(Capture::Redirect), namespaces, parsing: Semaphore::new(1) }
}

fn review(namespace: &str) -> String {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a"}]}});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let request = json!({"uid": "u", "operation": "CREATE", "resource": resource, "namespace": namespace, "object": pod});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
}

async fn asked(method: Method, path: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Full::new(body.into())).unwrap();
    let (head, body) = state().answer(request).await.into_parts();
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn the_tenant_is_the_namespaces() {
    for (namespace, allowed, wanted) in [
        ("team-a", true, "patch"),
        ("plain", false, "namespace plain has no label ringfence.dev/tenant"),
        ("nowhere", false, "it cannot be told whose namespace nowhere is"),
        ("broken", false, "it cannot be told whose namespace broken is"),
    ] {
        let (status, answer) = asked(Method::POST, PATH, review(namespace)).await;
        assert_eq!(status, StatusCode::OK);
        assert!(answer.contains(wanted), "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["response"]["allowed"], &answer["response"]["uid"]), (&json!(allowed), &json!("u")), "{namespace}");
    }
}

#[tokio::test]
async fn what_is_no_review_is_no_answer() {
    for (method, path, body, wanted) in [
        (Method::GET, PATH, Vec::new(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/", Vec::new(), StatusCode::NOT_FOUND),
        (Method::POST, PATH, Vec::new(), StatusCode::BAD_REQUEST),
        (Method::POST, PATH, b"[1]".to_vec(), StatusCode::BAD_REQUEST),
        (Method::POST, PATH, vec![b' '; MAX_REVIEW_BYTES], StatusCode::BAD_REQUEST),
        (Method::POST, PATH, vec![b' '; MAX_REVIEW_BYTES + 1], StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(asked(method, path, body).await.0, wanted);
    }
}
