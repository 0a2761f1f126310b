//! A request for a certificate (PKCS#10, RFC 2986): only its key counts, and that whoever asks has the private half of it.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519},
    prelude::FromDer,
    x509::SubjectPublicKeyInfo as ParsedKey,
};

/// A request with a key of ours has a few hundred bytes.
const MAX_BYTES: usize = 4096;
/// An uncompressed point of P-256 (SEC 1 §2.3.3).
const P256_POINT_BYTES: usize = 65;

/// Why a request cannot be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("csr must have at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("csr must be a PKCS#10 certificate request in DER")]
    Unreadable,
    #[error("csr must be for a key of ECDSA P-256 or Ed25519, and is for {0}")]
    Key(&'static str),
    #[error("csr must be signed by the key that it is for")]
    Signature,
}

/// The key to be certified. What else the request asks for (a name, an extension) is not looked at.
pub fn public_key(csr: &[u8]) -> Result<SubjectPublicKeyInfo, CsrError> {
    if csr.len() > MAX_BYTES {
        return Err(CsrError::TooLong);
    }
    let (rest, request) = X509CertificationRequest::from_der(csr).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let key = &request.certification_request_info.subject_pki;
    check(key)?;
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Unreadable)
}

fn check(key: &ParsedKey<'_>) -> Result<(), CsrError> {
    let algorithm = &key.algorithm;
    if algorithm.algorithm == OID_SIG_ED25519 {
        return Ok(());
    }
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return Err(CsrError::Key("one of RSA"));
    }
    if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(CsrError::Key("one of another algorithm"));
    }
    let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if curve != Some(OID_EC_P256) {
        return Err(CsrError::Key("one of another curve"));
    }
    // The parser takes a compressed point too, which not every peer does.
    if key.subject_public_key.data.len() != P256_POINT_BYTES {
        return Err(CsrError::Key("a point that is not written in full"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
    };

    use super::*;

    fn request(key: &KeyPair, edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        edit(&mut params);
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn plain(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        request(&KeyPair::generate_for(algorithm).unwrap(), |_| {})
    }

    #[test]
    fn the_key_alone_is_taken() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let asks_for_more = request(&key, |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
                params.subject_alt_names = vec![rcgen::SanType::DnsName("control-plane".try_into().unwrap())];
                params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0])];
            });
            for csr in [asks_for_more, request(&key, |_| {})] {
                assert_eq!(public_key(&csr).unwrap().subject_public_key_info(), key.subject_public_key_info());
            }
        }
    }

    #[test]
    fn what_cannot_be_granted_is_refused_with_its_reason() {
        let good = plain(&PKCS_ECDSA_P256_SHA256);
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let mut renamed = good.clone();
        let at = renamed.windows(5).position(|bytes| bytes == b"rcgen").unwrap();
        renamed[at] = b'x';
        // Another's key with a signature of ours.
        let mut stolen = good.clone();
        let theirs = plain(&PKCS_ECDSA_P256_SHA256);
        let key = |csr: &[u8]| csr.windows(4).position(|bytes| bytes == [0x03, 0x42, 0x00, 0x04]).unwrap();
        let (at, from) = (key(&stolen), key(&theirs));
        stolen[at..at + 68].copy_from_slice(&theirs[from..from + 68]);
        let mut long = good.clone();
        long.resize(MAX_BYTES + 1, 0);
        for (what, csr, wanted) in [
            ("nothing", Vec::new(), CsrError::Unreadable),
            ("garbage", b"\x30\x82\xff\xff\x00".to_vec(), CsrError::Unreadable),
            ("PEM", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), CsrError::Unreadable),
            ("cut", good[..good.len() - 1].to_vec(), CsrError::Unreadable),
            ("more behind it", [&good[..], &[0]].concat(), CsrError::Unreadable),
            ("huge", long, CsrError::TooLong),
            ("forged", forged, CsrError::Signature),
            ("changed", renamed, CsrError::Signature),
            ("for another's key", stolen, CsrError::Signature),
            ("RSA", plain(&PKCS_RSA_SHA256), CsrError::Key("one of RSA")),
            ("P-384", plain(&PKCS_ECDSA_P384_SHA384), CsrError::Key("one of another curve")),
        ] {
            assert_eq!(public_key(&csr).err(), Some(wanted), "{what}");
        }
    }

    #[test]
    fn no_damage_to_a_request_gets_another_key_certified() {
        let good = plain(&PKCS_ECDSA_P256_SHA256);
        let key = public_key(&good).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut damaged = good.clone();
                damaged[at] ^= 1 << bit;
                // Around what is signed the parser is lenient.
                assert!(public_key(&damaged).is_err() || public_key(&damaged).unwrap() == key, "byte {at}, bit {bit}");
            }
            assert!(public_key(&good[..at]).is_err());
        }
    }
}
