//! `ringfence inject`.

use super::{
    manifest::{Manifests, Whose},
    *,
};

const WHOSE: Whose<'static> = Whose { tenant: "acme", namespace: "team-a" };

fn injected(text: &str) -> Result<Vec<Value>, String> {
    let mut manifests = Manifests::read(text).map_err(|error| error.to_string())?;
    manifests.inject(WHOSE, &settings(Capture::Redirect)).map_err(|error| error.to_string())?;
    Ok(manifests.documents)
}

#[test]
fn every_kind_that_makes_pods_is_injected() {
    for (api_version, kind, template) in [
        ("v1", "Pod", ""),
        ("apps/v1", "Deployment", "/spec/template"),
        ("extensions/v1beta1", "Deployment", "/spec/template"),
        ("apps/v1", "StatefulSet", "/spec/template"),
        ("apps/v1", "DaemonSet", "/spec/template"),
        ("apps/v1", "ReplicaSet", "/spec/template"),
        ("v1", "ReplicationController", "/spec/template"),
        ("v1", "PodTemplate", "/template"),
        ("batch/v1", "Job", "/spec/template"),
        ("batch/v1beta1", "CronJob", "/spec/jobTemplate/spec/template"),
    ] {
        let mut object = json!({"spec": {"containers": [{"name": "a"}]}});
        for field in template.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
            object = json!({field: object});
        }
        (object["apiVersion"], object["kind"]) = (json!(api_version), json!(kind));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Service", "apiVersion": "v1"}, object]});
        let injected = injected(&list.to_string()).unwrap();
        let found = injected[0].pointer(&format!("/items/1{template}/spec/initContainers"));
        assert_eq!(names(found.unwrap()), ["ringfence-capture", "ringfence-proxy"], "{kind}");
        assert_eq!(injected[0]["items"][0], list["items"][0]);
    }
}

#[test]
fn faults_name_the_object_and_the_field() {
    for (text, wanted) in [
        ("a: [", "line 1"),
        ("kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d}\n", "Deployment d: spec.template: is missing"),
        (
            "kind: Job\napiVersion: batch/v1\nmetadata: {name: j}\nspec: {template: {spec: {hostPID: true, containers: [{name: a}]}}}\n",
            "Job j: spec.template.spec.hostPID: must be false",
        ),
        ("kind: Pod\napiVersion: v1\nspec: {hostPID: true, containers: [{name: a}]}\n", "Pod without a name: spec.hostPID: must be false"),
    ] {
        let error = injected(text).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn values_are_kept_as_kubectl_reads_them() {
    let text = "mode: 0644\nquoted: \"0644\"\nyes: \"yes\"\nnumber: 1.5\nbig: 9007199254740993\nempty: {}\nnone: null\ntext: |\n  a\n  b\n---\n# nothing\n---\nlong: \"WORDS\"\n";
    let text = text.replace("WORDS", &"word ".repeat(60));
    let manifests = Manifests::read(&text).unwrap();
    assert_eq!(manifests.documents[0]["mode"], 0o644);
    assert_eq!(manifests.documents[0]["quoted"], "0644");
    assert_eq!(manifests.documents.len(), 2);
    let written = manifests.to_yaml().unwrap();
    assert!(written.contains("\n---\n"), "{written}");
    assert_eq!(Manifests::read(&written).unwrap().documents, manifests.documents, "{written}");
    assert_eq!(Manifests::read(&manifests.to_json().to_string()).unwrap().documents[0]["items"], json!(manifests.documents));
}
