//! The gRPC service that issues SVIDs.
//!
//! Anybody who reaches the port may call it: what costs a signature comes after the proof, nothing waits but for the API server, and an answer
//! never says what was wrong with a proof.

use std::{sync::Arc, time::Instant};

use ringfence_xds::{
    generated::resource::{IssueRequest, IssueResponse, certificate_authority_server::CertificateAuthority, issue_request::Proof},
    policy::spiffe::Member,
};
use tonic::{Request, Response, Status};

use super::{Caller, Trust, attempts::Attempts, csr::public_key, proto, review::ReviewError, since_epoch};

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
    async fn proven(&self, caller: &Caller, proof: Option<&Proof>) -> Result<Option<Member>, Status> {
        let by_svid = || self.trust.live(caller).and_then(|peer| peer.member().cloned());
        match (proof, &self.trust.reviewer) {
            (Some(Proof::JoinToken(token)), _) => Ok(self.trust.tokens.look(token, Instant::now())),
            (Some(Proof::ServiceAccountToken(token)), Some(reviewer)) => match reviewer.review(token, &self.trust.fleet).await {
                Ok(member) => Ok(Some(member)),
                Err(ReviewError::Refused(_)) => Ok(None),
                // Who has an SVID goes on with it while the API server is away; who has none waits.
                Err(ReviewError::Api(_) | ReviewError::Slow) => {
                    by_svid().map(Some).ok_or_else(|| Status::unavailable("the proof cannot be looked at now"))
                }
            },
            (Some(Proof::ServiceAccountToken(_)), None) => {
                Err(Status::unimplemented("service_account_token is for a control plane in Kubernetes"))
            }
            // An SVID alone does not say that its pod is still there.
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(by_svid()),
        }
    }

    async fn issue_to(&self, caller: &Caller, request: &IssueRequest) -> Result<IssueResponse, Status> {
        let unproven = || Status::unauthenticated("a proof of who you are is needed, and this is none");
        let member = self.proven(caller, request.proof.as_ref()).await?.ok_or_else(unproven)?;
        // What it was when the proof was made, and is no more, is proof of nothing. The control plane itself is no workload either.
        let present = match &member {
            Member::Workload { workload, .. } => self.trust.fleet.member(workload.as_str()),
            Member::ControlPlane => None,
        };
        if present.as_ref() != Some(&member) {
            return Err(unproven());
        }
        let key = public_key(&request.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(Proof::JoinToken(token)) = &request.proof {
            self.trust.tokens.take(token, Instant::now()).ok_or_else(unproven)?;
        }
        let chain = self.trust.certify(&member, &key, since_epoch()).map_err(|error| Status::unavailable(error.to_string()))?;
        let bundle = self.trust.credentials.borrow().bundle.clone();
        Ok(IssueResponse {
            chain: chain.into_iter().map(|certificate| certificate.to_vec().into()).collect(),
            bundle: Some(proto(&bundle)),
        })
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
        if !self.attempts.admit(caller.address()) {
            return Err(Status::resource_exhausted("too many attempts: come again"));
        }
        self.issue_to(&caller, request.get_ref()).await.map(Response::new)
    }
}
