//! Policy zones from a primary, by transfer (AXFR, RFC 5936; IXFR, RFC 1995), signed (TSIG, RFC 8945) and over TLS (RFC 9103) as the
//! operator has it.
//!
//! Takes where each zone is; yields a file for each, which the zone's object is made of as it would be of a master file, and tells when one
//! changed or cannot be had. Never knows what a rule is. One task per zone.
//!
//! 1. `primary`: what the operator wrote, checked;
//! 2. `connection`: TCP or TLS; questions and bounded answers, each a `message`, signed by `tsig`;
//! 3. `sequence`: the records of a transfer -> what to do with each;
//! 4. `kept`: the zone on disk, made whole or by changes;
//! 5. `fetch`: all of that once; `task`: again and again, when the `soa` says, or a `notify`.

mod connection;
mod fetch;
mod kept;
mod message;
mod notify;
mod primary;
mod sequence;
mod soa;
mod task;
mod tsig;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_proto::ProtoError;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    feed::schedule,
    spec::{Object, Spec},
};
use connection::Limits;
use kept::{ApplyError, KeepError};
use message::MessageFault;
use notify::Notified;
use sequence::SequenceFault;
use task::{Shared, Task};

pub(crate) use kept::Checksum;
pub use kept::Kept;
pub use primary::{Primary, PrimaryError, Tls, check_address};
pub use tsig::{Algorithm, TsigFault, TsigKey};

/// Events that nobody has taken yet; the transfers wait where there are more.
const EVENTS: usize = 64;
/// How long the first looks are waited for.
const FIRST_LOOKS: Duration = Duration::from_secs(10);

/// What happened to a zone; `zone` is the PolicyZone's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferEvent {
    /// Another zone is kept than before.
    Changed { zone: Arc<str>, serial: u32 },
    /// The zone could not be had; the last good one stands. Told once for as long as it is the same.
    Failed { zone: Arc<str>, message: String },
    /// After `Failed`.
    Recovered { zone: Arc<str> },
}

/// Why a look at a primary came to nothing. Displayed as what the primary, or its answer, is at fault with.
#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("nothing for {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the connection ended before the answer did")]
    Cut,
    #[error("an answer of more than {0} octets")]
    Long(u64),
    #[error("changes of more than {0} octets")]
    LongChanges(u64),
    #[error("an answer of more than {0} messages")]
    Many(u32),
    #[error("the answer is signed, and there is no key: write tsig")]
    Signed,
    #[error("the answer {0}")]
    Tsig(#[from] TsigFault),
    #[error("the answer {0}")]
    Message(#[from] MessageFault),
    #[error("cannot be asked: {0}")]
    Question(#[from] ProtoError),
    #[error("the transfer {0}")]
    Sequence(#[from] SequenceFault),
    #[error("the transfer {0}")]
    Apply(#[from] ApplyError),
    #[error("the transfer {0}")]
    Keep(#[from] KeepError),
}

impl TransferError {
    /// Whether the answer, which was the primary's, is what is wrong.
    fn is_of_the_answer(&self) -> bool {
        matches!(
            self,
            Self::Cut
                | Self::LongChanges(_)
                | Self::Message(_)
                | Self::Sequence(_)
                | Self::Apply(ApplyError::NotThere(_) | ApplyError::Io(_))
        )
    }
}

/// The zones among `objects` that are transferred, by the PolicyZone's name.
pub fn wanted<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> BTreeMap<Arc<str>, Arc<Primary>> {
    let transferred = |object: &'a Arc<Object>| match &object.spec {
        Spec::PolicyZone(zone) => Some((object.key.name.clone(), zone.transfer.as_ref()?.primary()?.clone())),
        _ => None,
    };
    objects.into_iter().filter_map(transferred).collect()
}

/// Every zone's transfers. Dropping it ends them all.
#[derive(Debug)]
pub struct Transfers {
    state_dir: PathBuf,
    limits: Limits,
    events: mpsc::Sender<TransferEvent>,
    running: BTreeMap<Arc<str>, Running>,
    /// For whoever listens for notifications.
    notified: watch::Sender<Notified>,
}

#[derive(Debug)]
struct Running {
    primary: Arc<Primary>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Transfers {
    /// The zones are kept below `state_dir`, in which nobody else may keep any.
    pub fn new(state_dir: &Path) -> (Self, mpsc::Receiver<TransferEvent>) {
        kept::remove_drafts(state_dir);
        let (events, receiver) = mpsc::channel(EVENTS);
        let (limits, running, notified) = Default::default();
        (Self { state_dir: state_dir.to_owned(), limits, events, running, notified }, receiver)
    }

    /// Makes `wanted` the zones that are transferred, from now on and each at once. One that is as it was is not disturbed; one whose primary
    /// changed keeps what it has until that one's is newer. Call it within a runtime.
    pub fn reconcile(&mut self, wanted: BTreeMap<Arc<str>, Arc<Primary>>) {
        let state_dir = &self.state_dir;
        self.running.retain(|name, _| {
            let keep = wanted.contains_key(name);
            if !keep {
                Kept::new(state_dir, name).forget();
            }
            keep
        });
        for (name, primary) in wanted {
            if self.running.get(&name).is_none_or(|running| running.primary != primary) {
                // Ended before the next begins.
                self.running.remove(&name);
                let running = self.start(name.clone(), primary);
                self.running.insert(name, running);
            }
        }
        let zones = self.running.values().map(|running| (running.primary.clone(), running.shared.clone()));
        self.notified.send_replace(Notified::new(zones));
    }

    fn start(&self, name: Arc<str>, primary: Arc<Primary>) -> Running {
        let shared = Arc::new(Shared { tried: watch::Sender::new(false), wishes: watch::Sender::new(()) });
        let task = Task {
            kept: Kept::new(&self.state_dir, &name),
            name,
            primary: primary.clone(),
            limits: self.limits,
            shared: shared.clone(),
            events: self.events.clone(),
            jitter: schedule::jitter,
        };
        Running { primary, shared, task: tokio::spawn(task.run()).abort_handle() }
    }

    /// Until every primary was looked at once, or for so long as a start may be held up by that: whoever waits for it before the first push
    /// spares the sidecars one without zones.
    pub async fn tried(&self) {
        let all = async {
            for running in self.running.values() {
                // An error says that the task is gone.
                let _ = running.shared.tried.subscribe().wait_for(|tried| *tried).await;
            }
        };
        let _ = timeout(FIRST_LOOKS, all).await;
    }

    /// Listens for notifications (RFC 1996), over UDP and TCP, until the runtime ends. Yields where.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        notify::listen(address, self.notified.subscribe()).await
    }
}
