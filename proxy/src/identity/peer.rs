//! The members of the trust domain that this sidecar's workload speaks with: what is shown to them, what they are judged by, and for how
//! long they are believed.

mod stream;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ringfence_policy::{Deny, PeerIdentity, TrustBundle};
use ringfence_xds::trust::{self, PeerError, Svid};
use rustls::{
    CommonState,
    pki_types::{CertificateDer, UnixTime},
};
use tokio::time::Instant;

pub use self::stream::{NotAPeer, PeerStream};
use super::CurrentSvid;
use crate::config::Current;

/// A connection lasts no longer than this with what its peer showed, however long that is good for.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// How long requests that are in flight when a peer's SVID expires may take to end.
pub const GRACE: Duration = Duration::from_secs(30);

/// What this sidecar shows to peers and judges them by.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub svid: Arc<Svid>,
    pub bundle: Arc<TrustBundle>,
}

/// Why no peer can be spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    #[error("this sidecar has no SVID that is in force")]
    Svid,
    #[error("there is no trust bundle")]
    Bundle,
}

impl Credentials {
    pub fn of(svid: &CurrentSvid, bundle: Option<&Arc<TrustBundle>>) -> Result<Self, Absent> {
        let bundle = bundle.ok_or(Absent::Bundle)?.clone();
        let svid = svid.borrow().clone().ok_or(Absent::Svid)?;
        Ok(Self { svid, bundle })
    }
}

impl PartialEq for Credentials {
    /// Whether neither was renewed, not whether they read alike: a session lasts no longer than what it began with.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.svid, &other.svid) && Arc::ptr_eq(&self.bundle, &other.bundle)
    }
}

/// Who is at the other end of one connection.
#[derive(Debug)]
pub struct Peer {
    pub identity: PeerIdentity,
    chain: Vec<CertificateDer<'static>>,
    /// Since the Unix epoch.
    not_after: Duration,
    /// Why it is believed no longer.
    withdrawn: OnceLock<Deny>,
}

impl Peer {
    /// Who the handshake of `session`, which is over, has found there.
    pub fn of(session: &CommonState) -> Result<Self, PeerError> {
        let chain: Vec<_> = session.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect();
        let certificate = chain.first().ok_or(PeerError::Unreadable)?;
        let identity = trust::spiffe_id(certificate)?.into();
        let not_after = trust::validity(certificate)?.end;
        Ok(Self { identity, chain, not_after, withdrawn: OnceLock::new() })
    }

    /// When its SVID expires.
    pub fn expires(&self) -> Instant {
        Instant::now() + self.not_after.saturating_sub(since_epoch()).min(LONGEST)
    }

    /// Resolves when the trust bundle in force vouches for it no longer. Asked at once too: it may have changed since the handshake began.
    pub async fn distrusted(&self, current: &Current) {
        let mut changes = current.changes();
        let mut judged_by: Option<Arc<TrustBundle>> = None;
        loop {
            let Some(bundle) = current.pin().and_then(|snapshot| snapshot.trust.clone()) else { return };
            if judged_by.as_ref() != Some(&bundle) {
                if !self.is_vouched_for(&bundle) {
                    return;
                }
                judged_by = Some(bundle);
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// As of when its SVID was good: that it has expired meanwhile is another matter than that nobody vouches for it.
    fn is_vouched_for(&self, bundle: &TrustBundle) -> bool {
        let then = UnixTime::since_unix_epoch(since_epoch().min(self.not_after));
        trust::verify(bundle, &self.chain, then).is_ok()
    }

    /// Leaves word for those whose exchanges are cut.
    pub fn withdraw(&self, deny: Deny) {
        let _ = self.withdrawn.set(deny);
    }

    pub fn withdrawn(&self) -> Option<&Deny> {
        self.withdrawn.get()
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
