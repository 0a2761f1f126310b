use futures_util::FutureExt;
use kube::client::Body as ApiBody;
use serde_json::json;
use tower::service_fn;

use super::*;
use crate::{
    inject::tests::settings,
    kubernetes::names::{TENANT_LABEL, TENANT_UID_ANNOTATION},
};

/// Of an API server that has the Tenant `acme`, the namespaces `team-a`, which is its, `left`, which its forerunner left, `marked`, which says no
/// UID, `orphan` of a Tenant that there is not, and `plain`; and fails for `broken`.
fn state() -> State {
    watched().0
}

/// And what its watches tell, for as long as that is polled.
fn watched() -> (State, impl Future<Output = ()>) {
    let of = |name: &str, tenant: &str, uid: &str| json!({"metadata": {"name": name, "labels": {TENANT_LABEL: tenant}, "annotations": {TENANT_UID_ANNOTATION: uid}}});
    let api = service_fn(move |request: Request<ApiBody>| async move {
        let (status, reply) = match request.uri().path().rsplit('/').next().unwrap() {
            name @ "acme" => (200, json!({"metadata": {"name": name, "uid": "u-2"}})),
            name @ "team-a" => (200, of(name, "acme", "u-2")),
            name @ "left" => (200, of(name, "acme", "u-1")),
            name @ "marked" => (200, json!({"metadata": {"name": name, "labels": {TENANT_LABEL: "acme"}}})),
            name @ "orphan" => (200, of(name, "globex", "u-3")),
            name @ "plain" => (200, json!({"metadata": {"name": name}})),
            "namespaces" | "tenants" if !request.uri().query().unwrap_or_default().contains("watch") => {
                (200, json!({"metadata": {"resourceVersion": "1"}, "items": []}))
            }
            "broken" => (500, json!({"kind": "Status", "status": "Failure", "message": "etcd is away", "reason": "", "code": 500})),
            _ => (404, json!({"kind": "Status", "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404})),
        };
        Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(Bytes::from(reply.to_string()))).unwrap())
    });
    let (namespaces, watching) = Namespaces::watch(Client::new(api, "default"));
    (State { settings: settings(Capture::Redirect), namespaces, parsing: Semaphore::new(1) }, watching)
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
        ("left", false, "is no namespace of the Tenant acme that there is: its annotation ringfence.dev/tenant-uid"),
        ("marked", false, "is no namespace of the Tenant acme that there is"),
        ("orphan", false, "is no namespace of the Tenant globex that there is"),
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
async fn whose_a_namespace_is_is_asked_before_a_pod_is_parsed() {
    let state = State { parsing: Semaphore::new(0), ..state() };
    let request = Request::post(PATH).body(Full::new(Bytes::from(review("plain")))).unwrap();
    assert_eq!(state.answer(request).await.status(), StatusCode::OK);
    let request = Request::post(PATH).body(Full::new(Bytes::from(review("team-a")))).unwrap();
    assert!(state.answer(request).now_or_never().is_none(), "all places are taken");
}

#[tokio::test]
async fn it_is_ready_when_the_watches_have_told() {
    let (state, watching) = watched();
    let health = async || {
        let request = Request::get(HEALTH_PATH).body(Full::new(Bytes::new())).unwrap();
        state.answer(request).await.status()
    };
    assert_eq!(health().await, StatusCode::SERVICE_UNAVAILABLE);
    let ready = async {
        while health().await != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = watching => panic!("it ends with its client alone"),
        ready = timeout(Duration::from_secs(60), ready) => ready.expect("it is ready when both have been listed"),
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
