//! The side of the process that serves.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixListener as BoundListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prost::Message;
use tokio::{net::UnixListener, sync::oneshot, time::sleep};

use super::{
    Channel, Estate, HandoverError, MAGIC, PREPARING, PROMPT, Refusal, SOCKET,
    channel::Kind,
    message::{ToldName, ToldNames},
};
use crate::{
    bindings::Bindings,
    limiter::{Limiter, state::Charged},
};

/// Pause after an accept that failed: the cause does not go away by asking again.
const SCARCE: Duration = Duration::from_millis(100);
/// Names in a frame: a megabyte at most.
const NAMES: usize = 4096;
/// Charges that wait to be told. More are not: a successor that keeps up with none of them is not to cost the memory of all.
const CHARGES: usize = 65_536;

/// The socket at which this process is asked to hand over.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    path: PathBuf,
}

impl Offer {
    /// For who has the lock of the state directory `dir`: whatever has the socket's name is a dead process's. On a tokio runtime.
    pub fn bind(dir: &Path) -> io::Result<Self> {
        let (path, new) = (dir.join(SOCKET), dir.join("handover.new"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = BoundListener::bind(&new)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, &path)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path })
    }

    /// The next process of this user that asks. Nothing is lost when the future is dropped before.
    pub async fn asked(&self) -> Channel {
        loop {
            match self.listener.accept().await {
                // Nothing is said to another user.
                Ok((stream, _)) => {
                    if let Ok(channel) = stream.into_std().map_err(HandoverError::from).and_then(Channel::new) {
                        return channel;
                    }
                }
                Err(_) => sleep(SCARCE).await,
            }
        }
    }

    /// Before the lock is given up.
    pub fn withdraw(self) {
        let _ = fs::remove_file(self.path);
    }
}

/// What is handed over apart from the estate.
#[derive(Clone)]
pub struct Handover {
    pub workload: String,
    pub limiter: Arc<Limiter>,
    pub bindings: Arc<Bindings>,
}

/// Another process that serves by now, and waits to be alone.
#[derive(Debug)]
pub struct Successor {
    channel: Channel,
    charged: Receiver<Charged>,
}

impl Handover {
    /// Talks to the process that asked on a thread of its own, while this one goes on serving.
    pub fn begin(self, channel: Channel, estate: Estate) -> io::Result<oneshot::Receiver<Result<Successor, HandoverError>>> {
        let (ended, outcome) = oneshot::channel();
        thread::Builder::new().name("handover".into()).spawn(move || drop(ended.send(self.run(channel, estate))))?;
        Ok(outcome)
    }

    pub(super) fn run(self, mut channel: Channel, estate: Estate) -> Result<Successor, HandoverError> {
        match self.converse(&mut channel, estate) {
            Ok(charged) => Ok(Successor { channel, charged }),
            Err(error) => {
                self.limiter.keep();
                channel.refuse(&match &error {
                    HandoverError::Refused(refusal) => refusal.clone(),
                    error => Refusal::Other(error.to_string()),
                });
                Err(error)
            }
        }
    }

    fn converse(&self, channel: &mut Channel, estate: Estate) -> Result<Receiver<Charged>, HandoverError> {
        let hello = channel.expect(Kind::Hello, PROMPT)?.payload;
        let workload = hello.strip_prefix(MAGIC).ok_or(HandoverError::Refused(Refusal::Version))?;
        if workload != self.workload.as_bytes() {
            return Err(HandoverError::Refused(Refusal::Other(format!("it serves the workload {}", self.workload))));
        }
        estate.send(channel)?;
        channel.expect(Kind::Ready, PREPARING)?;
        let (heir, charged) = sync_channel(CHARGES);
        for state in self.limiter.bequeath(&heir, Instant::now()) {
            channel.send(Kind::Counters, &state.encode_to_vec())?;
        }
        for some in self.bindings.remaining(Instant::now()).chunks(NAMES) {
            let names = some.iter().map(|(address, name, remaining)| ToldName::new(*address, name, *remaining)).collect();
            channel.send(Kind::Bindings, &ToldNames { names }.encode_to_vec())?;
        }
        channel.send(Kind::Complete, &[])?;
        channel.expect(Kind::Taken, PROMPT)?;
        Ok(charged)
    }
}

impl Successor {
    /// Leaves everything to the other process, which is told from then on what is still charged here: until all of our limiter is gone.
    /// An error: it is gone, and nothing has changed.
    pub fn release(mut self, limiter: &Limiter) -> Result<JoinHandle<()>, HandoverError> {
        self.channel.send(Kind::Released, &[]).inspect_err(|_| limiter.keep())?;
        let tell = move || {
            for charged in self.charged {
                if self.channel.send(Kind::Charged, &charged.encode_to_vec()).is_err() {
                    return;
                }
            }
        };
        Ok(thread::Builder::new().name("late-charges".into()).spawn(tell)?)
    }
}
