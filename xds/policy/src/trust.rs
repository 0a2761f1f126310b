//! Who vouches for identities in a trust domain.

use std::sync::Arc;

use crate::TrustDomain;

/// A trust bundle (SPIFFE Trust Domain and Bundle, section 4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustBundle {
    pub trust_domain: TrustDomain,
    /// Counts the bundles of this trust domain: what was established under an earlier one is looked at again, or ended.
    pub sequence: u64,
    /// X.509 certificates, DER; each can be an authority, and there is at least one.
    pub authorities: Vec<Arc<[u8]>>,
}
