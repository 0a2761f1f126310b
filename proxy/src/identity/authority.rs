//! A certificate authority for tests, and what it vouches for.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use ringfence_policy::TrustBundle;
use ringfence_xds::trust::Svid;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A bundle of trust domain `here` in which these are the authorities.
    pub(crate) fn bundle(sequence: u64, authorities: &[&Self]) -> Arc<TrustBundle> {
        let authorities = authorities.iter().map(|authority| Arc::from(&*authority.certificate)).collect();
        Arc::new(TrustBundle { trust_domain: "here".parse().unwrap(), sequence, authorities })
    }

    pub(crate) fn svid(&self, id: &str) -> Arc<Svid> {
        self.svid_until(id, SystemTime::now() + Duration::from_secs(3600))
    }

    pub(crate) fn svid_until(&self, id: &str, not_after: SystemTime) -> Arc<Svid> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = not_after.into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let signing = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        Arc::new(Svid {
            id: id.parse().unwrap(),
            key: Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)),
            not_before: Duration::ZERO,
            not_after: not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap(),
        })
    }
}
