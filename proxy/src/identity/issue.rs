//! The control plane's CA as the source: a new key for each SVID, issued on proof the first time and on the SVID itself from then on, beside
//! which a pod's sidecar shows its token.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use ringfence_policy::TrustBundle;
use ringfence_xds::{
    generated::resource::{IssueRequest, certificate_authority_client::CertificateAuthorityClient, issue_request},
    trust::Svid,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;
use tonic::Code;

use super::{
    CurrentTrust, Me, Publisher, Trust,
    clock::Clock,
    kept::Kept,
    proof::{Proof, ProofError},
    schedule::Schedule,
    svid::{self, SvidError},
};
use crate::{
    backoff::random,
    config::dial::{self, DialError},
    telemetry::notice,
};

const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);
/// A chain and a bundle.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;
/// A fleet whose SVIDs' authority is withdrawn comes within this time, not at once.
const WITHDRAWN_SPREAD: Duration = Duration::from_secs(5);

/// Why no SVID was issued.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error("the control plane cannot be asked: {0}")]
    Dial(#[from] DialError),
    #[error("the control plane did not answer within {} s", ISSUE_TIMEOUT.as_secs())]
    Slow,
    #[error("the control plane does not take {shown} for a proof of who this sidecar is")]
    Refused { shown: &'static str },
    #[error("the control plane answers {0}")]
    Status(String),
    #[error("what the control plane issued is not used: {0}")]
    Svid(#[from] SvidError),
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
}

#[derive(Debug)]
pub(super) struct Issuance {
    pub(super) address: String,
    pub(super) me: Me,
    pub(super) proof: Proof,
    /// What was asked on proof and not answered. A join token is good for one request: the answer to it may be on its way.
    pub(super) unanswered: Option<Request>,
    /// None: a restart begins anew.
    pub(super) kept: Option<Kept>,
    pub(super) trust: CurrentTrust,
    pub(super) bundles: Arc<Trust>,
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
}

/// For a certificate of a key of its own.
#[derive(Debug)]
pub(super) struct Request {
    key: KeyPair,
    csr: Bytes,
}

impl Request {
    fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.der().to_vec().into();
        Ok(Self { key, csr })
    }
}

impl Issuance {
    pub(super) async fn run(mut self) {
        let mut schedule = Schedule::new();
        self.restore(&mut schedule);
        let mut by_proof = false;
        loop {
            let current = self.publisher.current();
            let expiry = current.as_ref().map_or(Duration::MAX, |svid| svid.not_after);
            tokio::select! {
                () = self.clock.sleep_until(schedule.due) => {}
                () = self.clock.sleep_until(expiry) => {
                    notice("identity: the SVID has expired and is shown to nobody any more");
                    self.publisher.publish(None);
                    continue;
                }
                Ok(()) = self.trust.changed() => {
                    self.hurry_if_withdrawn(current.as_deref(), &mut schedule);
                    continue;
                }
            }
            match self.obtain(current.as_deref(), by_proof).await {
                Ok(svid) => {
                    schedule.obtained(&svid, self.clock.now(), random());
                    by_proof = false;
                    self.publisher.publish(Some(Arc::new(svid)));
                }
                Err(error) => {
                    schedule.failed(self.clock.now(), random());
                    if matches!(&error, IssueError::Dial(error) if error.is_distrust()) {
                        self.read_bundle_again();
                    }
                    self.publisher.fail(error.to_string());
                    by_proof = !by_proof;
                }
            }
        }
    }

    /// Goes on with what an earlier run was issued, if that is still good.
    fn restore(&self, schedule: &mut Schedule) {
        let (Some(kept), Some(bundle)) = (&self.kept, self.trust.borrow().clone()) else { return };
        match kept.load(&bundle, &self.me, self.clock.now()) {
            Ok(None) => {}
            Ok(Some(svid)) => {
                schedule.obtained(&svid, svid.not_before, random());
                self.publisher.publish(Some(Arc::new(svid)));
            }
            Err(error) => notice(format_args!("identity: {error}")),
        }
    }

    fn read_bundle_again(&self) {
        match self.bundles.read_again() {
            Ok(true) => notice("identity: the control plane is judged by the trust bundle that its file holds now"),
            Ok(false) => {}
            Err(error) => notice(format_args!("identity.bundle: read again: {error}")),
        }
    }

    fn hurry_if_withdrawn(&self, current: Option<&Svid>, schedule: &mut Schedule) {
        let now = self.clock.now();
        let is_withdrawn = |svid: &Svid, bundle: &TrustBundle| !svid::is_vouched_for(svid, bundle, now);
        if let (Some(svid), Some(bundle)) = (current, self.trust.borrow().as_ref())
            && is_withdrawn(svid, bundle)
        {
            schedule.hurry(now + WITHDRAWN_SPREAD.mul_f64(random()));
        }
    }

    /// As `current`, or on proof: always where there is none, and by turns where showing it has failed, for the control plane may have lost
    /// the authority that issued it.
    async fn obtain(&mut self, current: Option<&Svid>, by_proof: bool) -> Result<Svid, IssueError> {
        match current {
            Some(svid) if !by_proof => self.ask(Some(svid), self.proof.beside_svid()?, &Request::new()?).await,
            _ => {
                let proof = self.proof.shown().await?;
                let request = self.unanswered.take().map_or_else(Request::new, Ok)?;
                let issued = self.ask(None, Some(proof), &request).await;
                match &issued {
                    Ok(_) => self.proof.accepted(),
                    Err(IssueError::Refused { .. }) => self.proof.refused(),
                    // Not looked at, or it cannot be told.
                    Err(_) => self.unanswered = Some(request),
                }
                issued
            }
        }
    }

    async fn ask(&self, svid: Option<&Svid>, proof: Option<issue_request::Proof>, request: &Request) -> Result<Svid, IssueError> {
        let bundle = self.trust.borrow().clone().ok_or(SvidError::Untrusted(rustls::Error::General("there is none".into())))?;
        let (channel, _) = dial::tls(&self.address, &bundle, svid).await?;
        let mut client = CertificateAuthorityClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let answer =
            timeout(ISSUE_TIMEOUT, client.issue(IssueRequest { csr: request.csr.clone(), proof })).await.map_err(|_| IssueError::Slow)?;
        let answer = answer.map_err(|status| match status.code() {
            Code::Unauthenticated => IssueError::Refused { shown: if svid.is_some() { "the SVID" } else { "what was shown" } },
            _ => IssueError::Status(dial::describe(&status)),
        })?;
        let chain: Vec<_> = answer.into_inner().chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let key = PrivatePkcs8KeyDer::from(request.key.serialize_der());
        // Under the bundle of now: it may have changed meanwhile.
        let bundle = self.trust.borrow().clone().unwrap_or(bundle);
        let svid = svid::verified(chain, &PrivateKeyDer::Pkcs8(key.clone_key()), &bundle, &self.me, self.clock.now())?;
        if let Some(kept) = &self.kept
            && let Err(error) = kept.store(&svid.key.cert, &key)
        {
            // It is as good while this process lives.
            notice(format_args!("identity: the SVID cannot be kept for a restart: {error}"));
        }
        Ok(svid)
    }
}

#[cfg(test)]
mod tests;
