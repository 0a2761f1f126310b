//! SPIRE's agent as the source (SPIFFE Workload API): SVID, key and bundle come over a Unix socket, and again before they expire. Whoever
//! connects there is known to the agent by its process; what it says is verified all the same.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ringfence_policy::{SpiffeId, TrustBundle};
use ringfence_xds::{
    generated::workload_api::{X509svid, X509svidRequest, X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient},
    trust::Svid,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::{Request, Streaming, metadata::MetadataValue};

use super::{
    Me, Publisher, Trust,
    clock::Clock,
    svid::{self, SvidError},
};
use crate::{
    backoff::{Backoff, random},
    config::dial::{self, DialError},
    telemetry::notice,
};

/// SVIDs of one caller, each with chain, key and bundle.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
const MAX_CHAIN: usize = 8;
const MAX_AUTHORITIES: usize = 16;
/// Waits between attempts double from the first to the last of these.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(15);

/// Why the agent's word is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkloadApiError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("{0}")]
    Status(String),
    #[error("the agent ended the stream")]
    Ended,
    #[error("none of the {0} SVIDs is for this sidecar")]
    NotOurs(usize),
    #[error("its chain cannot be read: it must be 1 to {MAX_CHAIN} certificates")]
    Chain,
    #[error("its trust bundle cannot be read: it must be 1 to {MAX_AUTHORITIES} certificates")]
    Bundle,
    #[error("its SVID is not used: {0}")]
    Svid(#[from] SvidError),
}

#[derive(Debug)]
pub(super) struct WorkloadApi {
    pub(super) socket: PathBuf,
    pub(super) me: Me,
    pub(super) trust: Arc<Trust>,
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
}

impl WorkloadApi {
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
        loop {
            let Err(error) = self.session(&mut backoff).await;
            self.fail(&error);
            let wait = tokio::time::sleep(backoff.next(random()));
            tokio::select! {
                () = wait => {}
                () = self.expired() => {}
            }
        }
    }

    fn fail(&self, error: &WorkloadApiError) {
        self.publisher.fail(format!("Workload API at {}: {error}", self.socket.display()));
    }

    async fn session(&self, backoff: &mut Backoff) -> Result<std::convert::Infallible, WorkloadApiError> {
        let mut responses = self.connected().await?;
        loop {
            let response = tokio::select! {
                response = responses.message() => response.map_err(|status| WorkloadApiError::Status(dial::describe(&status)))?,
                () = self.expired() => continue,
            };
            // One that cannot be used leaves the one before in force, and the stream open for a better one.
            match self.take(response.ok_or(WorkloadApiError::Ended)?) {
                Ok(svid) => {
                    backoff.reset();
                    self.publisher.publish(Some(Arc::new(svid)));
                }
                Err(error) => self.fail(&error),
            }
        }
    }

    async fn connected(&self) -> Result<Streaming<X509svidResponse>, WorkloadApiError> {
        let mut client = SpiffeWorkloadApiClient::new(dial::unix(&self.socket).await?).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let mut request = Request::new(X509svidRequest {});
        // Without it the agent refuses: whoever is made to send requests elsewhere cannot add it (SPIFFE Workload Endpoint, section 4.1).
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        let responses = client.fetch_x509svid(request).await;
        Ok(responses.map_err(|status| WorkloadApiError::Status(dial::describe(&status)))?.into_inner())
    }

    /// Withdraws an SVID that has expired; pending while there is none.
    async fn expired(&self) {
        match self.publisher.current() {
            Some(svid) => self.clock.sleep_until(svid.not_after).await,
            None => std::future::pending().await,
        }
        notice("identity: the SVID has expired and is shown to nobody any more");
        self.publisher.publish(None);
    }

    fn take(&self, response: X509svidResponse) -> Result<Svid, WorkloadApiError> {
        let count = response.svids.len();
        let is_ours = |svid: &X509svid| svid.spiffe_id.parse::<SpiffeId>().is_ok_and(|id| self.me.is(&id));
        let ours = response.svids.into_iter().find(is_ours).ok_or(WorkloadApiError::NotOurs(count))?;
        let authorities = svid::concatenated(&ours.bundle, MAX_AUTHORITIES).ok_or(WorkloadApiError::Bundle)?;
        let authorities: Vec<Arc<[u8]>> = authorities.iter().map(|certificate| Arc::from(&**certificate)).collect();
        let chain = svid::concatenated(&ours.x509_svid, MAX_CHAIN).ok_or(WorkloadApiError::Chain)?;
        let bundle = TrustBundle { trust_domain: self.me.trust_domain.clone(), sequence: 0, authorities };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&*ours.x509_svid_key));
        let svid = svid::verified(chain, &key, &bundle, &self.me, self.clock.now())?;
        self.trust.told(bundle.authorities);
        Ok(svid)
    }
}

#[cfg(test)]
mod tests;
