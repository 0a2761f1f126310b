//! What the API server is answered, whatever it asks.

use super::*;

fn review(fields: Value) -> Value {
    let mut request = json!({
        "uid": "u-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "team-a",
        "operation": "CREATE",
        "userInfo": {"username": "alice"},
        "object": plain(json!({})),
        "oldObject": null,
        "dryRun": false,
    });
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

fn answer(review: &Value) -> Value {
    answered(review.to_string().as_bytes(), Ok("acme"), Capture::Redirect).unwrap()
}

#[test]
fn a_creation_is_answered_by_a_patch() {
    for dry_run in [false, true] {
        let review = review(json!({"dryRun": dry_run}));
        let answer = answer(&review);
        assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
        assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&json!("u-1"), &json!(true)));
        let pod = &review["request"]["object"];
        assert_eq!(patched(pod, &answer), inject(pod, ACME, &settings(Capture::Redirect)).unwrap().pod);
    }
}

#[test]
fn names_of_fields_are_escaped_in_the_patch() {
    let before = json!({"spec": {"a/b": 1, "c~d": 2, "gone": 3}});
    let after = json!({"spec": {"a/b": 2, "c~d": 2, "new~/": 4}});
    let mut patched = before.clone();
    let operations = json!(patch::of_spec(&before, &after));
    json_patch::patch(&mut patched, &serde_json::from_value::<json_patch::Patch>(operations).unwrap()).unwrap();
    assert_eq!(patched, after);
}

#[test]
fn what_is_no_creation_of_a_pod_passes_untouched() {
    for fields in [
        json!({"operation": "UPDATE"}),
        json!({"operation": "DELETE", "object": null}),
        json!({"operation": "CONNECT", "subResource": "exec", "object": {"kind": "PodExecOptions"}}),
        json!({"operation": "UPDATE", "subResource": "ephemeralcontainers"}),
        json!({"operation": "CREATE", "subResource": "binding", "object": {"kind": "Binding"}}),
    ] {
        let answer = answer(&review(fields.clone()));
        assert_eq!(answer["response"], json!({"uid": "u-1", "allowed": true}), "{fields}");
    }
}

#[test]
fn what_cannot_be_judged_is_refused() {
    for (fields, wanted) in [
        (json!({"operation": "EAT"}), "request.operation: \"EAT\" is not known"),
        (json!({"operation": null}), "request: "),
        (json!({"resource": {"group": "apps", "version": "v1", "resource": "deployments"}}), "asked about apps/v1 deployments"),
        (json!({"resource": "pods"}), "request: "),
        (json!({"namespace": ""}), "request.namespace is missing"),
        (json!({"object": null}), "request.object is missing"),
        (json!({"object": [1]}), "this is no Pod"),
        (json!({"object": {"spec": {"hostPID": true, "containers": [{"name": "a"}]}}}), "ringfence: spec.hostPID: must be false"),
    ] {
        let answer = answer(&review(fields));
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(false)));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(wanted), "{message}");
    }
    let mut beta = review(json!({}));
    beta["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let refused = answer(&beta);
    assert_eq!((&refused["response"]["uid"], &refused["response"]["allowed"]), (&json!("u-1"), &json!(false)));
    let unknown = answered(review(json!({})).to_string().as_bytes(), Err("namespace team-a has no tenant"), Capture::Redirect).unwrap();
    assert_eq!(unknown["response"]["status"]["message"], "ringfence: namespace team-a has no tenant");
    assert_eq!(unknown["response"]["allowed"], false);
}

#[test]
fn a_pod_is_as_large_as_a_sidecar_may_be_thought_of() {
    let of_size = |octets: usize| {
        let mut pod = plain(json!({}));
        pod["metadata"]["annotations"] = json!({"note": ""});
        let padding = octets - pod.to_string().len();
        pod["metadata"]["annotations"]["note"] = "x".repeat(padding).into();
        answer(&review(json!({"object": pod})))
    };
    assert_eq!(of_size(256 * 1024)["response"]["allowed"], true);
    let refused = of_size(256 * 1024 + 1);
    assert_eq!(refused["response"]["allowed"], false);
    let message = refused["response"]["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("ringfence: the pod is 262145 bytes of JSON, and must be at most 262144"), "{message}");
}

#[test]
fn junk_is_told_to_be_junk() {
    let deep = "[".repeat(100_000);
    for body in ["", "{", "[]", "null", "1", "{}", r#"{"request": {}}"#, r#"{"request": {"uid": ""}}"#, r#"{"request": {"uid": 1}}"#, &deep]
    {
        answered(body.as_bytes(), Ok("acme"), Capture::Redirect).unwrap_err();
    }
    answered(b"\xff\xfe", Ok("acme"), Capture::Redirect).unwrap_err();
}
