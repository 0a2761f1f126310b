//! A bundle that is signed by whoever holds the configuration key. Who certifies under it, with an intermediate of the operator's, cannot
//! change whom sidecars believe.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ringfence_xds::{
    decode::{self, Decoded},
    policy::{TrustBundle, TrustDomain},
    resource::{Kind, Resource, TRUST_BUNDLE},
};
use rustls_pki_types::CertificateDer;

use super::{
    Credentials, Kept, Trust, TrustError,
    given::{Intermediate, certificates},
    proto,
    rotation::{Anchor, Phase, Rotation},
};
use crate::fleet::Fleet;

/// Whom sidecars are to believe, as the author of a signed set says it.
#[derive(Clone, Debug)]
pub struct Authorities {
    pub trust_domain: TrustDomain,
    /// PEM certificates: the roots of those who certify.
    pub file: PathBuf,
}

impl Authorities {
    /// As they are in the file now. `before`: the bundle of the set before, whose sequence they have if they are the same; else the time `now`
    /// is theirs, so that they are later also where that set is lost.
    pub(crate) fn read(&self, before: Option<&TrustBundle>, now: Duration) -> Result<Resource, TrustError> {
        let authorities = certificates(&self.file)?.iter().map(|certificate| Arc::from(&**certificate)).collect();
        let mut bundle = TrustBundle { trust_domain: self.trust_domain.clone(), sequence: now.as_secs(), authorities };
        if let Some(before) = before {
            let is_same = (&before.trust_domain, &before.authorities) == (&bundle.trust_domain, &bundle.authorities);
            bundle.sequence = if is_same { before.sequence } else { bundle.sequence.max(before.sequence + 1) };
        }
        let bundle = proto(&bundle);
        decode::trust_bundle(TRUST_BUNDLE, &bundle).map_err(|faults| TrustError::Authorities { path: self.file.clone(), faults })?;
        Ok(Resource::new(TRUST_BUNDLE, &bundle))
    }
}

/// The trust bundle among resources.
pub(crate) fn bundle_among<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Option<TrustBundle> {
    let resource = resources.into_iter().find(|resource| resource.kind == Kind::TrustBundle)?;
    match decode::decode(resource.kind, &resource.name, &resource.bytes) {
        Ok(Decoded::TrustBundle(bundle)) => Some((*bundle).clone()),
        _ => None,
    }
}

/// How one certifies under a bundle that is signed elsewhere.
#[derive(Clone, Debug)]
pub struct SignedTrustConfig {
    pub trust_domain: TrustDomain,
    /// Lifetime of SVIDs.
    pub svid_ttl: Duration,
    pub intermediate: Intermediate,
}

/// A bundle that was looked at, and can be certified under.
#[derive(Debug)]
pub(crate) struct Prepared(Rotation, Credentials);

impl Trust {
    /// Certifies under `bundle`, which is published already.
    pub(crate) fn under(
        bundle: &TrustBundle,
        config: &SignedTrustConfig,
        fleet: Arc<Fleet>,
        now: Duration,
    ) -> Result<Arc<Self>, TrustError> {
        if bundle.trust_domain != config.trust_domain {
            return Err(TrustError::OtherDomain(bundle.trust_domain.clone()));
        }
        let given = Arc::new(config.intermediate.authority(&anchors_of(bundle))?);
        let rotation = Rotation {
            trust_domain: bundle.trust_domain.clone(),
            sequence: bundle.sequence,
            anchors: anchors_of(bundle).into_iter().map(told).collect(),
            given: Some(given),
            longest_ttl: config.svid_ttl,
        };
        let credentials = Credentials::new(&rotation, config.svid_ttl, now)?;
        Ok(Self::new(Kept::Elsewhere, None, config.svid_ttl, fleet, rotation, credentials))
    }

    /// Whether one can go on under another `bundle`; `None`: it is the same. Nothing has changed before it is put in force.
    pub(crate) fn prepare(&self, bundle: &TrustBundle, now: Duration) -> Result<Option<Prepared>, TrustError> {
        let mut next = self.rotation.lock().clone();
        if next.bundle() == *bundle {
            return Ok(None);
        }
        if bundle.trust_domain != next.trust_domain {
            return Err(TrustError::OtherDomain(bundle.trust_domain.clone()));
        }
        next.sequence = bundle.sequence;
        next.anchors = anchors_of(bundle).into_iter().map(told).collect();
        let credentials = Credentials::new(&next, self.ttl, now)?;
        Ok(Some(Prepared(next, credentials)))
    }

    /// After its bundle was published.
    pub(crate) fn go_on(&self, Prepared(next, credentials): Prepared, now: Duration) {
        self.take_up(next, credentials, now);
    }
}

fn anchors_of(bundle: &TrustBundle) -> Vec<CertificateDer<'static>> {
    bundle.authorities.iter().map(|authority| CertificateDer::from(authority.to_vec())).collect()
}

fn told(certificate: CertificateDer<'static>) -> Anchor {
    Anchor { certificate, authority: None, phase: Phase::Issuing }
}
