//! `TrustBundle`.

use std::sync::Arc;

use ringfence_policy::TrustBundle;
use rustls_pki_types::CertificateDer;

use super::{Fault, Faults};
use crate::{generated::resource as proto, resource::TRUST_BUNDLE};

/// Authorities of one trust domain at a time: the present one, the one before and the one after, and room.
const MAX_AUTHORITIES: usize = 16;

/// `TrustBundle`.
pub fn trust_bundle(name: &str, body: &proto::TrustBundle) -> Result<TrustBundle, Vec<Fault>> {
    let mut faults = Faults::default();
    if name != TRUST_BUNDLE {
        faults.add("", format!("must be named {TRUST_BUNDLE:?}: there is one per installation"));
    }
    let trust_domain = faults.parse("trustDomain", &body.trust_domain);
    if !(1..=MAX_AUTHORITIES).contains(&body.authorities.len()) {
        faults.add("authorities", format!("must be 1 to {MAX_AUTHORITIES} certificates"));
    }
    for (i, authority) in body.authorities.iter().take(MAX_AUTHORITIES).enumerate() {
        if let Err(error) = webpki::anchor_from_trusted_cert(&CertificateDer::from_slice(authority)) {
            faults.add(format!("authorities[{i}]"), format!("cannot be an authority: {error}"));
        }
    }
    let authorities = || body.authorities.iter().map(|authority| Arc::from(&**authority)).collect();
    faults.or_some(trust_domain.map(|trust_domain| TrustBundle { trust_domain, sequence: body.sequence, authorities: authorities() }))
}
