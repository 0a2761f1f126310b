//! The authorities of a control plane with replicas: in a Secret, so that all certify by the same ones, in the same phases.

use futures_util::Stream;
use parking_lot::Mutex;

use super::{
    rotation::Rotation,
    state::{self, FILE, StateError},
};
use crate::kubernetes::secret::{SecretError, SharedSecret, Versioned};

#[derive(Debug)]
pub(super) struct Shared {
    secret: SharedSecret,
    /// What the rotation in force was read from, or written to.
    known: Mutex<Option<Versioned>>,
}

impl Shared {
    pub(super) fn new(secret: SharedSecret) -> Self {
        Self { secret, known: Mutex::default() }
    }

    /// What is there now; `None`: there is no such Secret.
    pub(super) async fn load(&self) -> Result<Option<(Rotation, Versioned)>, StateError> {
        let Some(secret) = self.secret.read().await? else { return Ok(None) };
        Ok(Some((self.decode(&secret)?, secret)))
    }

    /// What was loaded is in force here: whatever is saved next is made of that.
    pub(super) fn taken_up(&self, loaded: Option<Versioned>) {
        *self.known.lock() = loaded;
    }

    fn decode(&self, secret: &Versioned) -> Result<Rotation, SecretError> {
        let text = secret.get(FILE).ok_or_else(|| {
            self.secret
                .bad(format!("has no {FILE}: bring it back, or delete the Secret and let every sidecar join anew, with a new bundle"))
        })?;
        state::decode(text).map_err(|message| self.secret.bad(format!("{FILE}: {message}")))
    }

    /// In the place of what was taken up or saved last; an error if another replica has replaced that meanwhile.
    pub(super) async fn save(&self, rotation: &Rotation) -> Result<(), StateError> {
        let json = state::encode(rotation).map_err(|error| self.secret.bad(error.to_string()))?;
        let known = self.known.lock().clone();
        let saved = match known {
            Some(known) if known.get(FILE) == Some(&json) => return Ok(()),
            Some(mut known) => {
                known.set(FILE, json);
                self.secret.replace(&known).await?
            }
            None => self.secret.create([(FILE, json)]).await?,
        };
        *self.known.lock() = Some(saved);
        Ok(())
    }

    pub(super) fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        self.secret.changes()
    }
}
