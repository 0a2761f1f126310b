//! The trust bundle in force. It only goes forward: an authority that was withdrawn is not believed again because somebody sends an
//! earlier bundle.

use std::{path::Path, sync::Arc};

use ringfence_policy::{TrustBundle, TrustDomain};
use ringfence_xds::{
    decode::{self, Fault},
    generated::resource as proto,
    resource::TRUST_BUNDLE,
};
use rustls::pki_types::{CertificateDer, pem, pem::PemObject};
use tokio::sync::watch;

use super::CurrentTrust;

/// Why a bundle of the bootstrap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("must be a readable PEM file of certificates: {0}")]
    Pem(#[from] pem::Error),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Bundle(Vec<Fault>),
}

#[derive(Debug)]
pub struct Trust {
    trust_domain: TrustDomain,
    /// Whether bundles come with the policy: not where the Workload API tells them.
    from_stream: bool,
    bundle: watch::Sender<Option<Arc<TrustBundle>>>,
}

impl Trust {
    /// Begins with a PEM file of authorities. Its sequence is 0: any bundle that the control plane tells, now or before a restart, is later.
    pub fn read(trust_domain: &TrustDomain, path: &Path) -> Result<Self, TrustError> {
        let certificates = CertificateDer::pem_file_iter(path)?;
        let authorities = certificates.map(|certificate| Ok(certificate?.to_vec().into())).collect::<Result<_, pem::Error>>()?;
        let body = proto::TrustBundle { trust_domain: trust_domain.to_string(), sequence: 0, authorities };
        let bundle = decode::trust_bundle(TRUST_BUNDLE, &body).map_err(TrustError::Bundle)?;
        Ok(Self::new(trust_domain, true, Some(bundle)))
    }

    /// Begins with none, and takes none of the stream.
    pub(super) fn told_elsewhere(trust_domain: &TrustDomain) -> Self {
        Self::new(trust_domain, false, None)
    }

    pub(super) fn new(trust_domain: &TrustDomain, from_stream: bool, bundle: Option<TrustBundle>) -> Self {
        Self { trust_domain: trust_domain.clone(), from_stream, bundle: watch::Sender::new(bundle.map(Arc::new)) }
    }

    pub fn subscribe(&self) -> CurrentTrust {
        self.bundle.subscribe()
    }

    /// What stands against a bundle of the stream.
    pub fn check(&self, bundle: &TrustBundle) -> Result<(), Fault> {
        let fault = |path: &str, message: String| Err(Fault { path: path.into(), message });
        if !self.from_stream {
            return fault("", "is not taken by a sidecar whose trust bundle comes from a Workload API".into());
        }
        if bundle.trust_domain != self.trust_domain {
            return fault("trustDomain", format!("must be {}, the sidecar's", self.trust_domain));
        }
        let current = self.bundle.borrow();
        match current.as_ref() {
            Some(current) if bundle.sequence < current.sequence => {
                fault("sequence", format!("must be at least {}: an earlier bundle is not believed again", current.sequence))
            }
            Some(current) if bundle.sequence == current.sequence && bundle.authorities != current.authorities => {
                fault("sequence", format!("must be more than {}, which other authorities have", current.sequence))
            }
            _ => Ok(()),
        }
    }

    /// Puts a bundle of the stream in force, unless something stands against it.
    pub fn take(&self, bundle: &Arc<TrustBundle>) {
        if self.check(bundle).is_ok() {
            self.bundle.send_if_modified(|current| {
                let is_new = current.as_ref().is_none_or(|current| current.sequence < bundle.sequence);
                if is_new {
                    *current = Some(bundle.clone());
                }
                is_new
            });
        }
    }

    /// Puts in force what the Workload API tells, which counts nothing: each other set of authorities is counted here.
    pub(super) fn told(&self, authorities: Vec<Arc<[u8]>>) {
        self.bundle.send_if_modified(|current| {
            let is_new = current.as_ref().is_none_or(|current| current.authorities != authorities);
            if is_new {
                let sequence = current.as_ref().map_or(1, |current| current.sequence + 1);
                *current = Some(Arc::new(TrustBundle { trust_domain: self.trust_domain.clone(), sequence, authorities }));
            }
            is_new
        });
    }
}

#[cfg(test)]
mod tests;
