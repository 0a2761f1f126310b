//! Manifests: every pod in them, and every template of pods, gets its sidecar before the API server sees it. What is neither passes as it is.
//!
//! Comments and the order of keys are not kept; values are. YAML is read as `kubectl` reads it: `yes` is a truth value and `0644` octal.

use serde_json::{Value, json};

use super::{Denial, Injected, Place, Settings, inject};

/// Whose pods they are.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    pub tenant: &'a str,
    /// Of objects that name none.
    pub namespace: &'a str,
}

/// Why manifests are not injected.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{0}")]
    Yaml(String),
    #[error("{object}: {denial}")]
    Denied { object: String, denial: Denial },
}

/// The documents, and what their authors should know.
#[derive(Debug, Default)]
pub struct Manifests {
    pub documents: Vec<Value>,
    pub warnings: Vec<String>,
}

impl Manifests {
    /// Of YAML, of which JSON is a part; empty documents are left out.
    pub fn read(text: &str) -> Result<Self, ManifestError> {
        let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
        let documents: Vec<Value> =
            serde_saphyr::from_multiple_with_options(text, options).map_err(|error| ManifestError::Yaml(error.to_string()))?;
        Ok(Self { documents: documents.into_iter().filter(|document| !document.is_null()).collect(), warnings: Vec::new() })
    }

    pub fn inject(&mut self, whose: Whose<'_>, settings: &Settings) -> Result<(), ManifestError> {
        for document in &mut self.documents {
            inject_object(document, whose, settings, &mut self.warnings)?;
        }
        Ok(())
    }

    pub fn to_yaml(&self) -> Result<String, ManifestError> {
        // Not folded at spaces: readers differ in what they make of it.
        let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
        let mut text = String::new();
        for (i, document) in self.documents.iter().enumerate() {
            if i > 0 {
                text.push_str("---\n");
            }
            let written = serde_saphyr::to_fmt_writer_with_options(&mut text, document, options.clone());
            written.map_err(|error| ManifestError::Yaml(error.to_string()))?;
        }
        Ok(text)
    }

    /// One object; of several, a List.
    pub fn to_json(&self) -> Value {
        match self.documents.as_slice() {
            [document] => document.clone(),
            documents => json!({"apiVersion": "v1", "kind": "List", "items": documents}),
        }
    }
}

fn inject_object(object: &mut Value, whose: Whose<'_>, settings: &Settings, warnings: &mut Vec<String>) -> Result<(), ManifestError> {
    if object["kind"] == "List" {
        let items = object.get_mut("items").and_then(Value::as_array_mut);
        return items.into_iter().flatten().try_for_each(|item| inject_object(item, whose, settings, warnings));
    }
    let text = |field: &str| object.pointer(field).and_then(Value::as_str);
    let Some(template) = template(text("/apiVersion").unwrap_or_default(), text("/kind").unwrap_or_default()) else { return Ok(()) };
    let named = format!("{} {}", text("/kind").unwrap_or_default(), text("/metadata/name").unwrap_or("without a name"));
    let namespace = text("/metadata/namespace").unwrap_or(whose.namespace).to_owned();
    let Some(pod) = object.pointer_mut(template) else {
        let denial = Denial::new(path(template), "is missing");
        return Err(ManifestError::Denied { object: named, denial });
    };
    match inject(pod, Place { namespace: &namespace, tenant: whose.tenant }, settings) {
        Ok(Injected { pod: injected, warnings: told }) => {
            *pod = injected;
            warnings.extend(told.into_iter().map(|told| format!("{named}: {told}")));
            Ok(())
        }
        Err(denial) if template.is_empty() || denial.field.is_empty() => Err(ManifestError::Denied { object: named, denial }),
        Err(denial) => Err(ManifestError::Denied { object: named, denial: denial.within(&format!("{}.", path(template))) }),
    }
}

fn path(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// Where the pod is in an object, as a JSON pointer; in any version that there ever was.
fn template(api_version: &str, kind: &str) -> Option<&'static str> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(""),
        ("", "PodTemplate") => Some("/template"),
        ("", "ReplicationController") | ("batch", "Job") => Some("/spec/template"),
        ("apps" | "extensions", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => Some("/spec/template"),
        ("" | "apps.openshift.io", "DeploymentConfig") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}
