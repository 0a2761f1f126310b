//! Which workloads may connect to each other, by their SPIFFE IDs.
//!
//! | the workload that is called | may be called by |
//! |---|---|
//! | dedicated | workloads of its tenant, and of the tenants that have agreed with it |
//! | shared among some tenants | workloads of those tenants |
//! | shared by any | workloads of any tenant |
//!
//! By nobody else: not by the control plane, which calls no workload, and not by a shared workload, whose ID says nothing of the tenant
//! that it acts for. An agreement opens a dedicated workload and no shared one: whom that serves is the platform's to say, not its tenants'.
//!
//! Who may connect may not yet ask for anything: a request's tenant is its token's, and must be the peer's. A dedicated workload refuses
//! every token but its own tenant's, so that a peer of another tenant gets to its public paths alone.

use std::fmt;

use crate::{Deny, Reason, Snapshot, SpiffeId, TenantId, WorkloadName, spiffe::Member, tenant::ServedTenants};

/// Who is at the other end of a connection, by an SVID that the handshake has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    id: SpiffeId,
    member: Option<Member>,
}

impl From<SpiffeId> for PeerIdentity {
    fn from(id: SpiffeId) -> Self {
        Self { member: id.member(), id }
    }
}

impl PeerIdentity {
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
}

/// A peer that may connect. Only [`Snapshot::accept`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct AcceptedPeer<'a> {
    tenant: &'a TenantId,
}

impl AcceptedPeer<'_> {
    /// Whether it may ask with a token of `tenant`'s.
    pub fn speaks_for(&self, tenant: &TenantId) -> Result<(), Deny> {
        if self.tenant == tenant {
            return Ok(());
        }
        Err(Deny::new(Reason::TenantMismatch, "the token's tenant is not the peer's"))
    }
}

/// `egress.allow[].peer`: the workload that must be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerWorkload {
    /// `None`: a shared workload.
    pub tenant: Option<TenantId>,
    pub workload: WorkloadName,
}

impl fmt::Display for PeerWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "Workload/{} of Tenant/{tenant}", self.workload),
            None => write!(f, "shared Workload/{}", self.workload),
        }
    }
}

impl Snapshot {
    /// Whether `peer` may connect to this workload. Decides, in this order:
    ///
    /// 1. there must be a trust bundle, and the ID must be of its trust domain;
    /// 2. the ID must be that of a dedicated workload;
    /// 3. this workload must serve its tenant, or, where it is dedicated, its own tenant must have agreed with that.
    pub fn accept<'a>(&self, peer: &'a PeerIdentity) -> Result<AcceptedPeer<'a>, Deny> {
        let deny = |detail: &'static str| Err(Deny::new(Reason::PeerNotAllowed, detail));
        let Some(trust) = &self.trust else { return deny("there is no trust bundle, so that nobody is believed") };
        if trust.trust_domain != *peer.id.trust_domain() {
            return deny("the peer is of another trust domain");
        }
        let tenant = match &peer.member {
            Some(Member::Workload { tenant: Some(tenant), .. }) => tenant,
            Some(Member::Workload { tenant: None, .. }) => return deny("the peer is a shared workload, whose ID names no tenant"),
            Some(Member::ControlPlane) => return deny("the control plane calls no workload"),
            None => return deny("the peer's ID is no workload's"),
        };
        match &self.workload.tenants {
            ServedTenants::Any => Ok(AcceptedPeer { tenant }),
            ServedTenants::Some(tenants) if tenants.contains(tenant) => Ok(AcceptedPeer { tenant }),
            ServedTenants::Some(_) => deny("this workload does not serve the peer's tenant"),
            ServedTenants::One(own) if own == tenant || self.have_agreed(own, tenant) => Ok(AcceptedPeer { tenant }),
            ServedTenants::One(_) => deny("the peer's tenant and this workload's have not both agreed"),
        }
    }

    /// Whether a rule of `tenant`'s may lead to `peer`. A shared workload is the platform's, which says there whom it serves.
    pub fn may_call(&self, peer: &PeerWorkload, tenant: &TenantId) -> Result<(), Deny> {
        match &peer.tenant {
            Some(other) if other != tenant && !self.have_agreed(tenant, other) => {
                Err(Deny::new(Reason::PeerNotAllowed, "the peer's tenant and the rule's have not both agreed"))
            }
            _ => Ok(()),
        }
    }

    /// Whose SVID must be shown where a rule of `tenant`'s leads to `peer`, if it may.
    pub fn peer_id(&self, peer: &PeerWorkload, tenant: &TenantId) -> Result<SpiffeId, Deny> {
        self.may_call(peer, tenant)?;
        let trust = self.trust.as_ref();
        let trust = trust.ok_or_else(|| Deny::new(Reason::UpstreamIdentity, "there is no trust bundle, so that no peer is believed"))?;
        Ok(SpiffeId::workload(&trust.trust_domain, peer.tenant.as_ref(), &peer.workload))
    }

    fn have_agreed(&self, tenant: &TenantId, other: &TenantId) -> bool {
        self.tenants.get(tenant).is_some_and(|tenant| tenant.peers.contains(other))
    }
}

#[cfg(test)]
mod tests;
