//! The gRPC service that issues SVIDs.
//!
//! Anybody who reaches the port may call it: what costs a signature comes after the proof, nothing waits for anything else, and an answer
//! never says what was wrong with a proof.

use std::{sync::Arc, time::Instant};

use ringfence_xds::{
    generated::resource::{IssueRequest, IssueResponse, certificate_authority_server::CertificateAuthority, issue_request::Proof},
    policy::spiffe::Member,
};
use tonic::{Request, Response, Status};

use super::{Caller, Trust, csr::public_key, proto, since_epoch};

#[derive(Clone, Debug)]
pub(crate) struct Issuing {
    trust: Arc<Trust>,
}

impl Issuing {
    pub(crate) fn new(trust: Arc<Trust>) -> Self {
        Self { trust }
    }

    /// Whom the caller has proven to be; a join token is still to be taken.
    fn proven(&self, caller: &Caller, proof: Option<&Proof>) -> Result<Option<Member>, Status> {
        match proof {
            Some(Proof::JoinToken(token)) => Ok(self.trust.tokens.look(token, Instant::now())),
            Some(Proof::ServiceAccountToken(_)) => Err(Status::unimplemented("service_account_token is not built yet")),
            None => Ok(self.trust.live(caller).and_then(|peer| peer.member().cloned())),
        }
    }

    fn issue_to(&self, caller: &Caller, request: &IssueRequest) -> Result<IssueResponse, Status> {
        let unproven = || Status::unauthenticated("a proof of who you are is needed, and this is none");
        let member = self.proven(caller, request.proof.as_ref())?.ok_or_else(unproven)?;
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
        self.issue_to(&caller, request.get_ref()).map(Response::new)
    }
}
