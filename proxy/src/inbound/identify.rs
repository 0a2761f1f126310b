//! Second stage. Takes the request's `Authorization` fields, the pinned snapshot and the time; yields the tenant whose request it is.
//! Never looks at any other field, at the path or the body: the verified token is the only source of a tenant.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use ahash::RandomState;
use http::{HeaderMap, header::AUTHORIZATION};
use quick_cache::{Weighter, unsync};
use ringfence_policy::{
    Deny, IssuerName, Reason, Snapshot,
    identify::{self, VerifiedClaims},
    snapshot::TenantAnswer,
    tenant::{ServedTenants, TenantPolicy},
};
use tokio::time::timeout;

use crate::{
    config::{
        Current,
        apply::Used,
        learn::{Learner, Learnt},
    },
    telemetry::{access_log::subject_hash, metrics::Metrics},
};

/// Bytes of tokens and claims that one data thread remembers, about eight thousand tokens of ordinary size.
const REMEMBERED_BYTES: u64 = 8 * 1024 * 1024;
/// What an entry costs beside its token and claims.
const ENTRY_BYTES: u64 = 200;
const EXPECTED_ENTRIES: usize = 1024;
/// How long a request waits for a tenant that this sidecar has not met.
const LEARN_TIMEOUT: Duration = Duration::from_secs(5);

/// Whose request it is. Only `identify` makes one.
#[derive(Debug)]
pub struct Identified {
    pub tenant: Arc<TenantPolicy>,
    pub token: Rc<Token>,
    /// The policy that knows the tenant: the one pinned for this request, or the newer one that learnt it.
    pub snapshot: Arc<Snapshot>,
}

/// A verified token, as long as it is remembered.
#[derive(Debug)]
pub struct Token {
    pub claims: VerifiedClaims,
    /// Of issuer and subject: the access log names nobody.
    pub subject_hash: Option<[u8; 16]>,
    /// The identity generation of the snapshot that it was verified under; under another it is verified anew.
    generation: u64,
    /// Whose it is, found once and not at each request.
    settled: RefCell<Option<Settled>>,
    /// The generation and the second in which nobody knew its tenant: in the same it is not asked for again.
    unknown: Cell<Option<(u64, u64)>>,
}

/// Whose a token is under one policy.
#[derive(Debug)]
struct Settled {
    generation: u64,
    /// It does not keep what is out of force: the token may never come again.
    tenant: Weak<TenantPolicy>,
    /// The sweep before which its tenant was marked as used.
    marked: u64,
}

/// By what stood behind `Bearer`.
type Tokens = unsync::Cache<Box<[u8]>, Rc<Token>, Weight, RandomState>;

/// What the stage needs beside the request. One per data thread.
pub struct Identify {
    /// Hashed with a key of this process, as the standard library does, for a fifth of the instructions: tokens are long.
    tokens: RefCell<Tokens>,
    /// The second in which an issuer's keys were last asked for.
    keys_asked: RefCell<HashMap<IssuerName, u64>>,
    learner: Learner,
    used: Arc<Used>,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
}

/// Tokens weigh what they take, so that one tenant's large ones do not cost more than their share.
#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Box<[u8]>, Rc<Token>> for Weight {
    fn weight(&self, token: &Box<[u8]>, _: &Rc<Token>) -> u64 {
        // The claims are the token's middle part, decoded.
        ENTRY_BYTES + 2 * token.len() as u64
    }
}

impl Identify {
    pub fn new(learner: Learner, used: Arc<Used>, current: Arc<Current>, metrics: Arc<Metrics>) -> Self {
        let tokens = Tokens::with(EXPECTED_ENTRIES, REMEMBERED_BYTES, Weight, RandomState::new(), Default::default());
        Self { tokens: tokens.into(), keys_asked: RefCell::default(), learner, used, current, metrics }
    }

    /// `now`: Unix seconds.
    pub async fn identify(&self, headers: &HeaderMap, snapshot: &Arc<Snapshot>, now: u64) -> Result<Identified, Deny> {
        let credentials = identify::credentials(headers.get_all(AUTHORIZATION).iter().map(|value| value.as_bytes()))?;
        let token = self.verify(credentials, snapshot, now)?;
        if let Some(settled) = token.settled.borrow().as_ref()
            && settled.generation == snapshot.generation
            && settled.marked == self.used.sweep()
            && let Some(tenant) = settled.tenant.upgrade()
        {
            return Ok(Identified { tenant, token: token.clone(), snapshot: snapshot.clone() });
        }
        match snapshot.tenant_of(&token.claims)? {
            TenantAnswer::Known(tenant) => Ok(self.settle(token.clone(), tenant.clone(), snapshot.clone())),
            TenantAnswer::Unlearnt { .. } if token.unknown.get() == Some((snapshot.generation, now)) => Err(unknown()),
            TenantAnswer::Unlearnt { .. } => {
                let learnt = self.learn(credentials, &token, now).await;
                if learnt.as_ref().is_err_and(|deny| deny.reason == Reason::TenantUnknown) {
                    token.unknown.set(Some((snapshot.generation, now)));
                }
                learnt
            }
        }
    }

    /// Remembers whose token it is, as long as that policy is in force and the tenant counts as used.
    fn settle(&self, token: Rc<Token>, tenant: Arc<TenantPolicy>, snapshot: Arc<Snapshot>) -> Identified {
        let is_learnt = matches!(snapshot.workload.tenants, ServedTenants::Any);
        let marked = if is_learnt { self.used.mark(&tenant.id) } else { self.used.sweep() };
        token.settled.replace(Some(Settled { generation: snapshot.generation, tenant: Arc::downgrade(&tenant), marked }));
        Identified { tenant, token, snapshot }
    }

    fn verify(&self, credentials: &[u8], snapshot: &Snapshot, now: u64) -> Result<Rc<Token>, Deny> {
        // Before its characters are judged: what is remembered was a token.
        if let Some(token) = self.tokens.borrow().get(credentials)
            && token.generation == snapshot.identity_generation
        {
            self.metrics.identify_cache(true);
            return if now < token.claims.expires_at() {
                Ok(token.clone())
            } else {
                Err(Deny::new(Reason::TokenExpired, "exp: the remembered token has expired"))
            };
        }
        let text = identify::b64token(credentials)?;
        self.metrics.identify_cache(false);
        match identify::verify(text, snapshot.issuers.iter().map(|issuer| &**issuer), now) {
            Ok(claims) => {
                let subject_hash = claims.subject().map(|subject| subject_hash(claims.issuer().as_str(), subject));
                let token = Rc::new(Token {
                    claims,
                    subject_hash,
                    generation: snapshot.identity_generation,
                    settled: RefCell::default(),
                    unknown: Cell::new(None),
                });
                self.tokens.borrow_mut().insert(credentials.into(), token.clone());
                Ok(token)
            }
            Err(deny) => {
                if deny.reason == Reason::TokenKey
                    && let Some(issuer) = deny.rule.as_ref().and_then(|rule| rule.object())
                    && let Ok(issuer) = issuer.1.parse()
                {
                    self.ask_for_keys(issuer, now);
                }
                Err(deny)
            }
        }
    }

    /// At most once a second: tokens with made-up keys cost whoever sends them nothing, and every question wakes the control thread.
    fn ask_for_keys(&self, issuer: IssuerName, now: u64) {
        let mut asked = self.keys_asked.borrow_mut();
        if asked.get(&issuer) != Some(&now) {
            self.learner.fresh_keys(&issuer);
            // Names of issuers in force only, which are few.
            asked.insert(issuer, now);
        }
    }

    /// Waits for a tenant that this sidecar has not met. Keys may have been withdrawn meanwhile: the token is looked at again under the
    /// policy that knows the tenant.
    async fn learn(&self, credentials: &[u8], token: &Token, now: u64) -> Result<Identified, Deny> {
        let absent = |detail| Deny::new(Reason::ConfigAbsent, detail);
        let asked = self.learner.tenant(token.claims.issuer(), token.claims.tenant_value().unwrap_or_default());
        match timeout(LEARN_TIMEOUT, asked).await {
            Err(_) => return Err(absent("the control plane did not say in time who this tenant is")),
            Ok(None) => return Err(absent("too many tenants are being asked for")),
            Ok(Some(Learnt::Unknown)) => return Err(unknown()),
            Ok(Some(Learnt::Known)) => {}
        }
        let snapshot = self.current.pin().ok_or_else(|| absent("there is no policy"))?;
        let token = self.verify(credentials, &snapshot, now)?;
        let TenantAnswer::Known(tenant) = snapshot.tenant_of(&token.claims)? else { return Err(unknown()) };
        let tenant = tenant.clone();
        Ok(self.settle(token, tenant, snapshot))
    }
}

fn unknown() -> Deny {
    Deny::new(Reason::TenantUnknown, "the token's tenant is none that the control plane knows")
}

#[cfg(test)]
mod tests;
