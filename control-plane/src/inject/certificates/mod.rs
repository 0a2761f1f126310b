//! By what the API server knows the webhook: an authority of its own, and a certificate of that. Nothing here waits or writes: time is told.
//!
//! A new authority is believed before it certifies, and the one before is believed until nobody shows a certificate of it: replicas and API
//! servers learn of either at their own time.

mod kept;

use std::{fmt, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};

pub(super) use kept::{Shown, keep};

const AUTHORITY_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 3600);
const AUTHORITY_RENEWAL: Duration = Duration::from_secs(365 * 24 * 3600);
const LEAF_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
const LEAF_RENEWAL: Duration = Duration::from_secs(20 * 24 * 3600);
/// For all replicas and API servers to have what was written last.
const OVERLAP: Duration = Duration::from_secs(600);
/// How far back validity begins: clocks differ.
const BACKDATED: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("cannot certify: {0}")]
    Certify(#[from] rcgen::Error),
    #[error("cannot be read: {0}")]
    Pem(#[from] pem::Error),
    #[error("certificate and key do not belong together: {0}")]
    Pair(#[from] rustls::Error),
}

/// What a Secret keeps, and replicas share. PEM; times in seconds since the Unix epoch.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Certificates {
    /// The oldest first.
    authorities: Vec<Authority>,
    leaf: Option<Leaf>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authority {
    certificate: String,
    key: String,
    since: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaf {
    certificate: String,
    key: String,
    since: u64,
    names: Vec<String>,
    /// `since` of the authority that certified it: no two have the same.
    authority: u64,
}

/// Without the keys.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since: Vec<u64> = self.authorities.iter().map(|authority| authority.since).collect();
        f.debug_struct("Certificates").field("authorities", &since).finish_non_exhaustive()
    }
}

impl Certificates {
    /// What time brings. `names`: DNS names by which the webhook is called. Whether anything changed.
    pub(super) fn advance(&mut self, now: Duration, names: &[String]) -> Result<bool, CertificateError> {
        let before = self.clone();
        let passed = |since: u64, span: Duration| now >= Duration::from_secs(since) + span;
        self.authorities.retain(|authority| !passed(authority.since, AUTHORITY_LIFETIME));
        if self.authorities.last().is_none_or(|newest| passed(newest.since, AUTHORITY_RENEWAL)) {
            self.authorities.push(Authority::generate(now)?);
        }
        let shown = self.leaf.as_ref().map(|leaf| leaf.authority);
        let is_shown = |authority: &&Authority| Some(authority.since) == shown;
        let believed = |authority: &&Authority| passed(authority.since, OVERLAP);
        // Whose certificate is shown goes on until a later one is believed by all. Where there is none, nobody is to be waited for.
        let issuer = self.authorities.iter().rfind(believed).filter(|issuer| shown.is_some_and(|shown| issuer.since >= shown));
        let issuer = issuer.or_else(|| self.authorities.iter().find(is_shown)).or(self.authorities.last());
        let Some(issuer) = issuer.cloned() else { return Ok(false) };
        let is_good = |leaf: &Leaf| leaf.authority == issuer.since && !passed(leaf.since, LEAF_RENEWAL) && leaf.names == names;
        if !self.leaf.as_ref().is_some_and(is_good) {
            self.leaf = Some(issuer.certify(names, now)?);
        }
        if let Some(leaf) = &self.leaf
            && passed(leaf.since, OVERLAP)
        {
            self.authorities.retain(|authority| authority.since >= leaf.authority);
        }
        Ok(*self != before)
    }

    /// Whom to believe: PEM certificates, one after the other.
    pub(super) fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// What the webhook shows.
    pub(super) fn certified_key(&self, provider: &CryptoProvider) -> Result<Option<CertifiedKey>, CertificateError> {
        let Some(leaf) = &self.leaf else { return Ok(None) };
        let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
        Ok(Some(CertifiedKey::from_der(chain, key, provider)?))
    }
}

impl Authority {
    fn generate(now: Duration) -> Result<Self, CertificateError> {
        let since = now.as_secs();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // While two are believed, a certificate is to be tried on one of them.
        params.distinguished_name.push(DnType::CommonName, format!("Ringfence webhook {since}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        set_validity(&mut params, now, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem(), since })
    }

    fn certify(&self, names: &[String], now: Duration) -> Result<Leaf, CertificateError> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let left = (Duration::from_secs(self.since) + AUTHORITY_LIFETIME).saturating_sub(now);
        set_validity(&mut params, now, LEAF_LIFETIME.min(left));
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Leaf { certificate, key: key.serialize_pem(), since: now.as_secs(), names: names.to_vec(), authority: self.since })
    }
}

fn set_validity(params: &mut CertificateParams, now: Duration, lifetime: Duration) {
    let at = |time: Duration| date_time_ymd(1970, 1, 1) + time;
    (params.not_before, params.not_after) = (at(now.saturating_sub(BACKDATED)), at(now + lifetime));
}

#[cfg(test)]
mod tests {
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::{ServerName, UnixTime},
    };

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn names() -> Vec<String> {
        vec!["webhook.ringfence-system.svc".into()]
    }

    /// What an API server that believes `bundle` says of what is shown.
    fn verified(bundle: &str, shown: &Certificates, name: &str, now: Duration) -> bool {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut roots = RootCertStore::empty();
        CertificateDer::pem_slice_iter(bundle.as_bytes()).for_each(|authority| roots.add(authority.unwrap()).unwrap());
        let key = shown.certified_key(&provider).unwrap().unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.into()).build().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&key.cert[0], &[], &name, &[], UnixTime::since_unix_epoch(now)).is_ok()
    }

    #[test]
    fn certificates_are_renewed_and_authorities_overlap() {
        let mut certificates = Certificates::default();
        assert!(certificates.advance(NOW, &names()).unwrap());
        assert!(verified(&certificates.bundle(), &certificates, &names()[0], NOW));
        assert!(!verified(&certificates.bundle(), &certificates, "other.svc", NOW));
        assert!(!certificates.advance(NOW + SECOND, &names()).unwrap(), "nothing to do");
        // Each day for five years: whoever has the bundle of before or of now believes what was shown before and is shown now.
        let (mut now, mut authorities, mut leaves) = (NOW, 1, 1);
        let mut before = certificates.clone();
        while now < NOW + 5 * AUTHORITY_RENEWAL {
            now += if certificates.authorities.len() > 1 { OVERLAP } else { OVERLAP * 144 };
            if certificates.advance(now, &names()).unwrap() {
                for bundle in [before.bundle(), certificates.bundle()] {
                    for shown in [&before, &certificates] {
                        assert!(verified(&bundle, shown, &names()[0], now), "{before:?} {certificates:?}");
                    }
                }
                authorities += usize::from(certificates.authorities.last().unwrap().since > before.authorities.last().unwrap().since);
                leaves += usize::from(certificates.leaf != before.leaf);
                before = certificates.clone();
            }
        }
        assert!((5..=6).contains(&authorities) && leaves > 90, "{authorities} {leaves}");
    }

    #[test]
    fn whoever_was_away_for_years_begins_anew() {
        let mut certificates = Certificates::default();
        certificates.advance(NOW, &names()).unwrap();
        let now = NOW + AUTHORITY_LIFETIME;
        assert!(certificates.advance(now, &names()).unwrap());
        assert_eq!(certificates.authorities.len(), 1);
        assert!(verified(&certificates.bundle(), &certificates, &names()[0], now));
    }

    #[test]
    fn another_name_takes_another_certificate() {
        let mut certificates = Certificates::default();
        certificates.advance(NOW, &names()).unwrap();
        let other = vec!["other.svc".to_owned()];
        assert!(certificates.advance(NOW + SECOND, &other).unwrap());
        assert!(verified(&certificates.bundle(), &certificates, "other.svc", NOW));
        let text = serde_json::to_string(&certificates).unwrap();
        assert!(serde_json::from_str::<Certificates>(&text).unwrap() == certificates);
        assert!(!format!("{certificates:?}").contains("PRIVATE"));
    }
}
