//! The trust bundle in force. It only goes forward: an authority that was withdrawn is not believed again because somebody sends an
//! earlier bundle.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
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
    /// The bootstrap's, of a sidecar that is told bundles by the control plane.
    file: Option<PathBuf>,
    /// Authorities that bundles before the present one had and it has not: not to be believed again.
    withdrawn: Mutex<Vec<Arc<[u8]>>>,
    bundle: watch::Sender<Option<Arc<TrustBundle>>>,
}

impl Trust {
    /// Begins with a PEM file of authorities. Its sequence is 0: any bundle that the control plane tells, now or before a restart, is later.
    pub fn read(trust_domain: &TrustDomain, path: &Path) -> Result<Self, TrustError> {
        Ok(Self { file: Some(path.into()), ..Self::new(trust_domain, true, Some(read(trust_domain, path)?)) })
    }

    /// The control plane is not vouched for: what the file has come to say while nobody told us (its authorities were all replaced meanwhile,
    /// and Kubernetes mounts the present ones) is as good as at a start. But for a withdrawn authority: the file may be an old one. Whether
    /// another bundle is in force now.
    pub(super) fn read_again(&self) -> Result<bool, TrustError> {
        let Some(file) = &self.file else { return Ok(false) };
        let read = read(&self.trust_domain, file)?;
        let withdrawn = self.withdrawn.lock().clone();
        if read.authorities.iter().any(|authority| withdrawn.contains(authority)) {
            return Ok(false);
        }
        Ok(self.replace(|current| current.is_none_or(|current| current.authorities != read.authorities).then(|| read.authorities.clone())))
    }

    /// Counts bundles that nobody else has counted. Whether there is another now.
    fn replace(&self, other: impl FnOnce(Option<&TrustBundle>) -> Option<Vec<Arc<[u8]>>>) -> bool {
        self.bundle.send_if_modified(|current| {
            let Some(authorities) = other(current.as_deref()) else { return false };
            let sequence = current.as_ref().map_or(1, |current| current.sequence.saturating_add(1));
            self.put(current, Arc::new(TrustBundle { trust_domain: self.trust_domain.clone(), sequence, authorities }));
            true
        })
    }

    fn put(&self, current: &mut Option<Arc<TrustBundle>>, next: Arc<TrustBundle>) {
        let mut withdrawn = self.withdrawn.lock();
        withdrawn.retain(|authority| !next.authorities.contains(authority));
        let before = current.iter().flat_map(|current| &current.authorities);
        withdrawn.extend(before.filter(|authority| !next.authorities.contains(authority)).cloned());
        *current = Some(next);
    }

    /// Begins with none, and takes none of the stream.
    pub(super) fn told_elsewhere(trust_domain: &TrustDomain) -> Self {
        Self::new(trust_domain, false, None)
    }

    pub(super) fn new(trust_domain: &TrustDomain, from_stream: bool, bundle: Option<TrustBundle>) -> Self {
        let (file, withdrawn) = Default::default();
        Self { trust_domain: trust_domain.clone(), from_stream, file, withdrawn, bundle: watch::Sender::new(bundle.map(Arc::new)) }
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
                    self.put(current, bundle.clone());
                }
                is_new
            });
        }
    }

    /// The key that sealed the bundle in force counts no more, and whoever had it could have counted to any sequence: it is believed until
    /// the control plane tells another, whatever the sequence of that.
    pub fn doubt(&self) {
        self.bundle.send_if_modified(|current| {
            if let Some(current) = current {
                Arc::make_mut(current).sequence = 0;
            }
            false
        });
    }

    /// Puts in force what the Workload API tells, which counts nothing: each other set of authorities is counted here.
    pub(super) fn told(&self, authorities: Vec<Arc<[u8]>>) {
        self.replace(|current| current.is_none_or(|current| current.authorities != authorities).then_some(authorities));
    }
}

fn read(trust_domain: &TrustDomain, path: &Path) -> Result<TrustBundle, TrustError> {
    let certificates = CertificateDer::pem_file_iter(path)?;
    let authorities = certificates.map(|certificate| Ok(certificate?.to_vec().into())).collect::<Result<_, pem::Error>>()?;
    let body = proto::TrustBundle { trust_domain: trust_domain.to_string(), sequence: 0, authorities };
    decode::trust_bundle(TRUST_BUNDLE, &body).map_err(TrustError::Bundle)
}

#[cfg(test)]
mod tests;
