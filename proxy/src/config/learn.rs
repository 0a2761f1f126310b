//! Tenants learnt on demand: a workload that serves any tenant meets one when a verified token names it.
//!
//! A data thread asks here and waits, bounded; the control thread asks the control plane. Only a token whose signature held gets this far.

use ringfence_policy::IssuerName;
use tokio::sync::{mpsc, oneshot};

/// Questions that may be waiting at once; more are refused (503) rather than queued.
const QUEUE: usize = 1024;

/// What is said of a claim value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// The snapshot in force knows the tenant now.
    Known,
    /// The control plane says that no tenant has this value.
    Unknown,
}

/// Data thread to control thread.
#[derive(Debug)]
pub enum Question {
    /// Who is `value` of `issuer`?
    Tenant { issuer: IssuerName, value: String, answer: oneshot::Sender<Learnt> },
    /// A token named a key that `issuer` has not got: are there fresh ones?
    Keys { issuer: IssuerName },
}

/// The data threads' end.
#[derive(Clone, Debug)]
pub struct Learner(mpsc::Sender<Question>);

impl Learner {
    pub fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// `None`: no answer could be had.
    pub async fn tenant(&self, issuer: &IssuerName, value: &str) -> Option<Learnt> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Question::Tenant { issuer: issuer.clone(), value: value.into(), answer }).ok()?;
        answered.await.ok()
    }

    /// Asks once; whether anything comes of it shows at the next request. Dropped where the queue is full.
    pub fn fresh_keys(&self, issuer: &IssuerName) {
        let _ = self.0.try_send(Question::Keys { issuer: issuer.clone() });
    }
}
