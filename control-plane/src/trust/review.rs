//! The proof of a pod's sidecar: a token of its service account, for our audience and bound to the pod, which the API server itself looks at.
//!
//! token -> TokenReview -> pod -> namespace -> tenant and Workload. Nothing of this is kept: a pod that is deleted has no identity at its
//! next renewal. Who asked is told that the proof is none, and never why; the operator is told why.

use std::{fmt, time::Duration};

use k8s_openapi::{
    api::{
        authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
        core::v1::{Namespace, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DynamicObject, ObjectMeta, PartialObjectMeta, PostParams},
};
use parking_lot::Mutex;
use ringfence_xds::policy::{TenantId, WorkloadName, spiffe::Member};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{
    fleet::Fleet,
    kubernetes::{
        names::{TENANT_LABEL, TENANT_UID_ANNOTATION, TOKEN_AUDIENCE, WORKLOAD_LABEL},
        owner::Owner,
    },
    say::say,
    spec::Kind,
    store::kube::api_resource,
};

/// At a time; more wait. Each is four requests to the API server.
const MAX_REVIEWS: usize = 32;
/// A sidecar waits 10 s.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Between two lines for the operator.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Of what the API server says of a token.
const MAX_TOLD_CHARS: usize = 200;
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is no token of a service account")]
    NoToken,
    #[error("the API server does not authenticate the token: {0:?}")]
    Unauthenticated(String),
    #[error("the token is not for the audience {TOKEN_AUDIENCE:?}")]
    Audience,
    #[error("the token is of {0:?}, which is no service account")]
    NoAccount(String),
    #[error("the token of {0} is not bound to a pod")]
    Unbound(Account),
    #[error("{0} is gone")]
    PodGone(PodName),
    #[error("{0} is another pod of that name than the token's")]
    AnotherPod(PodName),
    #[error("{0} has another service account than the token")]
    AnotherAccount(PodName),
    #[error("{0} has come to an end")]
    Finished(PodName),
    #[error("the namespace of {0} is no tenant's: it has no label {TENANT_LABEL}")]
    NoTenant(PodName),
    #[error(
        "the namespace of {pod} is of another Tenant {tenant} than the one that there is: its annotation {TENANT_UID_ANNOTATION} is not that one's UID"
    )]
    AnotherTenant { pod: PodName, tenant: String },
    #[error("{pod}: the label {label}: {message}")]
    Label { pod: PodName, label: &'static str, message: String },
    #[error("{pod} would be Workload {workload}, which is none of its tenant's, {tenant}, alone")]
    Workload { pod: PodName, workload: WorkloadName, tenant: TenantId },
}

/// Why nobody knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the API server cannot be asked: {0}")]
    Api(#[from] kube::Error),
    #[error("the API server did not answer within {} s", TIMEOUT.as_secs())]
    Slow,
}

/// A service account, `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    namespace: String,
    name: String,
}

/// A pod, `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodName {
    namespace: String,
    name: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service account {}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.name)
    }
}

/// What the API server says that a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    account: Account,
    pod: PodName,
    uid: String,
}

pub(super) struct Reviewer {
    client: Client,
    places: Semaphore,
    refusals: Mutex<Told>,
    /// That the API server cannot be asked.
    failures: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    /// Since then.
    untold: usize,
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewer").finish_non_exhaustive()
    }
}

impl Reviewer {
    pub(super) fn new(client: Client) -> Self {
        Self { client, places: Semaphore::new(MAX_REVIEWS), refusals: Mutex::default(), failures: Mutex::default() }
    }

    /// Whose sidecar shows `token`. `fleet`: knows the Workloads. What stands against it is told to the operator.
    pub(super) async fn review(&self, token: &str, fleet: &Fleet) -> Result<Member, ReviewError> {
        let reviewed = timeout(TIMEOUT, async {
            // It is never closed.
            let _place = self.places.acquire().await.map_err(|_| ReviewError::Slow)?;
            self.ask(token, fleet).await
        });
        let reviewed = reviewed.await.unwrap_or(Err(ReviewError::Slow));
        match &reviewed {
            Ok(_) => {}
            Err(error @ ReviewError::Refused(_)) => self.refusals.lock().tell(format_args!("no identity is issued: {error}")),
            Err(error) => self.failures.lock().tell(format_args!("identities are renewed unseen, and no new ones issued: {error}")),
        }
        reviewed
    }

    async fn ask(&self, token: &str, fleet: &Fleet) -> Result<Member, ReviewError> {
        if token.split('.').count() != 3 {
            return Err(Refusal::NoToken.into());
        }
        let spec = TokenReviewSpec { audiences: Some(vec![TOKEN_AUDIENCE.into()]), token: Some(token.into()) };
        let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
        let review = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let bound = bound(review.status.unwrap_or_default())?;
        let PodName { namespace, name } = &bound.pod;
        let pod = Api::<Pod>::namespaced(self.client.clone(), namespace).get_opt(name).await?;
        let pod = pod.ok_or_else(|| Refusal::PodGone(bound.pod.clone()))?;
        check(&pod, &bound, Timestamp::now())?;
        let namespace = Api::<Namespace>::all(self.client.clone()).get_opt(namespace).await?;
        let owner = namespace.as_ref().and_then(|namespace| Owner::of(&namespace.metadata));
        let owner = owner.ok_or_else(|| Refusal::NoTenant(bound.pod.clone()))?;
        let tenants: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &api_resource(Kind::Tenant));
        if !tenants.get_opt(&owner.tenant).await?.is_some_and(|tenant| owner.is(&tenant.metadata)) {
            return Err(Refusal::AnotherTenant { pod: bound.pod, tenant: owner.tenant }.into());
        }
        let member = named(&pod, &owner.tenant, &bound)?;
        let Member::Workload { tenant: Some(tenant), workload } = &member else { return Err(Refusal::NoTenant(bound.pod).into()) };
        // A Workload that tenants share is none of this tenant's alone, and another answer than `member`.
        if fleet.member(workload.as_str()).as_ref() != Some(&member) {
            return Err(Refusal::Workload { pod: bound.pod, workload: workload.clone(), tenant: tenant.clone() }.into());
        }
        Ok(member)
    }
}

impl Told {
    /// One line a second: whoever can reach the port can have proofs refused.
    fn tell(&mut self, line: fmt::Arguments<'_>) {
        let now = Instant::now();
        if self.at.is_some_and(|at| now < at + TELL_EVERY) {
            self.untold += 1;
            return;
        }
        match std::mem::take(&mut self.untold) {
            0 => say(format_args!("ringfence: {line}")),
            untold => say(format_args!("ringfence: {line} (and {untold} that were not told)")),
        }
        self.at = Some(now);
    }
}

/// Whose token it is, and which pod's.
fn bound(status: TokenReviewStatus) -> Result<Bound, Refusal> {
    if status.authenticated != Some(true) {
        let told = status.error.unwrap_or_default();
        return Err(Refusal::Unauthenticated(told.chars().take(MAX_TOLD_CHARS).collect()));
    }
    // An authenticator that knows nothing of audiences tells none.
    if !status.audiences.is_some_and(|audiences| audiences.iter().any(|audience| audience == TOKEN_AUDIENCE)) {
        return Err(Refusal::Audience);
    }
    let user = status.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let Some((namespace, name)) = username.strip_prefix(ACCOUNT_PREFIX).and_then(|account| account.split_once(':')) else {
        return Err(Refusal::NoAccount(username));
    };
    let account = Account { namespace: namespace.into(), name: name.into() };
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    match (one(POD_NAME), one(POD_UID)) {
        (Some(pod), Some(uid)) => Ok(Bound { pod: PodName { namespace: namespace.into(), name: pod }, account, uid }),
        _ => Err(Refusal::Unbound(account)),
    }
}

/// Whether the pod of that name is the token's, and still there at `now`.
fn check(pod: &Pod, bound: &Bound, now: Timestamp) -> Result<(), Refusal> {
    let refused = |refusal: fn(PodName) -> Refusal| Err(refusal(bound.pod.clone()));
    if pod.metadata.uid.as_deref() != Some(&bound.uid) {
        return refused(Refusal::AnotherPod);
    }
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    if account != Some(&bound.account.name) {
        return refused(Refusal::AnotherAccount);
    }
    // The time lies ahead by the pod's grace, in which it still serves.
    if pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| at.0 <= now) {
        return refused(Refusal::PodGone);
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return refused(Refusal::Finished);
    }
    Ok(())
}

/// The tenant is the namespace's, which only the platform can label; the Workload is what the pod says, or the one named as the tenant.
fn named(pod: &Pod, tenant: &str, bound: &Bound) -> Result<Member, Refusal> {
    let label =
        |label: &'static str, error: &dyn fmt::Display| Refusal::Label { pod: bound.pod.clone(), label, message: error.to_string() };
    let workload = pod.metadata.labels.as_ref().and_then(|labels| labels.get(WORKLOAD_LABEL)).map_or(tenant, String::as_str);
    Ok(Member::Workload {
        workload: workload.parse().map_err(|error| label(WORKLOAD_LABEL, &error))?,
        tenant: Some(tenant.parse().map_err(|error| label(TENANT_LABEL, &error))?),
    })
}

#[cfg(test)]
mod tests;
