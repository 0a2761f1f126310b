//! The listener's own TLS identity, from files on the sidecar's disk.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::NoServerSessionStorage,
};
use sha2::{Digest, Sha256};

/// ALPN names (RFC 7301).
pub const H2: &[u8] = b"h2";
pub const HTTP1: &[u8] = b"http/1.1";

/// What a listener shows its clients.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    pub config: Arc<ServerConfig>,
    /// Of chain and key: files that were read again and hold the same are the same identity.
    fingerprint: [u8; 32],
}

impl PartialEq for TlsIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{file}: must be a readable PEM file with {expected}: {source}")]
    File { file: String, expected: &'static str, source: pem::Error },
    #[error("{file}: must hold at least one certificate")]
    NoCertificate { file: String },
    #[error("{certificate} and {key}: must belong together: {source}")]
    Pair { certificate: String, key: String, source: rustls::Error },
}

/// `certificate`: a PEM chain, the server's own first; `key`: its private key (PKCS#8, PKCS#1 or SEC1 PEM).
///
/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. Sessions are not resumed: a resumed handshake does not look at
/// certificates again, so it would outlive a trust that was withdrawn.
pub fn identity(certificate: &Path, key: &Path) -> Result<TlsIdentity, TlsError> {
    let name = |path: &Path| path.display().to_string();
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| TlsError::File { file: name(certificate), expected: "a certificate chain", source })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: name(certificate) });
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File { file: name(key), expected: "a private key", source })?;
    let mut hash = Sha256::new();
    for certificate in &chain {
        hash.update(certificate);
    }
    hash.update(private.secret_der());
    let fingerprint = hash.finalize().into();
    let pair = |source| TlsError::Pair { certificate: name(certificate), key: name(key), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsIdentity { config: Arc::new(config), fingerprint })
}
