//! TLS between members of a trust domain: a peer is who its X.509-SVID says (SPIFFE X.509-SVID), if the trust bundle's authorities vouch
//! for that. No host names, no public authorities; TLS 1.3 alone; no session is resumed, for a resumed handshake looks at no certificate.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use ringfence_policy::{SpiffeId, TrustBundle, TrustDomain, spiffe::SpiffeError};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::{certificate::X509CertificateParser, nom::Parser, time::ASN1Time};

/// An X.509-SVID with its private key.
#[derive(Clone)]
pub struct Svid {
    pub id: SpiffeId,
    pub key: Arc<CertifiedKey>,
    /// Since the Unix epoch.
    pub not_before: Duration,
    pub not_after: Duration,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Why a certificate names no member of the trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("it cannot be read as a certificate")]
    Unreadable,
    #[error("it must have one URI, its SPIFFE ID, and has {0}")]
    Uris(usize),
    #[error("its URI {0}")]
    Id(#[from] SpiffeError),
    #[error("it is of trust domain {0}")]
    Foreign(TrustDomain),
}

/// The SPIFFE ID in a certificate, which is believed only where the handshake has verified the certificate.
pub fn spiffe_id(certificate: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| PeerError::Unreadable)?;
    let mut uris = certificate.valid_uri_names();
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri.parse()?),
        (first, more) => Err(PeerError::Uris(usize::from(first.is_some()) + more)),
    }
}

/// From when until when a certificate says that it is valid, since the Unix epoch. Its extensions are webpki's to judge.
pub fn validity(certificate: &[u8]) -> Result<Range<Duration>, PeerError> {
    let (_, certificate) =
        X509CertificateParser::new().with_deep_parse_extensions(false).parse(certificate).map_err(|_| PeerError::Unreadable)?;
    let since_epoch = |time: ASN1Time| u64::try_from(time.timestamp()).map(Duration::from_secs).map_err(|_| PeerError::Unreadable);
    let validity = certificate.validity();
    Ok(since_epoch(validity.not_before)?..since_epoch(validity.not_after)?)
}

/// Whom a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This member and no other.
    Id(SpiffeId),
    /// Any member of the bundle's trust domain: whoever asks then decides by its ID.
    Member,
}

/// Believes what the authorities of a bundle vouch for.
#[derive(Debug)]
struct Verifier {
    trust_domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
    expected: Expected,
    /// A server's: whether clients must show a certificate. One that shows none has no identity.
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(bundle: &TrustBundle, expected: Expected, mandatory: bool) -> Result<Self, Error> {
        let anchor = |authority: &Arc<[u8]>| {
            let certificate = CertificateDer::from_slice(authority);
            webpki::anchor_from_trusted_cert(&certificate).map(|anchor| anchor.to_owned())
        };
        let anchors: Result<Vec<_>, _> = bundle.authorities.iter().map(anchor).collect();
        let anchors = anchors.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        Ok(Self { trust_domain: bundle.trust_domain.clone(), anchors, expected, mandatory, provider: provider() })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let bad = |error: CertificateError| Error::InvalidCertificate(error);
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| bad(CertificateError::BadEncoding))?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        certificate
            .verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, None, None)
            .map_err(|error| bad(of_webpki(&error)))?;
        let id = spiffe_id(end_entity).map_err(|_| bad(CertificateError::ApplicationVerificationFailure))?;
        let is_expected = match &self.expected {
            Expected::Id(expected) => id == *expected,
            Expected::Member => true,
        };
        if *id.trust_domain() != self.trust_domain || !is_expected {
            return Err(bad(CertificateError::ApplicationVerificationFailure));
        }
        Ok(())
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn of_webpki(error: &webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        _ => CertificateError::BadEncoding,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // What it is called by is no name of its: its SPIFFE ID is.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// None: names of authorities would tell whoever connects which they are.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// For connecting to a member. `svid`: what we show; without one we have no identity there.
pub fn client_config(bundle: &TrustBundle, svid: Option<&Svid>, expected: Expected, alpn: &[&[u8]]) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Verifier::new(bundle, expected, true)?);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous() // The word is rustls': the verifier is ours, above.
        .with_custom_certificate_verifier(verifier);
    let mut config = match svid {
        Some(svid) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.key.clone()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    // What a server is called by is not told: it would name the peer's tenant to whoever listens.
    config.enable_sni = false;
    Ok(config)
}

/// For members that connect. `mandatory`: whoever shows no SVID is refused; otherwise it has no identity.
pub fn server_config(bundle: &TrustBundle, svid: &Svid, mandatory: bool, alpn: &[&[u8]]) -> Result<ServerConfig, Error> {
    let verifier = Arc::new(Verifier::new(bundle, Expected::Member, mandatory)?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.key.clone())));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Who this is, if the bundle's authorities vouch for it at `now` as a server and as a client. `chain`: its certificate first.
pub fn verify(bundle: &TrustBundle, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<SpiffeId, Error> {
    let (end_entity, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let verifier = Verifier::new(bundle, Expected::Member, true)?;
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        verifier.verify(end_entity, intermediates, now, usage)?;
    }
    spiffe_id(end_entity).map_err(|_| Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
