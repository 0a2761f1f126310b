//! Who this sidecar is, and who its peers are.

#[cfg(test)]
pub(crate) mod authority;
pub mod peer;

use std::sync::Arc;

use ringfence_xds::trust::Svid;
use tokio::sync::watch;

/// `None`: there is none yet, or it has expired. Every renewal is a change.
pub type CurrentSvid = watch::Receiver<Option<Arc<Svid>>>;
