//! The certificate authority of a trust domain: makes members of those who prove who they are, and tells everybody whom to believe.
//!
//! `csr` -> proof (`tokens`, or a live SVID) -> `authority` certifies. `rotation` decides which authority that is, `state` keeps it.

mod attempts;
mod authority;
mod credentials;
mod csr;
mod error;
mod given;
mod issue;
mod peer;
mod review;
mod rotation;
mod shared;
mod signed;
mod state;
mod tokens;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::StreamExt;
use kube::Client;
use parking_lot::Mutex;
use rcgen::PublicKeyData;
use ringfence_xds::{
    generated::resource as proto,
    policy::{SpiffeId, TrustBundle, TrustDomain, spiffe::Member as SpiffeMember},
    resource::{Resource, TRUST_BUNDLE},
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    compile::Delta,
    fleet::Fleet,
    kubernetes::secret::{SecretError, SharedSecret},
    say::say,
};
use authority::{Authority, AuthorityError};
use review::Reviewer;
use rotation::{Anchor, Rotation};
use shared::Shared;
use state::StateDir;
use tokens::JoinTokens;

pub(crate) use credentials::Credentials;
pub use csr::{CsrError, public_key};
pub use error::TrustError;
pub use given::{GivenCa, Intermediate};
pub(crate) use issue::Issuing;
pub(crate) use peer::{Caller, Peer};
pub use rotation::{Phase, RotationError};
pub(crate) use signed::bundle_among;
pub use signed::{Authorities, SignedTrustConfig};
pub use state::StateError;
pub(crate) use state::bundle_pem;
pub use tokens::{DEFAULT_TTL as DEFAULT_JOIN_TTL, MAX_TTL as MAX_JOIN_TTL, TokenError};

/// Of an X.509-SVID.
pub const DEFAULT_SVID_TTL: Duration = Duration::from_secs(3600);
pub const MIN_SVID_TTL: Duration = Duration::from_secs(10);
pub const MAX_SVID_TTL: Duration = Duration::from_secs(24 * 3600);
pub const DEFAULT_TRUST_DOMAIN: &str = "ringfence.internal";
/// How often what has expired is looked for …
const LOOK: Duration = Duration::from_secs(5);
/// … and, during a rotation, whether everybody has the new bundle.
const LOOK_WHILE_ANNOUNCING: Duration = Duration::from_secs(1);
/// How often a replica that starts begins anew because another did at the same time.
const MAX_RACES: usize = 16;

/// What an operator decides of identities.
#[derive(Clone, Debug)]
pub struct TrustConfig {
    pub trust_domain: TrustDomain,
    /// Lifetime of SVIDs.
    pub svid_ttl: Duration,
    /// The operator's own authority.
    pub given: Option<GivenCa>,
}

/// `ringfence status`: the bundle and its authorities.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustStatus {
    pub trust_domain: String,
    pub sequence: u64,
    /// The oldest first.
    pub authorities: Vec<Phase>,
}

#[derive(Debug)]
pub struct Trust {
    kept: Kept,
    /// The operator's own authority, which no state keeps.
    given: Option<Arc<Authority>>,
    ttl: Duration,
    fleet: Arc<Fleet>,
    tokens: JoinTokens,
    /// Of service accounts' tokens, in Kubernetes.
    reviewer: Option<Reviewer>,
    /// Held while the authorities change: one change at a time.
    changing: tokio::sync::Mutex<()>,
    rotation: Mutex<Rotation>,
    credentials: watch::Sender<Arc<Credentials>>,
}

/// Where the authorities are kept.
#[derive(Debug)]
enum Kept {
    Dir(StateDir),
    /// By all replicas.
    Shared(Box<Shared>),
    /// By whoever signs the bundle, who publishes it too: see `signed`.
    Elsewhere,
}

impl Kept {
    async fn save(&self, rotation: &Rotation) -> Result<(), StateError> {
        match self {
            Self::Dir(dir) => dir.save(rotation),
            Self::Shared(shared) => shared.save(rotation).await,
            Self::Elsewhere => Ok(()),
        }
    }
}

impl Trust {
    /// The authorities kept in the directory `dir`, or new ones where nothing was ever kept there; their bundle is published.
    pub fn open(dir: PathBuf, config: &TrustConfig, fleet: Arc<Fleet>, now: Duration) -> Result<Arc<Self>, TrustError> {
        let dir = StateDir::open(dir)?;
        let rotation = opened(config, dir.load()?, now)?;
        let credentials = Credentials::new(&rotation, config.svid_ttl, now)?;
        dir.save(&rotation)?;
        Ok(Self::new(Kept::Dir(dir), None, config.svid_ttl, fleet, rotation, credentials))
    }

    /// The same with a Secret, which other replicas have open too; and in Kubernetes sidecars prove by their pods who they are.
    pub async fn open_shared(
        secret: SharedSecret,
        client: Client,
        config: &TrustConfig,
        fleet: Arc<Fleet>,
        now: Duration,
    ) -> Result<Arc<Self>, TrustError> {
        let shared = Shared::new(secret);
        for _ in 0..MAX_RACES {
            let (kept, secret) = shared.load().await?.unzip();
            shared.taken_up(secret);
            let rotation = opened(config, kept, now)?;
            let credentials = Credentials::new(&rotation, config.svid_ttl, now)?;
            match shared.save(&rotation).await {
                Ok(()) => {
                    let kept = Kept::Shared(shared.into());
                    return Ok(Self::new(kept, Some(Reviewer::new(client)), config.svid_ttl, fleet, rotation, credentials));
                }
                Err(StateError::Secret(SecretError::Raced { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(TrustError::Restless)
    }

    fn new(
        kept: Kept,
        reviewer: Option<Reviewer>,
        ttl: Duration,
        fleet: Arc<Fleet>,
        rotation: Rotation,
        credentials: Credentials,
    ) -> Arc<Self> {
        let trust = Self {
            kept,
            given: rotation.given.clone(),
            ttl,
            fleet,
            tokens: JoinTokens::default(),
            reviewer,
            changing: tokio::sync::Mutex::default(),
            rotation: Mutex::new(rotation),
            credentials: watch::Sender::new(Arc::new(credentials)),
        };
        trust.publish(&trust.credentials.borrow().bundle);
        Arc::new(trust)
    }

    fn publish(&self, bundle: &TrustBundle) {
        if !matches!(self.kept, Kept::Elsewhere) {
            self.fleet.publish(Delta { upserts: vec![Resource::new(TRUST_BUNDLE, &proto(bundle))], removed: Vec::new() });
        }
    }

    /// PEM: the present authorities, for sidecars that have none yet. `None`: they are not kept in files.
    pub(crate) fn bundle_file(&self) -> Option<PathBuf> {
        match &self.kept {
            Kept::Dir(dir) => Some(dir.bundle()),
            Kept::Shared(_) | Kept::Elsewhere => None,
        }
    }

    /// Whether sidecars prove by their pods who they are.
    pub(crate) fn is_in_kubernetes(&self) -> bool {
        self.reviewer.is_some()
    }

    pub(crate) fn trust_domain(&self) -> TrustDomain {
        self.credentials.borrow().bundle.trust_domain.clone()
    }

    pub(crate) fn credentials(&self) -> watch::Receiver<Arc<Credentials>> {
        self.credentials.subscribe()
    }

    /// The caller's SVID, if it is valid now and its authority still believed.
    pub(crate) fn live(&self, caller: &Caller) -> Option<Arc<Peer>> {
        let bundle = self.credentials.borrow().bundle.clone();
        caller.peer().filter(|peer| peer.is_live(&bundle, since_epoch())).cloned()
    }

    /// A join token for the sidecar of `workload`: good for one request, and for `ttl`.
    pub fn join_token(&self, workload: &str, ttl: Duration) -> Result<String, TrustError> {
        let member = self.fleet.member(workload).ok_or_else(|| TrustError::NoWorkload(workload.into()))?;
        Ok(self.tokens.issue(member, Instant::now(), ttl)?)
    }

    /// Begins to replace the present authority by a new one.
    pub async fn rotate(&self, now: Duration) -> Result<TrustStatus, TrustError> {
        self.change(now, |rotation| Ok(rotation.begin(now)?)).await?;
        Ok(self.status())
    }

    /// Withdraws the authority that is retiring, before the last of its certificates has expired. Unless by `force`: only where everybody is
    /// known to have one of the new authority, as far as they are connected here.
    pub async fn finish(&self, now: Duration, force: bool) -> Result<TrustStatus, TrustError> {
        self.change(now, |rotation| {
            rotation.finish()?;
            if force {
                return Ok(());
            }
            let bundle = rotation.bundle();
            match self.fleet.count_peers(|peer| !peer.is_vouched_for_by(&bundle, now)) {
                0 if matches!(self.kept, Kept::Shared(_)) => Err(TrustError::OthersUnknown),
                0 => Ok(()),
                sidecars => Err(TrustError::StillShown { sidecars }),
            }
        })
        .await?;
        Ok(self.status())
    }

    pub fn status(&self) -> TrustStatus {
        let rotation = self.rotation.lock();
        TrustStatus {
            trust_domain: rotation.trust_domain.to_string(),
            sequence: rotation.sequence,
            authorities: rotation.anchors.iter().map(|anchor| anchor.phase).collect(),
        }
    }

    /// Renews, rotates and ends what time brings, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut told = Told::default();
        let mut credentials = self.credentials();
        loop {
            let look = if self.rotation.lock().is_announcing() { LOOK_WHILE_ANNOUNCING } else { LOOK };
            // A rotation that begins is looked at sooner. The sender is our own.
            if let Ok(Ok(())) = tokio::time::timeout(look, credentials.changed()).await {
                continue;
            }
            told.tell(self.step(since_epoch()).await);
        }
    }

    /// Takes up what other replicas change, until it is dropped. Without replicas there is nothing to follow.
    pub(crate) async fn follow(self: Arc<Self>) {
        let Kept::Shared(shared) = &self.kept else { return };
        let mut told = Told::default();
        let mut changes = std::pin::pin!(shared.changes());
        while changes.next().await.is_some() {
            told.tell(self.catch_up(shared, since_epoch()).await);
        }
    }

    async fn catch_up(&self, shared: &Shared, now: Duration) -> Result<(), TrustError> {
        let _one = self.changing.lock().await;
        let Some((mut next, secret)) = shared.load().await? else {
            // Somebody deleted it. Made anew by the next replica that starts, it would be another authority, which no sidecar believes.
            shared.taken_up(None);
            let rotation = self.rotation.lock().clone();
            return Ok(shared.save(&rotation).await?);
        };
        next.given.clone_from(&self.given);
        self.rotation.lock().gives_way_to(&next)?;
        if !next.is_same(&self.rotation.lock()) {
            let credentials = Credentials::new(&next, self.ttl, now)?;
            self.take_up(next, credentials, now);
        }
        shared.taken_up(Some(secret));
        Ok(())
    }

    /// What is due at `now`. Who is not vouched for any more is ended, whatever fails.
    pub async fn step(&self, now: Duration) -> Result<(), TrustError> {
        let outcome = self.advance(now).await;
        self.end_streams(now);
        outcome
    }

    async fn advance(&self, now: Duration) -> Result<(), TrustError> {
        let (is_announcing, due) = {
            let rotation = self.rotation.lock();
            (rotation.is_announcing(), rotation.clone().advance(now, false))
        };
        // Of several replicas none knows all sidecars: then the wait is as long as it may be.
        let knows_all = matches!(self.kept, Kept::Dir(_));
        let acknowledged = is_announcing && knows_all && self.fleet.has_trust_bundle_everywhere();
        if due || acknowledged {
            let advance = |rotation: &mut Rotation| {
                rotation.advance(now, acknowledged);
                Ok(())
            };
            match self.change(now, advance).await {
                // It is due for all of them, and done.
                Err(TrustError::State(StateError::Secret(SecretError::Raced { .. }))) => Ok(()),
                changed => changed,
            }
        } else if now >= self.credentials.borrow().renew_at {
            let renewed = Credentials::new(&self.rotation.lock(), self.ttl, now)?;
            self.credentials.send_replace(Arc::new(renewed));
            Ok(())
        } else {
            Ok(())
        }
    }

    /// Ends the streams of those that nobody vouches for any more.
    fn end_streams(&self, now: Duration) {
        let bundle = self.credentials.borrow().bundle.clone();
        self.fleet.retain_peers(|peer| peer.is_live(&bundle, now));
    }

    /// Written down before it is so; unchanged where that fails.
    async fn change(&self, now: Duration, edit: impl FnOnce(&mut Rotation) -> Result<(), TrustError>) -> Result<(), TrustError> {
        if matches!(self.kept, Kept::Elsewhere) {
            return Err(TrustError::Elsewhere);
        }
        let _one = self.changing.lock().await;
        let mut next = self.rotation.lock().clone();
        edit(&mut next)?;
        let credentials = Credentials::new(&next, self.ttl, now)?;
        self.kept.save(&next).await?;
        self.take_up(next, credentials, now);
        Ok(())
    }

    fn take_up(&self, next: Rotation, credentials: Credentials, now: Duration) {
        let mut rotation = self.rotation.lock();
        *rotation = next;
        self.publish(&credentials.bundle);
        self.credentials.send_replace(Arc::new(credentials));
        drop(rotation);
        self.end_streams(now);
    }

    /// An SVID for `member`, whose `key` it is; its intermediates behind it.
    fn certify(
        &self,
        member: &SpiffeMember,
        key: &impl PublicKeyData,
        validity: Range<Duration>,
    ) -> Result<Vec<CertificateDer<'static>>, TrustError> {
        let (issuer, domain) = {
            let rotation = self.rotation.lock();
            (rotation.issuer().cloned().ok_or(TrustError::NoIssuer)?, rotation.trust_domain.clone())
        };
        let id = match member {
            SpiffeMember::ControlPlane => SpiffeId::control_plane(&domain),
            SpiffeMember::Workload { tenant, workload } => SpiffeId::workload(&domain, tenant.as_ref(), workload),
        };
        Ok(issuer.certify(&id, key, validity)?)
    }
}

/// What went wrong last: told when it begins and when it changes.
#[derive(Debug, Default)]
struct Told(String);

impl Told {
    fn tell(&mut self, outcome: Result<(), TrustError>) {
        let failed = outcome.err().map(|error| format!("ringfence: identities: {error}")).unwrap_or_default();
        if failed != self.0 && !failed.is_empty() {
            say(&failed);
        }
        self.0 = failed;
    }
}

/// What was `kept`, or a first authority, as of `now`.
fn opened(config: &TrustConfig, kept: Option<Rotation>, now: Duration) -> Result<Rotation, TrustError> {
    if let Some(other) = kept.as_ref().filter(|kept| kept.trust_domain != config.trust_domain) {
        return Err(TrustError::OtherDomain(other.trust_domain.clone()));
    }
    let mut rotation = match (&config.given, kept) {
        (Some(given), kept) => given.take_over(config, kept, now)?,
        (None, Some(kept)) if kept.anchors.iter().any(|anchor| anchor.authority.is_none()) => return Err(TrustError::NotGiven),
        (None, Some(kept)) => kept,
        (None, None) => first(config, now)?,
    };
    rotation.longest_ttl = rotation.longest_ttl.max(config.svid_ttl);
    rotation.advance(now, false);
    Ok(rotation)
}

fn first(config: &TrustConfig, now: Duration) -> Result<Rotation, TrustError> {
    let (authority, certificate) = Authority::generate(&config.trust_domain, now)?;
    let anchors = vec![Anchor { certificate, authority: Some(authority.into()), phase: Phase::Issuing }];
    let (trust_domain, longest_ttl) = (config.trust_domain.clone(), config.svid_ttl);
    Ok(Rotation { trust_domain, sequence: 1, anchors, given: None, longest_ttl })
}

fn proto(bundle: &TrustBundle) -> proto::TrustBundle {
    proto::TrustBundle {
        trust_domain: bundle.trust_domain.to_string(),
        sequence: bundle.sequence,
        authorities: bundle.authorities.iter().map(|authority| authority.to_vec().into()).collect(),
    }
}

/// Where a control plane with the state directory `state` keeps its keys.
pub(crate) fn dir(state: &Path) -> PathBuf {
    state.join("trust")
}

/// The clock's time; a clock before 1970 is at 1970.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

#[cfg(test)]
mod tests;
