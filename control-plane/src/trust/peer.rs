//! Who is at the other end of a connection.

use std::{
    net::IpAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use ringfence_xds::{
    policy::{SpiffeId, TrustBundle, spiffe::Member},
    trust::{spiffe_id, validity, verify},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::Credentials;

/// Certificates that may be asked for on one connection: one is needed, and each costs a signature.
const MAX_ATTEMPTS: u32 = 8;

/// An address, and the name of the SVID that was shown from there.
pub(super) type Asker = (IpAddr, Option<SpiffeId>);

/// Whoever opened a connection, as long as that lasts.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: Option<Arc<Peer>>,
    address: Option<IpAddr>,
    attempts: AtomicU32,
}

/// Whom an SVID names that a handshake has verified.
#[derive(Debug)]
pub(crate) struct Peer {
    id: SpiffeId,
    member: Option<Member>,
    chain: Vec<CertificateDer<'static>>,
    /// Of its certificate; since the Unix epoch.
    validity: Range<Duration>,
    /// The sequence of the bundle that vouched for it last.
    vouched: AtomicU64,
}

impl Caller {
    /// After a handshake with `credentials`, from `address` if that is not shared by all; `None`: what was shown cannot be read, which the
    /// handshake would have refused.
    pub(crate) fn of(chain: Option<&[CertificateDer<'static>]>, address: Option<IpAddr>, credentials: &Credentials) -> Option<Self> {
        let peer = match chain {
            Some([end_entity, ..]) => {
                let id = spiffe_id(end_entity).ok()?;
                Some(Arc::new(Peer {
                    member: id.member(),
                    id,
                    chain: chain.unwrap_or_default().to_vec(),
                    validity: validity(end_entity).ok()?,
                    vouched: AtomicU64::new(credentials.bundle.sequence),
                }))
            }
            _ => None,
        };
        Some(Self(Arc::new(Inner { peer, address, attempts: AtomicU32::new(0) })))
    }

    pub(crate) fn peer(&self) -> Option<&Arc<Peer>> {
        self.0.peer.as_ref()
    }

    /// Whose share of all attempts one of this caller's is: of those behind one address, each who has an SVID has its own. `None`: on
    /// loopback all share one.
    pub(super) fn asker(&self) -> Option<Asker> {
        self.0.address.map(|address| (address, self.peer().map(|peer| peer.id.clone())))
    }

    /// Whether one more certificate may be asked for on this connection; counts it.
    pub(super) fn may_try(&self) -> bool {
        self.0.attempts.fetch_add(1, Ordering::Relaxed) < MAX_ATTEMPTS
    }
}

impl Peer {
    pub(crate) fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
    }

    /// When its certificate begins to be valid; since the Unix epoch.
    pub(super) fn not_before(&self) -> Duration {
        self.validity.start
    }

    /// Whether it stands for whom the workload's SVID names at present.
    pub(crate) fn is(&self, present: Option<&Member>) -> bool {
        present.is_some() && self.member.as_ref() == present
    }

    /// Whether it is the sidecar of some `workload`.
    pub(crate) fn is_of(&self, workload: &str) -> bool {
        matches!(&self.member, Some(Member::Workload { workload: own, .. }) if own.as_str() == workload)
    }

    /// Whether its certificate is valid at `now`, and `bundle` vouches for it.
    pub(super) fn is_live(&self, bundle: &TrustBundle, now: Duration) -> bool {
        if now >= self.validity.end {
            return false;
        }
        if self.vouched.load(Ordering::Relaxed) == bundle.sequence {
            return true;
        }
        let vouched = self.is_vouched_for_by(bundle, now);
        if vouched {
            self.vouched.store(bundle.sequence, Ordering::Relaxed);
        }
        vouched
    }

    pub(super) fn is_vouched_for_by(&self, bundle: &TrustBundle, now: Duration) -> bool {
        verify(bundle, &self.chain, UnixTime::since_unix_epoch(now)).is_ok()
    }
}

#[cfg(test)]
impl Peer {
    /// Of a certificate that nobody has looked at.
    pub(crate) fn valid(id: SpiffeId, validity: Range<Duration>) -> Self {
        Self { member: id.member(), id, chain: Vec::new(), validity, vouched: AtomicU64::new(0) }
    }
}
