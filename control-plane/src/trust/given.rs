//! An authority of the operator's own: an intermediate with its key, and the roots that vouch for it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::{
    TrustConfig, TrustError,
    authority::Authority,
    rotation::{Anchor, Phase, Rotation},
    state::{StateError, read_private},
};

/// Files in PEM.
#[derive(Clone, Debug)]
pub struct GivenCa {
    pub intermediate: Intermediate,
    pub roots: PathBuf,
}

/// Files in PEM. It may be a root itself.
#[derive(Clone, Debug)]
pub struct Intermediate {
    /// The certificate of `key`, then those between it and the roots.
    pub certificate: PathBuf,
    /// PKCS#8; its owner's alone.
    pub key: PathBuf,
}

impl Intermediate {
    /// `roots`: what sidecars believe, and need not be sent.
    pub(super) fn authority(&self, roots: &[CertificateDer<'_>]) -> Result<Authority, TrustError> {
        let mut chain = certificates(&self.certificate)?;
        let key = read_private(&self.key)?.ok_or_else(|| bad(&self.key, "is missing"))?;
        let key = String::from_utf8(key).map_err(|_| bad(&self.key, "must be PEM"))?;
        let certificate = chain[0].clone();
        chain.retain(|certificate| !roots.contains(certificate));
        Ok(Authority::read(&certificate, &key, chain)?)
    }
}

impl GivenCa {
    /// Where what was `kept` had keys of its own, sidecars are believed by them until the last SVID of theirs has expired.
    pub(super) fn take_over(&self, config: &TrustConfig, kept: Option<Rotation>, now: Duration) -> Result<Rotation, TrustError> {
        let roots = certificates(&self.roots)?;
        let authority = self.intermediate.authority(&roots)?;
        let (sequence, longest_ttl, before) = match kept {
            Some(kept) => (kept.sequence, kept.longest_ttl.max(config.svid_ttl), kept.anchors),
            None => (0, config.svid_ttl, Vec::new()),
        };
        let until = (now + longest_ttl).as_secs();
        let own = |anchor: &Anchor| match anchor.phase {
            _ if anchor.authority.is_none() => None,
            Phase::Announced { .. } => None,
            Phase::Issuing => Some(Anchor { phase: Phase::Retiring { until }, ..anchor.clone() }),
            Phase::Retiring { .. } => Some(anchor.clone()),
        };
        let root = |certificate: CertificateDer<'static>| Anchor { certificate, authority: None, phase: Phase::Issuing };
        let anchors: Vec<Anchor> = before.iter().filter_map(own).chain(roots.into_iter().map(root)).collect();
        let same = before.iter().map(|anchor| &anchor.certificate).eq(anchors.iter().map(|anchor| &anchor.certificate));
        Ok(Rotation {
            trust_domain: config.trust_domain.clone(),
            sequence: sequence + u64::from(!same),
            anchors,
            given: Some(Arc::new(authority)),
            longest_ttl,
        })
    }
}

/// At least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StateError> {
    let text = fs::read(path).map_err(|error| StateError::Io { path: path.into(), error })?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| bad(path, &format!("must be certificates in PEM: {error}")))?;
    if read.is_empty() { Err(bad(path, "has no certificate in PEM")) } else { Ok(read) }
}

fn bad(path: &Path, message: &str) -> StateError {
    StateError::Bad { path: path.into(), message: message.into() }
}
