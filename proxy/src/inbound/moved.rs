//! A workload that is elsewhere by now. No listener is replaced for it, so that what goes on at its old address is ended here.

use std::{net::SocketAddr, rc::Weak, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{config::Current, hop::leaving::Leaving, listeners::ListenerKey};

/// Cuts what is under way at `address` `drain_for` after the listener's policy has come to name another. Ends with it, or, where nothing
/// goes there any more, at the next policy.
pub(super) async fn leave(key: ListenerKey, address: SocketAddr, leaving: Weak<Leaving>, current: Arc<Current>, drain_for: Duration) {
    let mut changes = current.changes();
    let is_elsewhere = || current.pin().is_some_and(|now| key.policy(&now.workload).is_some_and(|policy| policy.upstream != address));
    while !is_elsewhere() {
        if changes.changed().await.is_err() || leaving.strong_count() == 0 {
            return;
        }
    }
    if let Some(leaving) = leaving.upgrade() {
        leaving.begin();
    }
    sleep(drain_for).await;
    if let Some(leaving) = leaving.upgrade() {
        leaving.cut();
    }
}
