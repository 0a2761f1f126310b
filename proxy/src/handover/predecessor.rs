//! The side of the process that takes over.

use std::{
    io,
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use prost::Message;

use super::{Channel, Estate, HandoverError, MAGIC, PROMPT, Refusal, SOCKET, channel::Kind, message::ToldNames};
use crate::{
    bindings::Bindings,
    config::last_good::LastGood,
    limiter::{
        Limiter,
        state::{Charged, TenantState},
    },
    telemetry::notice,
};

/// How often it is looked whether a sidecar that hands nothing over has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Who serves the workload.
pub enum Begun {
    /// Nobody: this process begins like any other.
    Alone(LastGood),
    /// Another process, which hands over.
    With(Predecessor, Estate),
}

/// The process that serves. While this is all that it is told, it goes on.
#[derive(Debug)]
pub struct Predecessor(Channel);

/// Asks the sidecar that uses the state directory `dir` to hand over. One that cannot (it drains, it is of another version) is waited for.
pub fn begin(dir: &Path, workload: &str) -> Result<Begun, HandoverError> {
    let mut is_told = false;
    loop {
        match LastGood::new(dir, workload) {
            Err(error) if error.is_busy() => {}
            alone => return Ok(Begun::Alone(alone?)),
        }
        let why = match Predecessor::meet(&dir.join(SOCKET), workload) {
            Ok((predecessor, estate)) => return Ok(Begun::With(predecessor, estate)),
            Err(HandoverError::Io(error)) if is_absent(&error) => "it offers nothing".to_owned(),
            Err(error @ (HandoverError::Ended | HandoverError::Refused(Refusal::Version))) => error.to_string(),
            Err(error) => return Err(error),
        };
        if !std::mem::replace(&mut is_told, true) {
            notice(format_args!("take-over: waits until the sidecar that uses {} has ended ({why})", dir.display()));
        }
        thread::sleep(LOOK);
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

impl Predecessor {
    fn meet(socket: &Path, workload: &str) -> Result<(Self, Estate), HandoverError> {
        Self::greet(Channel::new(UnixStream::connect(socket)?)?, workload)
    }

    pub(super) fn greet(mut channel: Channel, workload: &str) -> Result<(Self, Estate), HandoverError> {
        channel.send(Kind::Hello, &[MAGIC, workload.as_bytes()].concat())?;
        let estate = Estate::receive(&mut channel)?;
        Ok((Self(channel), estate))
    }

    /// Takes counters and names, once all else is prepared. If the other process ends meanwhile, what it had not told begins anew.
    pub fn counters(&mut self, limiter: &Limiter, bindings: &Bindings) -> Result<(), HandoverError> {
        match self.receive_counters(limiter, bindings) {
            Err(HandoverError::Ended) => {
                notice(format_args!("take-over: the other sidecar ended before it had told all that it has counted"));
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn receive_counters(&mut self, limiter: &Limiter, bindings: &Bindings) -> Result<(), HandoverError> {
        self.0.send(Kind::Ready, &[])?;
        loop {
            let frame = self.0.receive(Some(PROMPT))?;
            match frame.kind {
                Kind::Counters => {
                    let state = TenantState::decode(frame.payload.as_slice()).map_err(|_| HandoverError::Malformed("its counters"))?;
                    limiter.restore(&state, Instant::now())?;
                }
                Kind::Bindings => {
                    let told = ToldNames::decode(frame.payload.as_slice()).map_err(|_| HandoverError::Malformed("its names"))?;
                    for name in told.names {
                        let (address, name, remaining) = name.parts().ok_or(HandoverError::Malformed("its names"))?;
                        bindings.restore(address, &name, remaining, Instant::now());
                    }
                }
                Kind::Complete => return Ok(()),
                _ => return Err(HandoverError::Malformed("its order")),
            }
        }
    }

    /// Tells the other process that this one serves, and returns when this one is alone. What the other still charges is owed here.
    pub fn succeed(mut self, limiter: Arc<Limiter>) -> Result<(), HandoverError> {
        let released = self.0.send(Kind::Taken, &[]).and_then(|()| self.0.expect(Kind::Released, PROMPT));
        match released {
            Ok(_) => {}
            // It is stopped: what it reads first when it goes on is that it is to end.
            Err(HandoverError::Silent) => notice(format_args!("take-over: the other sidecar does not say that it ends")),
            Err(HandoverError::Ended) => return Ok(()),
            Err(error) => return Err(error),
        }
        let listen = move || {
            while let Ok(frame) = self.0.receive(None) {
                let Ok(charged) = Charged::decode(frame.payload.as_slice()) else { return };
                if frame.kind == Kind::Charged && limiter.owe(charged, Instant::now()).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("late-charges".into()).spawn(listen)?;
        Ok(())
    }
}
