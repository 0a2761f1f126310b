//! What a Tenant's status says of its onboarding: the condition `Onboarded`.

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::spec::API_VERSION;

const TYPE: &str = "Onboarded";
/// Of this condition alone: others of the same object are written by others.
const FIELD_MANAGER: &str = "ringfence-tenancy";
/// Longest message, in characters.
const MAX_MESSAGE: usize = 1024;

/// Why a tenant is not onboarded, or not in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// One word, as conditions have it.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Writes the condition where it says something else than before.
pub(super) async fn tell(api: &Api<DynamicObject>, tenant: &DynamicObject, refusals: &[Refusal]) -> Result<(), kube::Error> {
    let (status, reason) = refusals.first().map_or(("True", "FenceStands"), |refusal| ("False", refusal.reason));
    let mut message = refusals.iter().map(|refusal| refusal.message.as_str()).collect::<Vec<_>>().join("; ");
    if message.is_empty() {
        message = "its namespaces are made, and their fences stand".into();
    }
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
    }
    let before = standing(tenant);
    let same = |field: &str, value: &str| before.and_then(|before| before[field].as_str()) == Some(value);
    let generation = tenant.metadata.generation.unwrap_or_default();
    let of_generation = before.and_then(|before| before["observedGeneration"].as_i64()) == Some(generation);
    if of_generation && same("status", status) && same("reason", reason) && same("message", &message) {
        return Ok(());
    }
    let since = before.filter(|_| same("status", status)).and_then(|before| before["lastTransitionTime"].as_str().map(str::to_owned));
    let condition = json!({
        "type": TYPE,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or_else(|| Timestamp::now().round(k8s_openapi::jiff::Unit::Second).unwrap_or_default().to_string()),
    });
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": "Tenant",
        "metadata": { "name": tenant.name_any() },
        "status": { "conditions": [condition] },
    });
    api.patch_status(&tenant.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&patch)).await.map(drop)
}

fn standing(tenant: &DynamicObject) -> Option<&Value> {
    tenant.data["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == TYPE)
}
