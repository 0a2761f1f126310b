//! What a connection of this sidecar, as itself, begins with, and when it has outlived that.

use std::sync::Arc;

use ringfence_policy::TrustBundle;
use ringfence_xds::trust::{self, Svid};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;

use super::{CurrentSvid, CurrentTrust, Publisher, clock::Clock};
use crate::backoff::random;

/// A connection made with an SVID is made anew within these shares of the SVID's life: after its renewal, before the peer must end it.
const ANEW_FROM: f64 = 0.7;
const ANEW_UNTIL: f64 = 0.9;

/// This sidecar in its trust domain.
#[derive(Clone, Debug)]
pub struct Membership {
    pub svid: CurrentSvid,
    pub trust: CurrentTrust,
    /// Why there is no newer SVID.
    pub(super) failure: watch::Receiver<Option<String>>,
    clock: Clock,
}

impl Membership {
    pub(super) fn new(publisher: &Publisher, trust: CurrentTrust, clock: Clock) -> Self {
        Self { svid: publisher.svid.subscribe(), trust, failure: publisher.failure.subscribe(), clock }
    }

    /// Waits until there are both.
    pub async fn held(&self) -> (Arc<Svid>, Arc<TrustBundle>) {
        let (mut svid, mut trust) = (self.svid.clone(), self.trust.clone());
        loop {
            let held = svid.borrow_and_update().clone().zip(trust.borrow_and_update().clone());
            if let Some(held) = held {
                return held;
            }
            let changed = tokio::select! {
                changed = svid.changed() => changed,
                changed = trust.changed() => changed,
            };
            if changed.is_err() {
                // Whoever told has ended, and with it this process.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves with the reason when a connection, made with `svid` under `bundle` to a peer that showed `peer`, is to be made anew.
    pub async fn outlived(&self, svid: &Svid, bundle: &TrustBundle, peer: &[CertificateDer<'static>]) -> &'static str {
        tokio::select! {
            () = self.renewed(svid) => "its SVID is about to expire, and there is a newer one",
            () = self.distrusts(bundle.sequence, peer) => "the trust bundle no longer vouches for the peer",
        }
    }

    async fn renewed(&self, svid: &Svid) {
        let now = self.clock.now();
        let life = svid.not_after.saturating_sub(now.max(svid.not_before));
        self.clock.sleep_until(now + life.mul_f64(ANEW_FROM + (ANEW_UNTIL - ANEW_FROM) * random())).await;
        let is_newer = |held: &Option<Arc<Svid>>| held.as_ref().is_some_and(|held| held.not_after > svid.not_after);
        // Without a newer one a new connection would fare no better than this one.
        if self.svid.clone().wait_for(is_newer).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn distrusts(&self, sequence: u64, peer: &[CertificateDer<'static>]) {
        let now = || UnixTime::since_unix_epoch(self.clock.now());
        let withdrawn = |held: &Option<Arc<TrustBundle>>| {
            held.as_ref().is_some_and(|held| held.sequence != sequence && trust::verify(held, peer, now()).is_err())
        };
        if self.trust.clone().wait_for(withdrawn).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
