//! Which authorities vouch, and how one takes over from another. Nothing here waits or writes: time is told, and what follows is yielded.
//!
//! | phase | in the bundle | certifies workloads | certifies the control plane |
//! |---|---|---|---|
//! | announced | yes | no: not everybody believes it yet | no |
//! | issuing | yes | yes | if it is the oldest |
//! | retiring | yes, until the last of its certificates has expired | no | yes: everybody believes it |

use std::{sync::Arc, time::Duration};

use ringfence_xds::policy::{TrustBundle, TrustDomain};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, AuthorityError};

/// How long sidecars that do not acknowledge the new bundle are waited for.
const OVERLAP_AT_LATEST: Duration = Duration::from_secs(60);
/// Beyond the last certificate's end: clocks differ.
const MARGIN: Duration = Duration::from_secs(120);

/// Times are since the Unix epoch, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Phase {
    Announced { since: u64 },
    Issuing,
    Retiring { until: u64 },
}

/// One of the bundle's.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    pub(super) certificate: CertificateDer<'static>,
    /// None of the operator's own: its key is elsewhere.
    pub(super) authority: Option<Arc<Authority>>,
    pub(super) phase: Phase,
}

/// Why a rotation is not begun, or not ended.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("a rotation is under way: see `ringfence status`")]
    UnderWay,
    #[error("the overlap has not begun: not every sidecar has the new bundle yet")]
    NotBegun,
    #[error("no authority is retiring")]
    NothingRetires,
    #[error("the authorities are the operator's own: start with other --ca-cert, --ca-key and --ca-roots")]
    Given,
    #[error("bundle {found} is before {in_force}, which is in force: bring back what is later")]
    Earlier { found: u64, in_force: u64 },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The authorities of a trust domain, the oldest first.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    pub(super) trust_domain: TrustDomain,
    pub(super) sequence: u64,
    pub(super) anchors: Vec<Anchor>,
    /// The operator's intermediate, where the anchors are the operator's roots.
    pub(super) given: Option<Arc<Authority>>,
    /// What was issued at any time lives no longer than this.
    pub(super) longest_ttl: Duration,
}

impl Rotation {
    pub(super) fn bundle(&self) -> TrustBundle {
        let authorities = self.anchors.iter().map(|anchor| Arc::from(&*anchor.certificate)).collect();
        TrustBundle { trust_domain: self.trust_domain.clone(), sequence: self.sequence, authorities }
    }

    /// Certifies workloads.
    pub(super) fn issuer(&self) -> Option<&Arc<Authority>> {
        let issuing = || self.anchors.iter().rfind(|anchor| anchor.phase == Phase::Issuing);
        self.given.as_ref().or_else(|| issuing()?.authority.as_ref())
    }

    /// Certifies the control plane: who has no other bundle than the one before still finds it.
    pub(super) fn own_issuer(&self) -> Option<&Arc<Authority>> {
        let believed = |anchor: &&Anchor| anchor.authority.is_some() && !matches!(anchor.phase, Phase::Announced { .. });
        self.anchors.iter().find(believed).and_then(|anchor| anchor.authority.as_ref()).or(self.given.as_ref())
    }

    pub(super) fn is_announcing(&self) -> bool {
        self.anchors.iter().any(|anchor| matches!(anchor.phase, Phase::Announced { .. }))
    }

    /// Whether it says nothing else than `other`.
    pub(super) fn is_same(&self, other: &Rotation) -> bool {
        let anchors =
            |rotation: &Self| rotation.anchors.iter().map(|anchor| (anchor.certificate.clone(), anchor.phase)).collect::<Vec<_>>();
        (self.sequence, self.longest_ttl) == (other.sequence, other.longest_ttl) && anchors(self) == anchors(other)
    }

    /// Whether `next`, which was found where this was kept, may take its place: sidecars would not believe an earlier bundle.
    pub(super) fn gives_way_to(&self, next: &Rotation) -> Result<(), RotationError> {
        match next.sequence < self.sequence {
            true => Err(RotationError::Earlier { found: next.sequence, in_force: self.sequence }),
            false => Ok(()),
        }
    }

    /// A new authority joins the bundle.
    pub(super) fn begin(&mut self, now: Duration) -> Result<(), RotationError> {
        if self.given.is_some() {
            return Err(RotationError::Given);
        }
        if self.anchors.iter().any(|anchor| anchor.phase != Phase::Issuing) {
            return Err(RotationError::UnderWay);
        }
        let (authority, certificate) = Authority::generate(&self.trust_domain, now)?;
        let phase = Phase::Announced { since: now.as_secs() };
        self.anchors.push(Anchor { certificate, authority: Some(authority.into()), phase });
        self.sequence += 1;
        Ok(())
    }

    /// What time brings; `acknowledged`: every connected sidecar has the present bundle. Whether anything changed.
    pub(super) fn advance(&mut self, now: Duration, acknowledged: bool) -> bool {
        let is_over = |since: u64| now.saturating_sub(Duration::from_secs(since)) >= OVERLAP_AT_LATEST;
        let begins = |phase: Phase| matches!(phase, Phase::Announced { since } if acknowledged || is_over(since));
        let overlap_begins = self.anchors.iter().any(|anchor| begins(anchor.phase));
        if overlap_begins {
            let until = (now + self.longest_ttl + MARGIN).as_secs();
            for anchor in &mut self.anchors {
                anchor.phase = match anchor.phase {
                    Phase::Announced { .. } => Phase::Issuing,
                    Phase::Issuing => Phase::Retiring { until },
                    retiring @ Phase::Retiring { .. } => retiring,
                };
            }
        }
        let withdrawn = self.withdraw(|until| now.as_secs() >= until);
        overlap_begins || withdrawn
    }

    /// Withdraws what is retiring, before its time.
    pub(super) fn finish(&mut self) -> Result<(), RotationError> {
        if self.is_announcing() {
            return Err(RotationError::NotBegun);
        }
        if self.withdraw(|_| true) { Ok(()) } else { Err(RotationError::NothingRetires) }
    }

    fn withdraw(&mut self, is_due: impl Fn(u64) -> bool) -> bool {
        let before = self.anchors.len();
        self.anchors.retain(|anchor| !matches!(anchor.phase, Phase::Retiring { until } if is_due(until)));
        let changed = self.anchors.len() < before;
        self.sequence += u64::from(changed);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const TTL: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    fn first() -> Rotation {
        let trust_domain: TrustDomain = "ringfence.internal".parse().unwrap();
        let (authority, certificate) = Authority::generate(&trust_domain, NOW).unwrap();
        let anchors = vec![Anchor { certificate, authority: Some(authority.into()), phase: Phase::Issuing }];
        Rotation { trust_domain, sequence: 1, anchors, given: None, longest_ttl: TTL }
    }

    fn is(rotation: &Rotation, sequence: u64, phases: &[Phase], issuer: usize, own: usize) {
        let found: Vec<Phase> = rotation.anchors.iter().map(|anchor| anchor.phase).collect();
        assert_eq!((rotation.sequence, &*found), (sequence, phases));
        let at = |authority: Option<&Arc<Authority>>| {
            let is = |anchor: &Anchor| Arc::ptr_eq(anchor.authority.as_ref().unwrap(), authority.unwrap());
            rotation.anchors.iter().position(is)
        };
        assert_eq!((at(rotation.issuer()), at(rotation.own_issuer())), (Some(issuer), Some(own)));
        assert_eq!(rotation.bundle().authorities.len(), phases.len());
    }

    #[test]
    fn an_authority_takes_over_step_by_step() {
        let (announced, until) = (Phase::Announced { since: NOW.as_secs() }, (NOW + SECOND + TTL + MARGIN).as_secs());
        let mut rotation = first();
        is(&rotation, 1, &[Phase::Issuing], 0, 0);
        assert!(!rotation.advance(NOW, true));
        rotation.begin(NOW).unwrap();
        is(&rotation, 2, &[Phase::Issuing, announced], 0, 0);
        assert!(!rotation.advance(NOW + SECOND, false));
        assert!(matches!(rotation.begin(NOW), Err(RotationError::UnderWay)));
        assert!(matches!(rotation.finish(), Err(RotationError::NotBegun)));
        assert!(rotation.advance(NOW + SECOND, true));
        is(&rotation, 2, &[Phase::Retiring { until }, Phase::Issuing], 1, 0);
        assert!(matches!(rotation.begin(NOW), Err(RotationError::UnderWay)));
        assert!(!rotation.advance(Duration::from_secs(until) - SECOND, true));
        assert!(rotation.advance(Duration::from_secs(until), true));
        is(&rotation, 3, &[Phase::Issuing], 0, 0);
        assert!(matches!(rotation.finish(), Err(RotationError::NothingRetires)));
    }

    #[test]
    fn what_a_backup_brings_back_is_not_taken_up() {
        let before = first();
        let mut rotation = before.clone();
        rotation.begin(NOW).unwrap();
        assert!(before.gives_way_to(&rotation).is_ok());
        assert!(matches!(rotation.gives_way_to(&before), Err(RotationError::Earlier { found: 1, in_force: 2 })));
        let mut overlapping = rotation.clone();
        overlapping.advance(NOW, true);
        assert!(rotation.gives_way_to(&overlapping).is_ok(), "of the same bundle, what another replica has come to");
    }

    #[test]
    fn who_does_not_acknowledge_is_waited_for_until_a_bound() {
        let mut rotation = first();
        rotation.begin(NOW).unwrap();
        // The clock was set back: the wait is longer, and ends.
        assert!(!rotation.advance(NOW - TTL, false));
        assert!(!rotation.advance(NOW + OVERLAP_AT_LATEST - SECOND, false));
        assert!(rotation.advance(NOW + OVERLAP_AT_LATEST, false));
        let old = rotation.anchors[0].certificate.clone();
        rotation.finish().unwrap();
        is(&rotation, 3, &[Phase::Issuing], 0, 0);
        assert_ne!(rotation.anchors[0].certificate, old);
    }
}
