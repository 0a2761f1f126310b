//! Admission reviews of pods that Istio, Kuma and Linkerd test their own injectors with, and some that are meant to go wrong.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::*;

fn corpus() -> Option<PathBuf> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora"));
    let corpus = std::env::var_os("RINGFENCE_CORPORA").map_or(own, PathBuf::from).join("k8s");
    corpus.is_dir().then_some(corpus)
}

/// What must come of a row, by what its pod says or, where a row is made for it, by its name. `Err`: what the refusal must name.
fn expected(id: &str, request: &Value) -> Result<(), &'static str> {
    let text = request.to_string();
    match id {
        "own/v1beta1" => Err("admission.k8s.io/v1beta1"),
        "own/net-admin" => Err("NET_ADMIN gets past"),
        _ if text.contains("\"hostNetwork\":true") => Err("spec.hostNetwork"),
        _ if text.contains("\"hostPID\":true") => Err("spec.hostPID"),
        _ if text.contains("\"shareProcessNamespace\":true") => Err("spec.shareProcessNamespace"),
        _ if text.contains("\"privileged\":true") => Err("privileged"),
        _ if text.contains("\"NET_ADMIN\"") && request["request"]["operation"] == "CREATE" => Err("NET_ADMIN gets past"),
        _ if text.contains("\"runAsUser\":64015") => Err("64015"),
        _ => Ok(()),
    }
}

#[test]
fn every_review_is_judged() {
    let Some(corpus) = corpus() else {
        eprintln!("skipped: no corpora");
        return;
    };
    for capture in [Capture::Redirect, Capture::Explicit] {
        let mut counts = BTreeMap::new();
        for row in fs::read_to_string(corpus.join("admission_reviews.jsonl")).unwrap().lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            *counts.entry(judge(&row, capture)).or_insert(0) += 1;
        }
        eprintln!("{capture:?}: {counts:?}");
        assert!(counts["injected"] >= 80, "{counts:?}");
    }
}

fn judge(row: &Value, capture: Capture) -> &'static str {
    let id = row["id"].as_str().unwrap();
    let body = row["raw"].as_str().map_or_else(|| row["request"].to_string(), str::to_owned);
    let answer = match answered(body.as_bytes(), Ok("acme"), capture) {
        Ok(answer) => answer,
        Err(why) => {
            assert!(row.get("raw").is_some(), "{id}: {why}");
            return "junk, answered by 400";
        }
    };
    let request: Value = serde_json::from_str(&body).unwrap();
    let (response, message) = (&answer["response"], answer["response"]["status"]["message"].as_str().unwrap_or_default());
    assert_eq!(response["uid"], request["request"]["uid"], "{id}");
    match expected(id, &request) {
        Ok(()) => assert_eq!(response["allowed"], true, "{id}: {message}"),
        Err(reason) => {
            assert_eq!(response["allowed"], false, "{id}");
            assert!(message.contains(reason), "{id}: {message}");
            assert_ne!(row["upstream_injects"], true, "{id}: {message}");
            return "refused";
        }
    }
    let pod = &request["request"]["object"];
    if request["request"]["operation"] != "CREATE" || !request["request"]["subResource"].is_null() {
        assert!(response.get("patch").is_none(), "{id}");
        return "not ours";
    }
    let injected = patched(pod, &answer);
    assert_injected(id, pod, &injected, capture);
    let mut again = request.clone();
    again["request"]["object"] = injected;
    let answer = answered(again.to_string().as_bytes(), Ok("acme"), capture).unwrap();
    assert_eq!((&answer["response"]["allowed"], answer["response"].get("patch")), (&json!(true), None), "{id}: a second pass");
    "injected"
}

fn assert_injected(id: &str, before: &Value, after: &Value, capture: Capture) {
    let own: &[&str] = if capture == Capture::Redirect { &["ringfence-capture", "ringfence-proxy"] } else { &["ringfence-proxy"] };
    let init = after["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(names(&after["spec"]["initContainers"])[..own.len()], *own, "{id}");
    let own_init = before["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    let own_containers = before["spec"]["containers"].as_array().unwrap();
    let after_containers = after["spec"]["containers"].as_array().unwrap();
    assert_eq!((init.len() - own.len(), after_containers.len()), (own_init.len(), own_containers.len()), "{id}");
    for (before, after) in own_init.iter().zip(&init[own.len()..]).chain(own_containers.iter().zip(after_containers)) {
        let mut after = after.clone();
        if capture == Capture::Explicit {
            // What they had stands first, and as it was.
            let added: Vec<Value> =
                after["env"].as_array().unwrap().iter().skip(before["env"].as_array().map_or(0, Vec::len)).cloned().collect();
            assert!(names(&json!(added)).iter().all(|name| name.to_ascii_uppercase().ends_with("_PROXY")), "{id}");
            let kept = after["env"].as_array().unwrap().len() - added.len();
            after["env"].as_array_mut().unwrap().truncate(kept);
            match before.get("env") {
                None | Some(Value::Null) if kept == 0 => drop(after.as_object_mut().unwrap().remove("env")),
                _ => {}
            }
        }
        assert_eq!(*before, after, "{id}");
    }
    assert_eq!(before["metadata"], after["metadata"], "{id}");
    let before = pss::violations(before);
    let worse: Vec<_> =
        pss::violations(after).into_iter().filter(|violation| !before.contains(violation) && violation.0 != "ringfence-capture").collect();
    assert!(worse.is_empty(), "{id}: {worse:?}");
}

#[test]
fn every_manifest_is_injected() {
    let Some(corpus) = corpus() else {
        eprintln!("skipped: no corpora");
        return;
    };
    let mut counts = BTreeMap::new();
    for row in fs::read_to_string(corpus.join("index.jsonl")).unwrap().lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let file = row["file"].as_str().unwrap();
        let Ok(text) = fs::read_to_string(corpus.join(file)) else {
            *counts.entry("not here").or_insert(0) += 1;
            continue;
        };
        *counts.entry(inject_manifest(file, &row, &text)).or_insert(0) += 1;
    }
    eprintln!("manifests: {counts:?}");
    assert!(counts["injected"] >= 70, "{counts:?}");
}

fn inject_manifest(file: &str, row: &Value, text: &str) -> &'static str {
    use manifest::{ManifestError, Manifests, Whose};

    let whose = Whose { tenant: "acme", namespace: "default" };
    let mut manifests = match Manifests::read(text) {
        Ok(manifests) => manifests,
        Err(error) => {
            assert!(file.ends_with(".bad.input.yml"), "{file}: {error}");
            return "no YAML";
        }
    };
    let before = manifests.documents.clone();
    match manifests.inject(whose, &settings(Capture::Redirect)) {
        Ok(()) => {}
        Err(ManifestError::Denied { denial, .. }) => {
            assert!(expected(file, &json!({"request": {"operation": "CREATE", "pods": before}})).is_err(), "{file}: {denial}");
            return "refused";
        }
        Err(error) => panic!("{file}: {error}"),
    }
    let yaml = manifests.to_yaml().unwrap();
    let mut again = Manifests::read(&yaml).unwrap();
    assert_eq!(again.documents, manifests.documents, "{file}: what is written is read as it was");
    again.inject(whose, &settings(Capture::Redirect)).unwrap();
    assert_eq!(again.documents, manifests.documents, "{file}: a second pass changes nothing");
    let pods = yaml.matches("name: ringfence-proxy\n").count();
    assert_eq!(pods, usize::try_from(row["pods"].as_u64().unwrap()).unwrap(), "{file}");
    if pods > 0 { "injected" } else { "without a pod" }
}
