//! Whom the control plane believes, and who it is itself.

use std::{sync::Arc, time::Duration};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ringfence_xds::{
    policy::{SpiffeId, TrustBundle},
    trust::{Svid, server_config, verify},
};
use rustls::{ServerConfig, crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{PrivateKeyDer, UnixTime};

use super::{TrustError, authority::AuthorityError, rotation::Rotation};

const ALPN: &[&[u8]] = &[b"h2"];

/// Replaced whole.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) bundle: Arc<TrustBundle>,
    pub(crate) server: Arc<ServerConfig>,
    /// Since the Unix epoch: when the control plane's own certificate is half through.
    pub(super) renew_at: Duration,
}

impl Credentials {
    /// With a new key of the control plane's own, which is in memory alone.
    pub(super) fn new(rotation: &Rotation, ttl: Duration, now: Duration) -> Result<Self, TrustError> {
        let bundle = rotation.bundle();
        let id = SpiffeId::control_plane(&bundle.trust_domain);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Certify)?;
        let chain = rotation.own_issuer().ok_or(TrustError::NoIssuer)?.certify(&id, &key, now..now + ttl)?;
        // What sidecars will say of it is known here already.
        verify(&bundle, &chain, UnixTime::since_unix_epoch(now)).map_err(TrustError::NotVouchedFor)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certified = CertifiedKey::new(chain, any_supported_type(&private)?);
        let svid = Svid { id, key: Arc::new(certified), not_before: now, not_after: now + ttl };
        let server = Arc::new(server_config(&bundle, &svid, false, ALPN)?);
        Ok(Self { bundle: Arc::new(bundle), server, renew_at: now + ttl / 2 })
    }
}
