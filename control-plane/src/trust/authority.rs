//! An authority: a key that vouches for identities, and the certificate that says so.

use std::{fmt, ops::Range, time::Duration};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use ringfence_xds::{
    policy::{SpiffeId, TrustDomain},
    trust::validity,
};
use rustls_pki_types::CertificateDer;

/// How far back validity begins: clocks differ.
pub(super) const BACKDATED: Duration = Duration::from_secs(60);
/// Of an authority that is made here. It is to be rotated long before.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// The last second of the year 9999, beyond which a certificate can name no time (RFC 5280 §4.1.2.5).
const LAST_SECOND: u64 = 253_402_300_799;
/// RFC 5280 §4.1.2.2 allows 20.
const SERIAL_BYTES: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the system gave no random number")]
    Random,
    #[error("cannot certify: {0}")]
    Certify(rcgen::Error),
    #[error("cannot be read as a key of a certificate authority: {0}")]
    Key(rcgen::Error),
    #[error("cannot be read as a certificate")]
    Certificate,
}

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What stands between its certificates and the trust bundle: nothing, or the certificates up to the operator's root.
    chain: Vec<CertificateDer<'static>>,
    /// Since the Unix epoch: nothing that it certifies outlives it.
    not_after: Duration,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one that vouches for itself, and its certificate.
    pub(super) fn generate(trust_domain: &TrustDomain, now: Duration) -> Result<(Self, CertificateDer<'static>), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Certify)?;
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Two authorities of one name would both be tried on each certificate.
        let name: String = serial[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name.push(DnType::CommonName, format!("Ringfence {name}"));
        let uri = format!("spiffe://{trust_domain}").try_into().map_err(AuthorityError::Certify)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let not_after = now + AUTHORITY_LIFETIME;
        set_validity(&mut params, now, not_after);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Certify)?.der().clone();
        Ok((Self { issuer: Issuer::new(params, key), chain: Vec::new(), not_after }, certificate))
    }

    /// One that is there. `key`: PKCS#8 in PEM. `chain`: what is sent behind what it certifies. Whether key and certificate belong together
    /// shows by what they certify.
    pub(super) fn read(certificate: &CertificateDer<'_>, key: &str, chain: Vec<CertificateDer<'static>>) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key).map_err(AuthorityError::Key)?;
        let not_after = validity(certificate).map_err(|_| AuthorityError::Certificate)?.end;
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(|_| AuthorityError::Certificate)?;
        Ok(Self { issuer, chain, not_after })
    }

    /// PKCS#8 in PEM.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// An X.509-SVID (SPIFFE X.509-SVID §§ 2-4), and the chain behind it. `validity`: since the Unix epoch, as the sidecars' clocks may have it.
    pub(super) fn certify(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        validity: Range<Duration>,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let mut params = CertificateParams::default();
        // Nobody is named but by the URI, which is critical then.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(AuthorityError::Certify)?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        set_validity(&mut params, validity.start, validity.end.min(self.not_after));
        let certificate = params.signed_by(key, &self.issuer).map_err(AuthorityError::Certify)?;
        Ok([certificate.der().clone()].into_iter().chain(self.chain.iter().cloned()).collect())
    }
}

/// Both since the Unix epoch.
fn set_validity(params: &mut CertificateParams, from: Duration, until: Duration) {
    let at = |time: Duration| date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs().min(LAST_SECOND));
    (params.not_before, params.not_after) = (at(from.saturating_sub(BACKDATED)), at(until));
}

fn serial() -> Result<[u8; SERIAL_BYTES], AuthorityError> {
    let mut serial = [0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    Ok(serial)
}
