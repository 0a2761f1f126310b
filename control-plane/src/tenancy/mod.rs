//! Onboarding: a Tenant -> its namespaces, each behind a fence before the first pod may be scheduled in it.
//!
//! Takes the Tenants, Workloads and Platform of a cluster as they change; makes and keeps what [`fence`] says they come to, repairs what
//! others change of it, and takes it down in order when the Tenant goes. Whose a namespace is says the Tenant's UID on it, never a name, and
//! no owner reference: the garbage collector would take the fence down beside the pods that it holds.
//!
//! Nothing is polled: each object that is kept is watched. One replica runs it at a time; it tells no sidecar anything.

mod apply;
mod claim;
mod condition;
mod fence;
mod index;
mod namespace;
mod network;
mod quantity;
mod reconcile;
mod retire;
mod terms;

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
    runtime::{
        Controller, WatchStreamExt,
        controller::{self, Action},
        finalizer,
        reflector::{self, ObjectRef, Store},
        watcher::{self, watcher},
    },
};
use tokio::sync::watch;

pub use fence::ADMIN_ROLE;
pub(crate) use terms::{Wrong, wrong_with_platform, wrong_with_tenant};

use self::{index::Index, reconcile::Tenancy};
use crate::{
    kubernetes::{lease::Leader, names::MANAGED_BY, trust::TrustText},
    say::say,
    spec::API_VERSION,
};

/// What a Tenant waits with until its namespaces are gone.
const FINALIZER: &str = "ringfence.dev/tenancy";
/// Longer than the grace that they are given, by what a kubelet takes to tell.
pub const PODS_END_WITHIN: Duration = Duration::from_secs(90);
/// After the API server refused something or was not to be reached.
const RETRY: Duration = Duration::from_secs(2);

/// What the chart has decided.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the control plane is.
    pub system_namespace: String,
    /// Whether injected pods carry the capture step, which no Pod Security Standard but `privileged` admits. If not, the namespaces are
    /// held to the tenant's standard by the API server itself.
    pub pods_capture: bool,
    /// How long the pods of a tenant that goes may take before its status names them.
    pub pods_end_within: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", said(.0))]
    Kube(#[from] kube::Error),
    #[error("cannot be watched: {0}")]
    Watch(#[from] watcher::Error),
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its namespaces are not gone yet")]
    Leaving,
    /// Pods, by namespace and name.
    #[error("its namespaces are not gone yet, for pods that do not end: {0}")]
    Staying(String),
    #[error("the watches have ended")]
    Ended,
}

impl Error {
    /// Whether the API server has said that it takes something never, unless somebody changes what it judges by.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status)) if matches!(status.code, 403 | 422))
    }
}

/// [`run`] for as long as this replica is the one that writes. What is in flight when it no longer is may still be written: each write says
/// what the specs come to, of the objects as they were looked at, and two of them say the same.
pub async fn lead(client: Client, mut leader: Leader, settings: Settings, trust: watch::Receiver<TrustText>) {
    loop {
        while !leader.is_held() {
            leader.changed().await;
        }
        let deposed = async {
            while leader.is_held() {
                leader.changed().await;
            }
        };
        tokio::select! {
            () = run(client.clone(), settings.clone(), trust.clone()) => {}
            () = deposed => {}
        }
    }
}

/// Makes and keeps tenants' namespaces until it is dropped. To be run by one replica of all.
pub async fn run(client: Client, settings: Settings, trust: watch::Receiver<TrustText>) {
    let tenants: Api<DynamicObject> = Api::all_with(client.clone(), &kind("Tenant"));
    let everything = watcher::Config::default;
    let controller = Controller::new_with(tenants.clone(), everything(), kind("Tenant"));
    let (workloads, workload_events) = reflected(&client, "Workload");
    let (platforms, platform_events) = reflected(&client, "Platform");
    let index = Arc::new(Index::default());
    let all = controller.store();
    let tenancy = Tenancy {
        client: client.clone(),
        settings,
        tenants: all.clone(),
        workloads,
        platforms,
        trust: trust.clone(),
        index: index.clone(),
    };

    let claimants = |index: &Arc<Index>| {
        let index = index.clone();
        move |namespace: &str| index.claimants(namespace).into_iter().map(|name| tenant_ref(&name)).collect::<Vec<_>>()
    };
    let of_namespace = claimants(&index);
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let controller = controller
        .watches(namespaces, everything(), move |namespace| of_namespace(&namespace.name_any()))
        // What two tenants agree on concerns both.
        .watches_with(tenants, kind("Tenant"), everything(), |tenant: DynamicObject| {
            let peers = tenant.data["spec"]["peers"].as_array().cloned().unwrap_or_default();
            peers.iter().filter_map(|peer| peer.as_str().map(tenant_ref)).collect::<Vec<_>>()
        })
        .reconcile_on(workload_events.flat_map(move |workload| {
            let concerned = index.served_by(&workload).into_iter().map(|name| tenant_ref(&name));
            stream::iter(concerned.collect::<Vec<_>>())
        }))
        .reconcile_all_on(platform_events.map(drop))
        .reconcile_all_on(changes(trust));
    let ours = || everything().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let controller = fence::kinds().into_iter().fold(controller, |controller, kind| {
        let of_child = claimants(&tenancy.index);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        controller.watches_with(api, kind, ours(), move |child: DynamicObject| of_child(&child.namespace().unwrap_or_default()))
    });
    controller.run(reconcile::reconcile, retry, Arc::new(tenancy)).for_each(|outcome| async { tell(outcome) }).await;
}

/// The kind of ours by that name.
fn kind(kind: &str) -> ApiResource {
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn tenant_ref(name: &str) -> ObjectRef<DynamicObject> {
    ObjectRef::new_with(name, kind("Tenant"))
}

/// All objects of a kind of ours as they stand, and each that was touched.
fn reflected(client: &Client, name: &str) -> (Store<DynamicObject>, impl Stream<Item = DynamicObject> + Send + use<>) {
    let writer = reflector::store::Writer::new(kind(name));
    let store = writer.as_reader();
    let events = watcher(Api::all_with(client.clone(), &kind(name)), watcher::Config::default()).default_backoff();
    let touched = reflector::reflector(writer, events).touched_objects();
    (store, touched.filter_map(|touched| async { touched.inspect_err(|error| say(format_args!("onboarding: {}", one_line(error)))).ok() }))
}

/// An item for each value after the one that is there.
fn changes(trust: watch::Receiver<TrustText>) -> impl Stream<Item = ()> + Send {
    stream::unfold(trust, |mut trust| async move {
        match trust.changed().await {
            Ok(()) => Some(((), trust)),
            // Nobody tells any more: what was told last holds.
            Err(_) => std::future::pending().await,
        }
    })
}

fn retry(_: Arc<DynamicObject>, error: &finalizer::Error<Error>, _: Arc<Tenancy>) -> Action {
    match error {
        finalizer::Error::CleanupFailed(Error::Leaving) => Action::await_change(),
        _ => Action::requeue(RETRY),
    }
}

type Outcome = Result<(ObjectRef<DynamicObject>, Action), controller::Error<finalizer::Error<Error>, watcher::Error>>;

fn tell(outcome: Outcome) {
    match outcome {
        // It went between its event and now, or is waited for.
        Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
        Err(controller::Error::ReconcilerFailed(finalizer::Error::CleanupFailed(Error::Leaving), _)) => {}
        Err(controller::Error::ReconcilerFailed(error, tenant)) => {
            let why = match &error {
                finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error.to_string(),
                finalizer::Error::AddFinalizer(error) | finalizer::Error::RemoveFinalizer(error) => said(error),
                other => other.to_string(),
            };
            say(format_args!("Tenant/{}: onboarding: {}", tenant.name, one_line(why)));
        }
        Err(error) => say(format_args!("onboarding: {}", one_line(&error))),
    }
}

/// What the API server has said, without the debug output that [`kube::Error`] shows beside it.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server: {} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

fn one_line(error: impl std::fmt::Display) -> String {
    error.to_string().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests;
