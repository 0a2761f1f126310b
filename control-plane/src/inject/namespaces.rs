//! Whose namespaces are: as watches have it, and where they do not yet, as the API server says.

use std::{future::ready, time::Duration};

use futures_util::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::time::timeout;

use crate::{
    kubernetes::{
        names::{TENANT_LABEL, TENANT_UID_ANNOTATION},
        owner::Owner,
    },
    spec::Kind,
    store::kube::api_resource,
};

/// For one question to the API server, which itself waits for us.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Namespaces {
    api: Api<PartialObjectMeta<Namespace>>,
    known: Store<PartialObjectMeta<Namespace>>,
    kind: ApiResource,
    tenants: Api<PartialObjectMeta<DynamicObject>>,
    known_tenants: Store<PartialObjectMeta<DynamicObject>>,
}

impl Namespaces {
    /// And what keeps it up to date until it is dropped.
    pub(super) fn watch(client: Client) -> (Self, impl Future<Output = ()> + use<>) {
        let kind = api_resource(Kind::Tenant);
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        let tenants: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &kind);
        let (known, writer) = reflector::store();
        let tenants_writer = reflector::store::Writer::new(kind.clone());
        let known_tenants = tenants_writer.as_reader();
        // Tenants' alone: the others are none of ours, and may be thousands.
        let of_tenants = watcher::Config::default().labels(TENANT_LABEL);
        let namespace_events = watcher(api.clone(), of_tenants).default_backoff().reflect(writer);
        let tenant_events = watcher(tenants.clone(), watcher::Config::default()).default_backoff().reflect(tenants_writer);
        // An error is that of one attempt: meanwhile the API server is asked.
        let watching = async {
            tokio::join!(namespace_events.for_each(|_| ready(())), tenant_events.for_each(|_| ready(())));
        };
        (Self { api, known, kind, tenants, known_tenants }, watching)
    }

    /// The tenant; or why there is none, for the author of a pod.
    pub(super) async fn tenant(&self, namespace: &str) -> Result<String, String> {
        if let Some(owner) = self.known.get(&ObjectRef::new(namespace)).and_then(|known| Owner::of(&known.metadata))
            && let Some(tenant) = self.known_tenants.get(&ObjectRef::new_with(&owner.tenant, self.kind.clone()))
            && owner.is(&tenant.metadata)
        {
            return Ok(owner.tenant);
        }
        // The API server, which knows that the namespace has the label, may know it before the watches do.
        let asked = timeout(PATIENCE, self.ask(namespace)).await;
        asked.unwrap_or_else(|_| Err(format!("it cannot be told whose namespace {namespace} is: the API server does not answer")))
    }

    async fn ask(&self, namespace: &str) -> Result<String, String> {
        let unknown = |error| format!("it cannot be told whose namespace {namespace} is: {error}");
        let found = self.api.get(namespace).await.map_err(unknown)?;
        let owner = Owner::of(&found.metadata)
            .ok_or_else(|| format!("namespace {namespace} has no label {TENANT_LABEL}: pods are injected in tenants' namespaces alone"))?;
        let tenant = self.tenants.get_opt(&owner.tenant).await.map_err(unknown)?;
        if !tenant.is_some_and(|tenant| owner.is(&tenant.metadata)) {
            return Err(format!(
                "namespace {namespace} is no namespace of the Tenant {} that there is: its annotation {TENANT_UID_ANNOTATION} must be that Tenant's UID",
                owner.tenant
            ));
        }
        Ok(owner.tenant)
    }

    /// Whether the watches have told what there is.
    pub(super) fn are_known(&self) -> bool {
        let of_namespaces = self.known.wait_until_ready().now_or_never();
        let of_tenants = self.known_tenants.wait_until_ready().now_or_never();
        matches!((of_namespaces, of_tenants), (Some(Ok(())), Some(Ok(()))))
    }
}
