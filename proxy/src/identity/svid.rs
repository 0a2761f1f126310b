//! An SVID as it came from whoever issues them: believed after it was verified.

use std::{ops::Range, sync::Arc, time::Duration};

use ringfence_policy::{SpiffeId, TrustBundle};
use ringfence_xds::trust::{self, Svid};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509CertificateParser, nom::Parser, prelude::X509Certificate};

use super::Me;

/// The SVID and its intermediates.
const MAX_CHAIN: usize = 8;
/// Stolen, a key is of use for that long.
const MAX_LIFETIME: Duration = Duration::from_secs(31 * 24 * 3600);

/// Why an SVID is none that this sidecar can show.
#[derive(Debug, thiserror::Error)]
pub(super) enum SvidError {
    #[error("it must be of 1 to {MAX_CHAIN} certificates, and is of {0}")]
    Chain(usize),
    #[error("the trust bundle does not vouch for it: {0}")]
    Untrusted(rustls::Error),
    #[error("it names {0}, which this sidecar is not")]
    AnotherId(SpiffeId),
    #[error("it cannot be used with this key: {0}")]
    Key(rustls::Error),
    #[error("it cannot be read as a certificate")]
    Unreadable,
    #[error("it is good for more than {} days", MAX_LIFETIME.as_secs() / (24 * 3600))]
    Lifetime,
}

/// `chain`: the SVID first. `now`: since the Unix epoch.
pub(super) fn verified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
    bundle: &TrustBundle,
    me: &Me,
    now: Duration,
) -> Result<Svid, SvidError> {
    if !(1..=MAX_CHAIN).contains(&chain.len()) {
        return Err(SvidError::Chain(chain.len()));
    }
    let id = trust::verify(bundle, &chain, UnixTime::since_unix_epoch(now)).map_err(SvidError::Untrusted)?;
    if !me.is(&id) {
        return Err(SvidError::AnotherId(id));
    }
    let Range { start: not_before, end: not_after } = trust::validity(&chain[0]).map_err(|_| SvidError::Unreadable)?;
    if not_after.saturating_sub(now) > MAX_LIFETIME {
        return Err(SvidError::Lifetime);
    }
    let key = CertifiedKey::new(chain, any_supported_type(key).map_err(SvidError::Key)?);
    key.keys_match().map_err(SvidError::Key)?;
    Ok(Svid { id, key: Arc::new(key), not_before, not_after })
}

/// Whether the bundle vouches for an SVID that was verified under another.
pub(super) fn is_vouched_for(svid: &Svid, bundle: &TrustBundle, now: Duration) -> bool {
    trust::verify(bundle, &svid.key.cert, UnixTime::since_unix_epoch(now)).is_ok()
}

/// Certificates in DER, one after another: at least one, at most `max`.
pub(super) fn concatenated(der: &[u8], max: usize) -> Option<Vec<CertificateDer<'static>>> {
    let mut certificates = Vec::new();
    let mut rest = der;
    while !rest.is_empty() {
        let (after, _) = parse(rest)?;
        if certificates.len() == max {
            return None;
        }
        let (certificate, after) = rest.split_at(rest.len() - after.len());
        certificates.push(CertificateDer::from(certificate.to_vec()));
        rest = after;
    }
    (!certificates.is_empty()).then_some(certificates)
}

/// The first certificate, and what comes after it. Its extensions are webpki's to judge.
fn parse(der: &[u8]) -> Option<(&[u8], X509Certificate<'_>)> {
    X509CertificateParser::new().with_deep_parse_extensions(false).parse(der).ok()
}

#[cfg(test)]
mod tests;
