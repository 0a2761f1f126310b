//! Requests one after another, and what came of them.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{eventually, http::get};

/// From a thread of its own, each on a connection of its own, until it is stopped. Each that is answered must be answered 200.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    /// Until it is stopped.
    thread: Option<JoinHandle<Outcome>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub answered: usize,
    /// Connections refused or broken before an answer.
    pub unanswered: usize,
    /// The longest time between two answers.
    pub silence: Duration,
}

impl Traffic {
    pub fn start(address: SocketAddr, token: String) -> Self {
        Self::by(move || TcpStream::connect(address), address, token)
    }

    /// On connections that are opened elsewhere.
    pub fn by(connect: impl Fn() -> io::Result<TcpStream> + Send + 'static, address: SocketAddr, token: String) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, count) = (stop.clone(), answered.clone());
        let thread = thread::spawn(move || {
            let (mut outcome, mut last) = (Outcome::default(), Instant::now());
            while !stopped.load(Ordering::SeqCst) {
                match connect().and_then(|stream| get(address, "/traffic").bearer(&token).try_send_on(stream)) {
                    Ok(reply) => {
                        assert_eq!(reply.status, 200, "{reply:?}");
                        outcome.silence = outcome.silence.max(last.elapsed());
                        (outcome.answered, last) = (outcome.answered + 1, Instant::now());
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => outcome.unanswered += 1,
                }
            }
            outcome
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// Waits until some more requests were answered.
    #[track_caller]
    pub fn goes_on(&self) {
        let before = self.answered.load(Ordering::SeqCst);
        eventually("traffic goes on", || {
            assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "a request was answered otherwise");
            (self.answered.load(Ordering::SeqCst) > before + 20).then_some(())
        });
    }

    #[track_caller]
    pub fn stop(mut self) -> Outcome {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("every answer was 200")
    }

    /// Every single request was answered.
    #[track_caller]
    pub fn was_whole(self) -> Outcome {
        let outcome = self.stop();
        assert_eq!(outcome.unanswered, 0, "{outcome:?}");
        outcome
    }
}

impl Drop for Traffic {
    /// What its connections go through is not held by a test that has failed.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
