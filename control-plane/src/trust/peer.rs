//! Who is at the other end of a connection.

use std::{
    net::IpAddr,
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
    /// Since the Unix epoch.
    not_after: Duration,
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
                    not_after: validity(end_entity).ok()?.end,
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

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.0.address
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

    pub(super) fn member(&self) -> Option<&Member> {
        self.member.as_ref()
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
        if now >= self.not_after {
            return false;
        }
        if self.vouched.load(Ordering::Relaxed) == bundle.sequence {
            return true;
        }
        let vouched = verify(bundle, &self.chain, UnixTime::since_unix_epoch(now)).is_ok();
        if vouched {
            self.vouched.store(bundle.sequence, Ordering::Relaxed);
        }
        vouched
    }
}
