use serde_json::{Value, json};

use super::read;

fn pod() -> Value {
    json!({"spec": {
        "serviceAccountName": "default", "dnsPolicy": "ClusterFirst", "nodeName": "n1",
        "containers": [{"name": "app", "image": "app.test/app", "imagePullPolicy": "Always", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }})
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    read(&pod()).unwrap();
    let cases = [
        ("/spec/hostNetwork", json!(true), "unknown field `hostNetwork`"),
        ("/spec/hostAliases", json!([]), "unknown field `hostAliases`"),
        ("/spec/dnsPolicy", json!("None"), "unknown variant `None`"),
        ("/spec/securityContext", json!({"sysctls": []}), "unknown field `sysctls`"),
        ("/spec/securityContext", json!({"seccompProfile": {"type": "Unconfined"}}), "unknown variant `Unconfined`"),
        ("/spec/containers/0/lifecycle", json!({}), "unknown field `lifecycle`"),
        ("/spec/containers/0/workingDir", json!("/"), "unknown field `workingDir`"),
        ("/spec/containers/0/envFrom", json!([]), "unknown field `envFrom`"),
        ("/spec/containers/0/env", json!([{"name": "A", "valueFrom": {"resourceFieldRef": {}}}]), "unknown field `resourceFieldRef`"),
        ("/spec/containers/0/securityContext", json!({"procMount": "Unmasked"}), "unknown field `procMount`"),
        ("/spec/containers/0/securityContext", json!({"privileged": true}), "container app: securityContext.privileged"),
        ("/spec/containers/0/readinessProbe", json!({"grpc": {}}), "unknown field `grpc`"),
        ("/spec/containers/0/readinessProbe", json!({}), "container app: probe: must be of one kind"),
        ("/spec/containers/0/volumeMounts", json!([{"name": "w", "mountPath": "/v"}]), "there is no volume \"w\""),
        ("/spec/containers/0/volumeMounts", json!([{"name": "v", "mountPath": "/v", "subPath": "a"}]), "unknown field `subPath`"),
        ("/spec/volumes", json!([{"name": "v", "hostPath": {"path": "/"}}]), "unknown field `hostPath`"),
        ("/spec/volumes", json!([{"name": "v", "emptyDir": {"medium": "Memory"}}]), "unknown field `medium`"),
        ("/spec/volumes", json!([{"name": "v"}]), "volume v: must be of one kind"),
    ];
    for (field, value, wanted) in cases {
        let mut pod = pod();
        let (parent, name) = field.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[name] = value;
        let refused = read(&pod).unwrap_err();
        assert!(refused.contains(wanted), "{field}: {refused}");
    }
}
