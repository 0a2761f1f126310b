//! A pod's volumes, in directories of the node. What is in them is what the API server lets the node have.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::spec::{FieldRef, PodSpec, Projectable, Projection, TokenProjection, Volume};
use crate::{eventually, kubernetes::User};

/// The node at the API server, and the pod that it asks for.
pub(super) struct Source<'a> {
    pub(super) node: &'a User,
    pub(super) pod: &'a Value,
    pub(super) spec: &'a PodSpec,
    pub(super) address: String,
}

impl Source<'_> {
    /// Of the pod itself: what a variable or a file may tell it.
    pub(super) fn field(&self, field: &FieldRef) -> Result<String, String> {
        let pointer = match field.field_path.as_str() {
            "status.podIP" => return Ok(self.address.clone()),
            "metadata.name" => "/metadata/name",
            "metadata.namespace" => "/metadata/namespace",
            "metadata.uid" => "/metadata/uid",
            "spec.nodeName" => "/spec/nodeName",
            "spec.serviceAccountName" => "/spec/serviceAccountName",
            other => return Err(format!("fieldPath {other}: is not known here")),
        };
        Ok(text(self.pod.pointer(pointer)).to_owned())
    }

    /// Fills `dir`, which it makes.
    pub(super) fn make(&self, volume: &Volume, dir: &Path) -> Result<(), String> {
        fs::create_dir_all(dir).unwrap();
        let mut mode = None;
        if let Some(projected) = &volume.projected {
            mode = Some(projected.default_mode);
            for projection in &projected.sources {
                self.project(projection, dir)?;
            }
        }
        if let Some(map) = &volume.config_map {
            mode = Some(map.default_mode);
            write_all(dir, &self.object("configmap", &map.name), &[]);
        }
        if let Some(secret) = &volume.secret {
            mode = Some(secret.default_mode);
            write_all(dir, &self.object("secret", &secret.secret_name), &[]);
        }
        self.own(dir, mode);
        Ok(())
    }

    fn project(&self, projection: &Projection, dir: &Path) -> Result<(), String> {
        if let Some(token) = &projection.service_account_token {
            write(dir, &token.path, self.token(token).trim().as_bytes());
        }
        let of = |projectable: &Projectable| projectable.items.iter().map(|item| (item.key.clone(), item.path.clone())).collect::<Vec<_>>();
        if let Some(map) = &projection.config_map {
            write_all(dir, &self.object("configmap", &map.name), &of(map));
        }
        if let Some(secret) = &projection.secret {
            write_all(dir, &self.object("secret", &secret.name), &of(secret));
        }
        for item in projection.downward_api.iter().flat_map(|api| &api.items) {
            write(dir, &item.path, self.field(&item.field_ref)?.as_bytes());
        }
        Ok(())
    }

    /// As a kubelet asks for it: bound to the pod. It comes to know what the node may see some moments after the pod is bound.
    fn token(&self, token: &TokenProjection) -> String {
        let metadata = &self.pod["metadata"];
        let mut arguments = vec![
            format!("--namespace={}", text(metadata.get("namespace"))),
            "create".into(),
            "token".into(),
            self.spec.service_account_name.clone(),
            format!("--duration={}s", token.expiration_seconds),
            "--bound-object-kind=Pod".into(),
            format!("--bound-object-name={}", text(metadata.get("name"))),
            format!("--bound-object-uid={}", text(metadata.get("uid"))),
        ];
        arguments.extend(token.audience.iter().map(|audience| format!("--audience={audience}")));
        eventually("the API server gives the node its pod's token", || {
            let output = self.node.kubectl(&arguments);
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        })
    }

    fn object(&self, kind: &str, name: &str) -> Value {
        let namespace = text(self.pod.pointer("/metadata/namespace"));
        eventually("the API server gives the node what its pod mounts", || {
            let output = self.node.kubectl(["--namespace", namespace, "get", kind, name, "-o", "json"]);
            output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
        })
    }

    /// As a kubelet leaves it. `mode`: of files that are written for the pod; without, the pod writes there itself.
    fn own(&self, dir: &Path, mode: Option<u32>) {
        let group = self.spec.security_context.fs_group;
        let set = |path: &Path, mode: u32| {
            chown(path, Some(0), Some(group.unwrap_or(0))).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let Some(mode) = mode else { return set(dir, if group.is_some() { 0o2777 } else { 0o777 }) };
        set(dir, 0o755);
        for entry in fs::read_dir(dir).unwrap() {
            set(&entry.unwrap().path(), if group.is_some() { mode | 0o440 } else { mode });
        }
    }
}

/// `items`: keys and their files; without any, all.
fn write_all(dir: &Path, object: &Value, items: &[(String, String)]) {
    let is_secret = object["kind"] == "Secret";
    let none = Map::new();
    for (key, value) in object["data"].as_object().unwrap_or(&none) {
        let file = match items.iter().find(|(wanted, _)| wanted == key) {
            Some((_, file)) => file,
            None if items.is_empty() => key,
            None => continue,
        };
        let octets = if is_secret { BASE64_STANDARD.decode(text(Some(value))).unwrap() } else { text(Some(value)).into() };
        write(dir, file, &octets);
    }
}

/// In one move: whoever reads it meanwhile reads the one before.
fn write(dir: &Path, file: &str, octets: &[u8]) {
    let temporary = dir.join(".new");
    fs::write(&temporary, octets).unwrap();
    fs::rename(&temporary, dir.join(file)).unwrap();
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}
