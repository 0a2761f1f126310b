//! Compiled policy values and every decision that Ringfence takes: who is asking, what it costs them, where they may go.
//!
//! Pure: no I/O, no clock (the time is a parameter), no async. The sidecar decides traffic with it, the control plane
//! validates with it, and `ringfence explain` tells what it would say, so that the three cannot disagree.

pub mod address;
pub mod budget;
#[cfg(test)]
mod corpora;
pub mod deny;
pub mod egress;
pub mod host;
pub mod identify;
pub mod name;
pub mod path;
pub mod peer;
pub mod ratelimit;
pub mod rpz;
pub mod scope;
pub mod snapshot;
pub mod spiffe;
pub mod tenant;
pub mod trust;

pub use deny::{Deny, Reason, RuleRef};
pub use name::{IssuerName, NameError, TenantId, WorkloadName, ZoneName};
pub use peer::{AcceptedPeer, PeerIdentity, PeerWorkload};
pub use snapshot::Snapshot;
pub use spiffe::{SpiffeId, TrustDomain};
pub use trust::TrustBundle;
