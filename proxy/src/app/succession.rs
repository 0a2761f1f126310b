//! From one process to the next: how this one begins on what another hands it, and hands it on.

use std::{future::pending, io, path::Path, sync::Arc, thread::JoinHandle};

use tokio::sync::oneshot;

use super::StartError;
use crate::{
    admin::{AdminListener, AdminSocket},
    bootstrap::Bootstrap,
    config::{apply::Apply, last_good::LastGood},
    context::Contexts,
    handover::{self, Begun, Channel, Estate, Handover, HandoverError, Offer, Predecessor, Refusal, Successor},
    limiter::Limiter,
    telemetry::notice,
};

/// What a process begins on.
#[derive(Default)]
pub(super) struct Begin {
    pub(super) last_good: Option<LastGood>,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) estate: Option<Estate>,
}

impl Begin {
    pub(super) fn new(bootstrap: &Bootstrap, take_over: bool) -> Result<Self, StartError> {
        let (workload, dir) = (bootstrap.workload.as_str(), bootstrap.state_dir.as_deref());
        let alone = |last_good| Self { last_good, ..Self::default() };
        match (dir, take_over) {
            (None, false) => Ok(alone(None)),
            (None, true) => Err(StartError::NoStateDir),
            (Some(dir), false) => Ok(alone(Some(LastGood::new(dir, workload).map_err(StartError::State)?))),
            (Some(dir), true) => match handover::begin(dir, workload)? {
                Begun::Alone(last_good) => Ok(alone(Some(last_good))),
                Begun::With(predecessor, estate) => {
                    let last_good = LastGood::inherit(dir, workload, estate.lock.try_clone()?).map_err(StartError::State)?;
                    Ok(Self { last_good: Some(last_good), predecessor: Some(predecessor), estate: Some(estate) })
                }
            },
        }
    }
}

/// Puts the policy in force beside the process that serves, and goes on in its place. An error: that one goes on.
pub(super) fn succeed(mut predecessor: Predecessor, apply: &mut Apply, handover: &Handover) -> Result<(), StartError> {
    predecessor.counters(&handover.limiter, &handover.bindings)?;
    if !apply.begin() {
        return Err(StartError::NoPolicy);
    }
    predecessor.succeed(handover.limiter.clone())?;
    if let Some(Err(error)) = apply.last_good.as_ref().map(LastGood::sign) {
        notice(format_args!("stateDir: {error}"));
    }
    Ok(())
}

/// What is done for a process that takes over from this one.
pub(super) struct Succession {
    /// `None`: without a state directory there is none.
    offer: Option<Offer>,
    handover: Handover,
    contexts: Arc<Contexts>,
    /// The admin endpoint, by its address as configured.
    admin: Option<(String, AdminSocket)>,
    under_way: Option<oneshot::Receiver<Result<Successor, HandoverError>>>,
}

/// What another process wants, or what became of it.
pub(super) enum Said {
    Asked(Channel),
    Ended(Result<Successor, HandoverError>),
}

impl Succession {
    /// Offers to hand over, from when this process is the one that serves. On the control runtime.
    pub(super) fn offer(
        state_dir: Option<&Path>,
        handover: Handover,
        contexts: Arc<Contexts>,
        admin: Option<(String, AdminSocket)>,
    ) -> Self {
        if let Some((_, socket)) = &admin {
            socket.belongs_to_us(true);
        }
        // A sidecar that cannot be succeeded still serves.
        let offer = state_dir.and_then(|dir| {
            Offer::bind(dir).inspect_err(|error| notice(format_args!("no other process can take over: {}: {error}", dir.display()))).ok()
        });
        Self { offer, handover, contexts, admin, under_way: None }
    }

    /// Nothing is lost when the future is dropped before.
    pub(super) async fn next(&mut self) -> Said {
        let asked = async {
            match &self.offer {
                Some(offer) => offer.asked().await,
                None => pending().await,
            }
        };
        let ended = async {
            match &mut self.under_way {
                Some(ended) => ended.await.unwrap_or(Err(HandoverError::Ended)),
                None => pending().await,
            }
        };
        tokio::select! {
            channel = asked => Said::Asked(channel),
            outcome = ended => {
                self.under_way = None;
                Said::Ended(outcome)
            }
        }
    }

    /// `Some`: another process serves from now on, and this thread tells it of late charges.
    pub(super) fn answer(&mut self, said: Said, apply: &Apply) -> Option<JoinHandle<()>> {
        match said {
            Said::Asked(channel) if self.under_way.is_some() => {
                channel.refuse(&Refusal::Other("another take-over is under way".into()));
                None
            }
            Said::Asked(channel) => {
                let begun = self.estate(apply).and_then(|estate| self.handover.clone().begin(channel, estate));
                self.under_way = begun.inspect_err(|error| notice(format_args!("a take-over came to nothing: {error}"))).ok();
                None
            }
            Said::Ended(outcome) => outcome
                .and_then(|successor| successor.release(&self.handover.limiter))
                .inspect_err(|error| notice(format_args!("a take-over came to nothing: {error}")))
                .ok(),
        }
    }

    fn estate(&self, apply: &Apply) -> io::Result<Estate> {
        let admin = self.admin.as_ref().map(|(address, socket)| Ok::<_, io::Error>((address.clone(), socket.try_clone()?))).transpose()?;
        let lock = apply.last_good.as_ref().ok_or_else(|| io::Error::other("there is no state directory"))?.lock()?;
        Ok(Estate {
            lock,
            admin,
            listeners: apply.listeners.to_pass()?,
            limiter: self.handover.limiter.hash_key().clone(),
            contexts: self.contexts.key().to_vec(),
        })
    }

    /// The socket of the next handover and the admin endpoint's are another process's. Yields what goes on counting here.
    pub(super) fn leave(self) -> Arc<Limiter> {
        if let Some((_, socket)) = &self.admin {
            socket.belongs_to_us(false);
        }
        self.handover.limiter
    }

    /// Nobody can take over any more.
    pub(super) fn withdraw(self) {
        if let Some(offer) = self.offer {
            offer.withdraw();
        }
    }
}

/// Bound, or of the process before where it has the same address.
pub(super) fn admin_listener(address: &str, estate: Option<&mut Estate>) -> Result<AdminListener, StartError> {
    let place = address.parse()?;
    match estate.and_then(|estate| estate.admin.take_if(|(inherited, _)| inherited == address)) {
        Some((_, socket)) => Ok(AdminListener::inherit(&place, socket)?),
        None => Ok(AdminListener::bind(&place)?),
    }
}
