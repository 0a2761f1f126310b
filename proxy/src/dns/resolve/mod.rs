//! Takes a question that policy has let through; yields what the upstreams know of it. Never knows who asked.
//!
//! Identical questions are asked once, however many wait for the answer.

mod chain;
mod ech;
mod upstreams;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use hickory_proto::ProtoError;
use tokio::{sync::watch, time::timeout};

pub use self::{
    chain::{Lie, Question, Resolved, follow},
    upstreams::{AskError, Upstreams},
};
use super::{
    answer::Reply,
    ede::Ede,
    limits::{DEADLINE, MAX_ASKING, MAX_WAITING},
};

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Lie(#[from] Lie),
    #[error("the answer cannot be written: {0}")]
    Encode(#[from] ProtoError),
    #[error("too many questions at once")]
    TooMany,
    /// What asked has ended without an answer.
    #[error("the question was given up")]
    GivenUp,
}

impl LookupError {
    /// What the client is told. An upstream's own words go before ours.
    pub fn ede(&self) -> Ede {
        match self {
            LookupError::Ask(AskError::Refused { ede: Some(ede), .. }) => ede.clone(),
            LookupError::Ask(AskError::Timeout) => Ede::new(Ede::NO_REACHABLE_AUTHORITY, "no upstream answered in time"),
            LookupError::Ask(AskError::Refused { .. }) => Ede::new(Ede::NO_REACHABLE_AUTHORITY, "the upstreams would not answer"),
            LookupError::Ask(AskError::Network(_)) => Ede::new(Ede::NETWORK_ERROR, "the upstreams could not be reached"),
            LookupError::Ask(AskError::None(_)) => Ede::new(Ede::NETWORK_ERROR, "there is no upstream"),
            LookupError::Lie(_) | LookupError::Encode(_) => Ede::new(Ede::NETWORK_ERROR, "the upstream's answer was of no use"),
            LookupError::TooMany => Ede::new(Ede::OTHER, "too many questions at once"),
            LookupError::GivenUp => Ede::new(Ede::OTHER, "the question was given up"),
        }
    }
}

/// Asks once. Where the upstream stops at an alias, what that leads to is another question: policy comes before it.
pub async fn resolve(question: &Question, upstreams: &Upstreams) -> Result<Resolved, LookupError> {
    let answer = timeout(DEADLINE, upstreams.ask(question)).await.unwrap_or(Err(AskError::Timeout))?;
    Ok(chain::follow(question, answer)?)
}

/// What a question ended in, for all who waited.
pub type Outcome = Result<Rc<Reply>, LookupError>;

/// `None` until the question has ended.
type Landing = watch::Receiver<Option<Outcome>>;

/// The questions on their way, by [`super::query::Query::key`].
#[derive(Default)]
pub struct Flights {
    asking: RefCell<HashMap<Box<[u8]>, Landing>>,
    waiting: Cell<usize>,
}

/// To be landed with what the question ended in; dropped, it tells that it was given up.
pub struct Flight {
    flights: Rc<Flights>,
    key: Box<[u8]>,
    outcome: watch::Sender<Option<Outcome>>,
}

/// A place among those who wait.
pub struct Wait {
    flights: Rc<Flights>,
    outcome: Landing,
}

impl Flights {
    /// Waits for the answer to a question. The flight is given to the first who asks, who has to see to it.
    pub fn join(self: &Rc<Self>, key: &[u8]) -> Result<(Wait, Option<Flight>), LookupError> {
        if self.waiting.get() >= MAX_WAITING {
            return Err(LookupError::TooMany);
        }
        let mut asking = self.asking.borrow_mut();
        let (outcome, flight) = match asking.get(key) {
            Some(outcome) => (outcome.clone(), None),
            None if asking.len() >= MAX_ASKING => return Err(LookupError::TooMany),
            None => {
                let (sender, outcome) = watch::channel(None);
                asking.insert(key.into(), outcome.clone());
                (outcome, Some(Flight { flights: self.clone(), key: key.into(), outcome: sender }))
            }
        };
        self.waiting.update(|waiting| waiting + 1);
        Ok((Wait { flights: self.clone(), outcome }, flight))
    }
}

impl Flight {
    pub fn land(self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.asking.borrow_mut().remove(&self.key);
    }
}

impl Wait {
    pub async fn outcome(&mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(LookupError::GivenUp)),
            Err(_) => Err(LookupError::GivenUp),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.flights.waiting.update(|waiting| waiting - 1);
    }
}
