//! What is let in, and what is not and why.

use super::*;

fn denied(pod: &Value) -> String {
    inject(pod, ACME, &settings(Capture::Redirect)).unwrap_err().to_string()
}

#[test]
fn what_would_defeat_the_sidecar_is_refused_by_field() {
    let context = |context: Value| json!({"containers": [{"name": "a", "image": "a", "securityContext": context}]});
    let mounts = |mounts: Value| json!({"containers": [{"name": "a", "image": "a", "volumeMounts": mounts}]});
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        json!({"volumes": [{"name": "other", "emptyDir": {}}, volume]})
    };
    let projected = |source: Value| volume(json!({"projected": {"sources": [source]}}));
    for (fields, wanted) in [
        (json!({"hostNetwork": true}), "spec.hostNetwork: must be false"),
        (json!({"hostPID": true}), "spec.hostPID: must be false"),
        (json!({"hostIPC": true}), "spec.hostIPC: must be false"),
        (json!({"shareProcessNamespace": true}), "spec.shareProcessNamespace: must be false"),
        (json!({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["api.example.com"]}]}), "spec.hostAliases: must be empty"),
        (json!({"os": {"name": "windows"}}), "spec.os.name: must be linux"),
        (json!({"ephemeralContainers": [{"name": "e"}]}), "spec.ephemeralContainers: must be empty"),
        (json!({"securityContext": {"runAsUser": 64015}}), "spec.securityContext.runAsUser: 64015 is the sidecar's"),
        (json!({"securityContext": {"runAsGroup": 64015}}), "spec.securityContext.runAsGroup: 64015"),
        (json!({"securityContext": {"fsGroup": 64015}}), "spec.securityContext.fsGroup: 64015"),
        (json!({"securityContext": {"supplementalGroups": [1, 64015]}}), "spec.securityContext.supplementalGroups: 64015"),
        (json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}), "spec.securityContext.windowsOptions.hostProcess: "),
        (context(json!({"runAsUser": 64015})), "spec.containers[0].securityContext.runAsUser: 64015"),
        (context(json!({"runAsGroup": 64015})), "spec.containers[0].securityContext.runAsGroup: 64015"),
        (context(json!({"privileged": true})), "spec.containers[0].securityContext.privileged: must be false"),
        (context(json!({"procMount": "Unmasked"})), "spec.containers[0].securityContext.procMount: must be Default"),
        (context(json!({"capabilities": {"add": ["CHOWN", "NET_ADMIN"]}})), "capabilities.add[1]: NET_ADMIN gets past"),
        (context(json!({"capabilities": {"add": ["cap_net_raw"]}})), "capabilities.add[0]: NET_RAW gets past"),
        (context(json!({"capabilities": {"add": ["all"]}})), "capabilities.add[0]: ALL gets past"),
        (context(json!({"capabilities": {"add": ["SYS_PTRACE"]}})), "capabilities.add[0]: SYS_PTRACE gets past"),
        (
            json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}]}),
            "spec.initContainers[0].securityContext.privileged: must be false",
        ),
        (json!({"containers": [{"name": "ringfence-proxy"}]}), "spec.containers[0].name: is the sidecar's"),
        (json!({"containers": [{"name": "ringfence-capture"}]}), "spec.containers[0].name: is the sidecar's"),
        (json!({"initContainers": [{"name": "ringfence-proxy", "image": "evil"}]}), "spec.initContainers[0]."),
        (json!({"initContainers": [{"name": "ringfence-capture"}]}), "spec.initContainers[0]."),
        (mounts(json!([{"name": "ringfence-token", "mountPath": "/t"}])), "spec.containers[0].volumeMounts[0].name: ringfence-token is"),
        (
            json!({"containers": [{"name": "a", "volumeDevices": [{"name": "ringfence-state", "devicePath": "/d"}]}]}),
            "spec.containers[0].volumeDevices[0].name: ringfence-state is",
        ),
        (json!({"volumes": [{"name": "ringfence-token", "emptyDir": {}}]}), "spec.volumes[0].name: ringfence-token is the sidecar's"),
        (json!({"volumes": [{"name": "ringfence-state", "hostPath": {"path": "/x"}}]}), "spec.volumes[0].name: ringfence-state is"),
        (volume(json!({"configMap": {"name": "ringfence-trust"}})), "spec.volumes[1].configMap.name: "),
        (volume(json!({"secret": {"secretName": "ringfence-authority"}})), "spec.volumes[1].secret.secretName: "),
        (volume(json!({"hostPath": {"path": "/"}})), "spec.volumes[1].hostPath.path: "),
        (volume(json!({"hostPath": {"path": "/var/lib"}})), "spec.volumes[1].hostPath.path: "),
        (volume(json!({"hostPath": {"path": "//var//./lib/kubelet/pods"}})), "spec.volumes[1].hostPath.path: "),
        (
            projected(json!({"serviceAccountToken": {"audience": "ringfence", "path": "t"}})),
            "spec.volumes[1].projected.sources[0].serviceAccountToken.audience: ",
        ),
        (projected(json!({"configMap": {"name": "ringfence-trust"}})), "spec.volumes[1].projected.sources[0].configMap.name: "),
        (projected(json!({"secret": {"name": "ringfence-webhook"}})), "spec.volumes[1].projected.sources[0].secret.name: "),
    ] {
        let denial = denied(&plain(fields.clone()));
        assert!(denial.contains(wanted), "{fields}: {denial}");
    }
}

#[test]
fn labels_and_annotations_neither_opt_out_nor_change_the_tenant() {
    for (metadata, wanted) in [
        (json!({"labels": {"ringfence.dev/tenant": "globex"}}), "metadata.labels[ringfence.dev/tenant]: the namespace's tenant is another"),
        (json!({"labels": {"ringfence.dev/inject": "false"}}), "metadata.labels[ringfence.dev/inject]: is not known"),
        (json!({"annotations": {"ringfence.dev/workload": "w"}}), "metadata.annotations[ringfence.dev/workload]: is not known"),
        (json!({"labels": {"ringfence.dev/workload": "No Label"}}), "metadata.labels[ringfence.dev/workload]: "),
        (json!({"annotations": {"kubernetes.io/config.mirror": "x"}}), "metadata.annotations[kubernetes.io/config.mirror]: a static pod"),
        (
            json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/ringfence-proxy": "unconfined"}}),
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/ringfence-proxy]: ",
        ),
    ] {
        let mut pod = plain(json!({}));
        pod["metadata"] = metadata;
        let denial = denied(&pod);
        assert!(denial.starts_with(wanted), "{denial}");
    }
}

#[test]
fn what_is_no_pod_is_refused() {
    for (pod, wanted) in [
        (json!([]), "this is no Pod"),
        (json!({"kind": "Deployment", "apiVersion": "apps/v1"}), "this is no Pod"),
        (json!({"spec": null}), "spec: is missing"),
        (pod(json!({})), "spec.containers: must name"),
        (pod(json!({"containers": []})), "spec.containers: must name"),
        (pod(json!({"containers": "a"})), "this is no Pod"),
        (pod(json!({"containers": [{"name": "a"}], "volumes": {}})), "this is no Pod"),
        (pod(json!({"containers": [{"name": "a"}], "hostNetwork": "true"})), "this is no Pod"),
    ] {
        let denial = denied(&pod);
        assert!(denial.starts_with(wanted), "{pod}: {denial}");
    }
}

#[test]
fn what_does_no_harm_is_let_in() {
    for fields in [
        json!({"hostNetwork": false, "shareProcessNamespace": null, "volumes": null, "initContainers": null}),
        json!({"restartPolicy": "Never", "activeDeadlineSeconds": 5}),
        json!({"automountServiceAccountToken": false, "serviceAccountName": "none"}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}], "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]}),
        json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/data"}}, {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]}),
        json!({"os": {"name": "linux"}, "securityContext": {"fsGroup": 1, "runAsUser": 1000}}),
    ] {
        let pod = plain(fields);
        inject(&pod, ACME, &settings(Capture::Redirect)).unwrap();
    }
    let mut labelled = plain(json!({}));
    labelled["metadata"] = json!({"labels": {"ringfence.dev/tenant": "acme", "ringfence.dev/workload": "acme-api"}});
    let injected = inject(&labelled, ACME, &settings(Capture::Redirect)).unwrap().pod;
    let bootstrap = injected.pointer("/spec/initContainers/1/env/0/value").unwrap().as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(bootstrap).unwrap()["workload"], "acme-api");
}

#[test]
fn what_the_runtime_gives_unasked_is_told_to_the_author() {
    let strict = json!({"runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let warnings = |pod: &Value| inject(pod, ACME, &settings(Capture::Redirect)).unwrap().warnings;
    assert_eq!(warnings(&pod(json!({"containers": [{"name": "a", "securityContext": strict}]}))), [""; 0]);
    let told = warnings(&pod(
        json!({"containers": [{"name": "a", "securityContext": strict}, {"name": "weak"}], "initContainers": [{"name": "i"}]}),
    ));
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("ringfence: i, weak: may get past"), "{told:?}");
    let long: Vec<Value> = (0..200).map(|i| json!({"name": format!("c{i}")})).collect();
    assert!(warnings(&pod(json!({"containers": long})))[0].len() <= 256);
}
