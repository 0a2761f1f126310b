//! A sidecar of a new version takes over from the one that runs, which loses no connection, query or count by it.
//!
//! Both have one state directory. Who has its lock serves, and offers to hand over at the Unix socket `handover` in it, to its own user
//! alone: the file has mode 0600, and each side asks the kernel who the other is. The new process leads:
//!
//! ```text
//! new                                  old, serving all the while
//! HELLO version, workload        ->    or REFUSED: another version, another workload, another take-over under way
//!                                <-    ESTATE, DESCRIPTORS…   keys; the lock, the listening sockets, the admin endpoint's
//! restores the last known good, and prepares its listeners on these sockets
//! READY                          ->
//!                                <-    COUNTERS…, BINDINGS…, COMPLETE   from here on the old one tells what it charges
//! puts the policy in force and accepts
//! TAKEN                          ->
//!                                <-    RELEASED   says nothing to the control plane any more, accepts nothing
//!                                <-    CHARGED…   what connections from before still ask for, until they have ended
//! ```
//!
//! Until it has released, the old one goes on as if nothing had been asked, whatever becomes of the other. A socket is the same socket in both
//! processes, with one queue: what waits in it, one of them accepts. If the old one ends at any point without having refused, then what the
//! new one has by then is its own, and what it has not begins anew; without the sockets it starts like any other.
//!
//! Does not go: requests, tunnels and other connections under way (they end where they are, by the old one's deadline, and count there);
//! remembered tokens and DNS answers; connections to upstreams; metrics.

mod channel;
mod estate;
mod message;
mod offer;
mod predecessor;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use crate::{config::last_good::LastGoodError, limiter::state::MalformedState};

pub use self::{
    channel::Channel,
    estate::Estate,
    offer::{Handover, Offer, Successor},
    predecessor::{Begun, Predecessor, begin},
};

/// Of the state directory.
const SOCKET: &str = "handover";
/// How HELLO begins; ends in the version. HELLO and REFUSED are the same in all versions.
const MAGIC: &[u8; 8] = b"RFHND\0\0\x01";

/// How long each side waits for what the other has at hand.
const PROMPT: Duration = Duration::from_secs(10);
/// How long the old one waits for READY: zones of the last known good are checked whole.
const PREPARING: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("the other sidecar has ended")]
    Ended,
    #[error("the other sidecar says nothing")]
    Silent,
    #[error("the other sidecar refuses: {0}")]
    Refused(Refusal),
    #[error("the process at the other end is another user's")]
    Stranger,
    #[error("what the other sidecar says cannot be understood: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    State(#[from] LastGoodError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<MalformedState> for HandoverError {
    fn from(_: MalformedState) -> Self {
        Self::Malformed("its counters")
    }
}

/// Why a running sidecar does not hand over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It speaks another version of this.
    Version,
    Other(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version => f.write_str("it hands over in another way than this version"),
            Self::Other(why) => f.write_str(why),
        }
    }
}
