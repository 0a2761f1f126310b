//! One Tenant as it stands -> its namespaces as they are to be.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    runtime::{
        controller::Action,
        finalizer::{self, Event, finalizer},
        reflector::Store,
    },
};
use ringfence_xds::resource::PLATFORM;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    Error, FINALIZER, Settings,
    apply::{api_of, apply, delete, is_of, ours},
    claim::{Claim, Serving, platform_egress, tenant_policy},
    condition::{self, Refusal},
    fence,
    index::Index,
    kind, namespace, network, retire,
    terms::{Gate, Terms, Wrong},
};
use crate::{
    compile::agreed,
    kubernetes::{names::FIELD_MANAGER, trust::TrustText},
    spec::{PlatformSpec, TenantSpec, WorkloadSpec},
};

/// What all reconciliations share.
pub(super) struct Tenancy {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) tenants: Store<DynamicObject>,
    pub(super) workloads: Store<DynamicObject>,
    pub(super) platforms: Store<DynamicObject>,
    pub(super) trust: watch::Receiver<TrustText>,
    pub(super) index: Arc<Index>,
}

pub(super) async fn reconcile(tenant: Arc<DynamicObject>, tenancy: Arc<Tenancy>) -> Result<Action, finalizer::Error<Error>> {
    let api: Api<DynamicObject> = Api::all_with(tenancy.client.clone(), &kind("Tenant"));
    let tenancy = &tenancy;
    finalizer(&api, FINALIZER, tenant, |event| async {
        match event {
            Event::Apply(tenant) => tenancy.keep(&tenant).await?,
            Event::Cleanup(tenant) => tenancy.retire(&tenant).await?,
        }
        Ok(Action::await_change())
    })
    .await
}

impl Tenancy {
    async fn keep(&self, tenant: &DynamicObject) -> Result<(), Error> {
        for store in [&self.tenants, &self.workloads, &self.platforms] {
            store.wait_until_ready().await.map_err(|_| Error::Ended)?;
        }
        let (refusals, failed) = match self.onboard(tenant).await {
            Ok(Ok(refusals)) => (refusals, None),
            Ok(Err(wrong)) => (vec![faulty(&wrong)], None),
            // What stands is kept, and this is tried again.
            Err(error) if error.is_refusal() => (vec![Refusal { reason: "ApiRefuses", message: error.to_string() }], Some(error)),
            Err(error) => return Err(error),
        };
        self.tell(tenant, &refusals).await?;
        failed.map_or(Ok(()), Err)
    }

    async fn tell(&self, tenant: &DynamicObject, refusals: &[Refusal]) -> Result<(), Error> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind("Tenant"));
        condition::tell(&api, tenant, refusals).await.map_err(Error::from)
    }

    async fn retire(&self, tenant: &DynamicObject) -> Result<(), Error> {
        let name = tenant.name_any();
        let uid = tenant.uid().unwrap_or_default();
        let claimed = namespace::of_tenant(&self.client, &name, &uid).await?;
        self.index.claim(&name, &claimed.iter().map(ResourceExt::name_any).collect());
        let retired = retire::retire(&self.client, tenant, &uid, self.settings.pods_end_within).await;
        match &retired {
            Ok(()) => self.index.claim(&name, &BTreeSet::new()),
            Err(Error::Staying(what)) => {
                let message = format!("is deleted when its namespaces are gone, which wait for pods that do not end: {what}");
                self.tell(tenant, &[Refusal { reason: "PodsStay", message }]).await?;
            }
            Err(Error::Leaving) => {
                let message = "is deleted when its namespaces are gone: their conditions tell what they wait for".into();
                self.tell(tenant, &[Refusal { reason: "NamespacesTerminating", message }]).await?;
            }
            Err(_) => {}
        }
        retired
    }

    /// What stands in the way of the tenant's namespaces, one by one; or faults for which nothing of them is touched.
    async fn onboard(&self, tenant: &DynamicObject) -> Result<Result<Vec<Refusal>, Vec<Wrong>>, Error> {
        let (name, uid) = (tenant.name_any(), tenant.uid().unwrap_or_default());
        let read = || -> Result<_, Vec<Wrong>> {
            let spec: TenantSpec = spec_of(tenant)?;
            let platform = self.platform()?;
            let terms = Terms::read(&name, spec.kubernetes.as_deref(), platform.kubernetes.as_ref())?;
            Ok((spec, platform, terms))
        };
        let (spec, platform, terms) = match read() {
            Ok(read) => read,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let peer_specs: HashMap<&str, TenantSpec> =
            spec.peers.iter().filter_map(|peer| Some((peer.as_str(), self.tenant(peer)?))).collect();
        let peers: Vec<&str> = agreed(&name, &spec, |peer| peer_specs.get(peer)).into_iter().collect();
        let workloads = self.workloads_of(&name);
        let trust = self.trust.borrow().clone();
        let claim = Claim {
            name: &name,
            uid: &uid,
            terms,
            workloads: workloads.iter().map(|(name, spec)| Serving::new(name, spec)).collect(),
            system_namespace: &self.settings.system_namespace,
            pods_capture: self.settings.pods_capture,
            trust: &trust,
            peers,
        };
        let egress = tenant_policy(&name, &spec, &claim.peers)
            .and_then(|policy| Ok(network::egress(&policy, &platform_egress(PLATFORM, &platform)?)));

        let held = namespace::of_tenant(&self.client, &name, &uid).await?;
        let claimed: BTreeSet<String> = claim.terms.namespaces.iter().cloned().collect();
        self.index.claim(&name, &held.iter().map(ResourceExt::name_any).chain(claimed.iter().cloned()).collect());
        let mut refusals: Vec<Refusal> = egress.as_ref().err().map(|wrong| faulty(wrong)).into_iter().collect();
        for namespace in &claim.terms.namespaces {
            refusals.extend(self.fence(&claim, namespace, egress.as_ref().ok()).await?.err());
        }
        for namespace in held.iter().filter(|namespace| !claimed.contains(&namespace.name_any()) && !namespace::is_leaving(namespace)) {
            retire::close(&self.client, namespace).await?;
            let message = format!(
                "namespace {:?} is no longer listed: no pod is admitted there, and it is deleted with the Tenant; list it again to open it",
                namespace.name_any()
            );
            refusals.push(Refusal { reason: "NamespaceNotListed", message });
        }
        if !claim.terms.namespaces.is_empty() {
            self.default_workload(&claim).await?;
        }
        Ok(Ok(refusals))
    }

    /// Makes the namespace and its fence stand, and opens it when all of that does. `egress`: `None` where it cannot be told.
    async fn fence(&self, claim: &Claim<'_>, name: &str, egress: Option<&NetworkPolicy>) -> Result<Result<(), Refusal>, Error> {
        let namespace = match namespace::take(&self.client, claim, name).await? {
            Ok(namespace) => namespace,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let gate = namespace::gate(&namespace);
        // First, for by its label others know that the namespace is a tenant's.
        let namespace = namespace::label(&self.client, namespace, fence::namespace_labels(claim, gate)).await?;
        self.keep_children(claim, name, gate, egress).await?;
        if gate == Gate::Closed && egress.is_some() {
            apply(&self.client, &fence::quota(claim, name, Gate::Open)?, None).await?;
            namespace::label(&self.client, namespace, fence::namespace_labels(claim, Gate::Open)).await?;
        }
        Ok(Ok(()))
    }

    async fn keep_children(&self, claim: &Claim<'_>, namespace: &str, gate: Gate, egress: Option<&NetworkPolicy>) -> Result<(), Error> {
        let mut children = vec![fence::quota(claim, namespace, gate)?];
        children.extend(fence::children(claim, namespace, egress.cloned())?);
        let mut live = BTreeMap::new();
        // Kind by kind: what cannot be looked at must not hold up what stands before it.
        for child in &children {
            if !live.contains_key(&child.kind.kind) {
                let ours = ours(&self.client, &child.kind, namespace).await?;
                live.insert(child.kind.kind.clone(), (child.kind.clone(), ours));
            }
            let standing = live.get_mut(&child.kind.kind).and_then(|(_, ours)| ours.remove(&child.name()));
            apply(&self.client, child, standing.as_ref()).await?;
        }
        for (kind, rest) in live.into_values() {
            let api = api_of(&self.client, &kind, Some(namespace));
            for object in rest.values().filter(|object| is_of(*object, claim.uid)) {
                if egress.is_some() || object.name_any() != network::EGRESS {
                    delete(&api, object).await?;
                }
            }
        }
        Ok(())
    }

    /// An operator's own stands as it is.
    async fn default_workload(&self, claim: &Claim<'_>) -> Result<(), Error> {
        let api = api_of(&self.client, &kind("Workload"), None);
        let live = api.get_opt(claim.name).await?;
        if live.as_ref().is_some_and(|live| !fence::is_default_workload(live, claim.uid)) {
            return Ok(());
        }
        let wanted = fence::default_workload(claim);
        // What an operator adds to it stays, as the API server's defaults do.
        if live.is_some_and(|live| holds(&live.data["spec"], &wanted["spec"])) {
            return Ok(());
        }
        api.patch(claim.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&wanted)).await.map(drop).map_err(Error::from)
    }

    fn platform(&self) -> Result<PlatformSpec, Vec<Wrong>> {
        let platforms = self.platforms.state();
        let platform = platforms.iter().find(|platform| platform.name_any() == PLATFORM);
        platform.map_or_else(|| Ok(PlatformSpec::default()), |platform| spec_of(platform))
    }

    fn tenant(&self, name: &str) -> Option<TenantSpec> {
        self.tenants.get(&super::tenant_ref(name)).and_then(|tenant| spec_of(&tenant).ok())
    }

    /// Sorted by name. One that cannot be read has its fault told with it, and opens nothing.
    fn workloads_of(&self, tenant: &str) -> BTreeMap<String, WorkloadSpec> {
        let of_tenant = |workload: &DynamicObject| workload.data["spec"]["tenant"] == tenant;
        let workloads = self.workloads.state_filter(of_tenant);
        workloads.iter().filter_map(|workload| Some((workload.name_any(), spec_of(workload).ok()?))).collect()
    }
}

/// Whether all that is in `wanted` is in `live`.
fn holds(live: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Object(fields) => fields.iter().all(|(name, wanted)| live.get(name).is_some_and(|live| holds(live, wanted))),
        wanted => live == wanted,
    }
}

fn spec_of<S: serde::de::DeserializeOwned>(object: &DynamicObject) -> Result<S, Vec<Wrong>> {
    serde_json::from_value(object.data["spec"].clone()).map_err(|error| vec![Wrong { path: String::new(), message: error.to_string() }])
}

fn faulty(wrong: &[Wrong]) -> Refusal {
    Refusal { reason: "SpecFaulty", message: wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ") }
}
