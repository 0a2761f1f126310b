//! Whose namespaces are: as a watch has them, and where it does not yet, as the API server says.

use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::PartialObjectMeta,
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::time::timeout;

use crate::kubernetes::names::TENANT_LABEL;

/// For one question to the API server, which itself waits for us.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Namespaces {
    api: Api<PartialObjectMeta<Namespace>>,
    known: Store<PartialObjectMeta<Namespace>>,
}

impl Namespaces {
    /// And what keeps it up to date until it is dropped.
    pub(super) fn watch(client: Client) -> (Self, impl Future<Output = ()> + use<>) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
        let (known, writer) = reflector::store();
        // Tenants' alone: the others are none of ours, and may be thousands.
        let of_tenants = watcher::Config::default().labels(TENANT_LABEL);
        let events = watcher(api.clone(), of_tenants).default_backoff().reflect(writer);
        // An error is that of one attempt: meanwhile the API server is asked.
        let watching = events.for_each(|_| std::future::ready(()));
        (Self { api, known }, watching)
    }

    /// The tenant; or why there is none, for the author of a pod.
    pub(super) async fn tenant(&self, namespace: &str) -> Result<String, String> {
        let known = self.known.get(&ObjectRef::new(namespace));
        if let Some(tenant) = known.and_then(|known| known.metadata.labels.as_ref()?.get(TENANT_LABEL).cloned()) {
            return Ok(tenant);
        }
        // The API server, which knows that the namespace has the label, may know it before the watch does.
        let found = match timeout(PATIENCE, self.api.get(namespace)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(format!("it cannot be told whose namespace {namespace} is: {error}")),
            Err(_) => return Err(format!("it cannot be told whose namespace {namespace} is: the API server does not answer")),
        };
        let tenant = found.metadata.labels.unwrap_or_default().remove(TENANT_LABEL);
        tenant.ok_or_else(|| format!("namespace {namespace} has no label {TENANT_LABEL}: pods are injected in tenants' namespaces alone"))
    }
}
