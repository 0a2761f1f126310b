//! The gRPC service that issues SVIDs.
//!
//! Anybody who reaches the port may call it: what costs a signature comes after the proof, nothing waits but for the API server, and an answer
//! never says what was wrong with a proof.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_xds::{
    generated::resource::{IssueRequest, IssueResponse, certificate_authority_server::CertificateAuthority, issue_request::Proof},
    policy::spiffe::Member,
};
use tonic::{Request, Response, Status};

use super::{
    Caller, MAX_SVID_TTL, Peer, Trust, attempts::Attempts, authority::BACKDATED, csr::public_key, review::ReviewError, since_epoch,
};

/// How long after its pod was last looked at a sidecar goes on renewing by its SVID alone: as long as an SVID may live.
const UNSEEN_AT_MOST: Duration = MAX_SVID_TTL;

/// Who somebody has proven to be, and when; since the Unix epoch. A certificate tells that time by when it begins to be valid: whoever has
/// one renewed unseen has one that begins when the one before did, at whatever replica.
#[derive(Debug, PartialEq, Eq)]
struct Proven {
    member: Member,
    at: Duration,
}

impl Proven {
    /// By an SVID alone, which says nothing of its pod. `None`: that was looked at too long ago.
    fn unseen(peer: &Peer, now: Duration) -> Option<Self> {
        let at = peer.not_before() + BACKDATED;
        (now < at + UNSEEN_AT_MOST).then_some(Self { member: peer.member()?.clone(), at })
    }

    /// Of a certificate that is made now.
    fn validity(&self, now: Duration, ttl: Duration) -> Range<Duration> {
        self.at..(now + ttl).min(self.at + UNSEEN_AT_MOST)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Issuing {
    trust: Arc<Trust>,
    attempts: Arc<Attempts>,
}

impl Issuing {
    pub(crate) fn new(trust: Arc<Trust>) -> Self {
        Self { trust, attempts: Arc::default() }
    }

    /// Whom the caller has proven to be; a join token is still to be taken.
    async fn proven(&self, caller: &Caller, request: &IssueRequest, now: Duration) -> Result<Option<Proven>, Status> {
        let at_once = |member: Member| Proven { member, at: now };
        let live = || self.trust.live(caller);
        match (&request.proof, &self.trust.reviewer) {
            (Some(Proof::JoinToken(token)), _) => Ok(self.trust.tokens.look(token, &request.csr, Instant::now()).map(at_once)),
            (Some(Proof::ServiceAccountToken(token)), Some(reviewer)) => match reviewer.review(token, &self.trust.fleet).await {
                Ok(member) => Ok(Some(at_once(member))),
                Err(ReviewError::Refused(_)) => Ok(None),
                // Who has an SVID goes on with it while the API server is away, for so long; who has none waits.
                Err(error) => {
                    let unseen = live().filter(|_| error.is_outage()).and_then(|peer| Proven::unseen(&peer, now));
                    unseen.map(Some).ok_or_else(|| Status::unavailable("the proof cannot be looked at now"))
                }
            },
            (Some(Proof::ServiceAccountToken(_)), None) => {
                Err(Status::unimplemented("service_account_token is for a control plane in Kubernetes"))
            }
            // An SVID alone does not say that its pod is still there.
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(live().and_then(|peer| peer.member().cloned()).map(at_once)),
        }
    }

    async fn issue_to(&self, caller: &Caller, request: &IssueRequest) -> Result<IssueResponse, Status> {
        let unproven = || Status::unauthenticated("a proof of who you are is needed, and this is none");
        let proven = self.proven(caller, request, since_epoch()).await?.ok_or_else(unproven)?;
        let member = &proven.member;
        // What it was when the proof was made, and is no more, is proof of nothing. The control plane itself is no workload either.
        let present = match member {
            Member::Workload { workload, .. } => self.trust.fleet.member(workload.as_str()),
            Member::ControlPlane => None,
        };
        if present.as_ref() != Some(member) {
            return Err(unproven());
        }
        let key = public_key(&request.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(Proof::JoinToken(token)) = &request.proof {
            self.trust.tokens.take(token, &request.csr, Instant::now()).ok_or_else(unproven)?;
        }
        let validity = proven.validity(since_epoch(), self.trust.ttl);
        let chain = self.trust.certify(member, &key, validity).map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(IssueResponse { chain: chain.into_iter().map(|certificate| certificate.to_vec().into()).collect() })
    }
}

#[tonic::async_trait]
impl CertificateAuthority for Issuing {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let caller =
            request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("this is no connection with an identity"))?;
        if !caller.may_try() {
            return Err(Status::resource_exhausted("too many attempts on this connection"));
        }
        if !self.attempts.admit(caller.asker().as_ref()) {
            return Err(Status::resource_exhausted("too many attempts: come again"));
        }
        self.issue_to(&caller, request.get_ref()).await.map(Response::new)
    }
}

#[cfg(test)]
mod tests {
    use ringfence_xds::policy::SpiffeId;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn who_is_renewed_unseen_comes_to_an_end_with_the_proof() {
        let id: SpiffeId = "spiffe://ringfence.internal/tenant/acme/workload/api".parse().unwrap();
        let mut proven = Proven { member: id.member().unwrap(), at: NOW };
        let mut renewals = 0;
        let mut now = NOW;
        loop {
            let validity = proven.validity(now, HOUR);
            assert!(validity.start == NOW && validity.end <= NOW + UNSEEN_AT_MOST, "{validity:?}");
            now += HOUR / 2;
            let peer = Peer::valid(id.clone(), validity.start - BACKDATED..validity.end);
            match Proven::unseen(&peer, now) {
                Some(next) => proven = next,
                None => break,
            }
            renewals += 1;
        }
        assert_eq!((renewals, now), (47, NOW + UNSEEN_AT_MOST));
    }
}
