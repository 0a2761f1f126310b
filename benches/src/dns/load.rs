//! Queries over UDP from one thread of this process: as many at a time as a window has (closed loop), or at a fixed rate (open loop).

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ask::{HEADER, MAX_ANSWER, NOERROR, NXDOMAIN, connect, question, rcode};
use crate::{Error, load::Latency};

/// Queries under way in a closed loop.
const WINDOW: usize = 100;
/// Silence after which what is under way is lost, in a closed loop; in an open one, how long after the last question answers are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of a mix: so many of a hundred questions are refused, one in so many was never asked before; the others are passed and known.
const REFUSED_OF_100: usize = 30;
const NEW_ONE_IN: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Refused,
    Cached,
    Mix,
}

/// What is asked, in turn.
pub(super) struct Questions {
    refused: Vec<Vec<u8>>,
    cached: Vec<Vec<u8>>,
    /// New names have the number of their question: none is asked for twice.
    asked: usize,
}

impl Questions {
    pub(super) fn new(refused: &[String], cached: &[String]) -> Result<Self, Error> {
        let questions = |names: &[String]| names.iter().map(|name| question(name)).collect::<Result<_, _>>();
        Ok(Self { refused: questions(refused)?, cached: questions(cached)?, asked: 0 })
    }

    /// The next one, and what must be answered. Refused ones are spread evenly.
    fn next(&mut self, work: Work) -> Result<(Vec<u8>, u8), Error> {
        let number = self.asked;
        self.asked += 1;
        let refused = |questions: &Self| (questions.refused[number % questions.refused.len()].clone(), NXDOMAIN);
        let cached = |questions: &Self| (questions.cached[number % questions.cached.len()].clone(), NOERROR);
        Ok(match work {
            Work::Refused => refused(self),
            Work::Cached => cached(self),
            Work::Mix if number * REFUSED_OF_100 % 100 < REFUSED_OF_100 => refused(self),
            Work::Mix if number % NEW_ONE_IN == 1 => (question(&format!("new-{number}.kept.bench.example"))?, NOERROR),
            Work::Mix => cached(self),
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) answered: usize,
    /// Answers with another RCODE than the policy's.
    pub(super) wrong: usize,
    /// Questions without an answer.
    pub(super) lost: usize,
    pub(super) seconds: f64,
    pub(super) latency: Latency,
}

/// `count` questions, `WINDOW` of them under way at a time.
pub(super) fn saturate(server: SocketAddr, work: Work, questions: &mut Questions, count: usize) -> Result<Outcome, Error> {
    let mut asking = Asking::new(server, count)?;
    while asking.asked < count || asking.waiting > 0 {
        while asking.waiting < WINDOW && asking.asked < count {
            asking.ask(work, questions)?;
        }
        asking.wait(Instant::now() + PATIENCE)?;
        if asking.receive()? == 0 && asking.silent() {
            asking.give_up();
        }
    }
    Ok(asking.end())
}

/// So many questions a second, whether they are answered in time or not, until `over` says so.
pub(super) fn at_rate(
    server: SocketAddr,
    work: Work,
    questions: &mut Questions,
    rate: usize,
    mut over: impl FnMut(Duration) -> bool,
) -> Result<Outcome, Error> {
    let mut asking = Asking::new(server, rate)?;
    while !over(asking.started.elapsed()) {
        let due = |asked: usize| asking.started + Duration::from_secs_f64(asked as f64 / rate as f64);
        if due(asking.asked) <= Instant::now() {
            asking.ask(work, questions)?;
        } else {
            asking.wait(due(asking.asked))?;
        }
        asking.receive()?;
    }
    while asking.waiting > 0 && !asking.silent() {
        asking.wait(Instant::now() + PATIENCE)?;
        asking.receive()?;
    }
    Ok(asking.end())
}

struct Asking {
    socket: UdpSocket,
    started: Instant,
    /// When a question was asked and what its answer must be, by its ID.
    open: Vec<Option<(Instant, u8)>>,
    asked: usize,
    waiting: usize,
    last_heard: Instant,
    latencies: Vec<Duration>,
    wrong: usize,
    lost: usize,
}

impl Asking {
    fn new(server: SocketAddr, expected: usize) -> Result<Self, Error> {
        let socket = connect(server).and_then(|socket| socket.set_nonblocking(true).map(|()| socket)).map_err(Error::io("UDP socket"))?;
        let started = Instant::now();
        Ok(Self {
            socket,
            started,
            open: vec![None; 1 << 16],
            asked: 0,
            waiting: 0,
            last_heard: started,
            latencies: Vec::with_capacity(expected),
            wrong: 0,
            lost: 0,
        })
    }

    /// Latency counts from here: that this program was late for a question is not the server's doing.
    fn ask(&mut self, work: Work, questions: &mut Questions) -> Result<(), Error> {
        let (mut question, wanted) = questions.next(work)?;
        let id = self.asked as u16;
        question[..2].copy_from_slice(&id.to_be_bytes());
        if self.open[usize::from(id)].replace((Instant::now(), wanted)).is_some() {
            // All IDs were used since.
            self.lost += 1;
            self.waiting -= 1;
        }
        self.asked += 1;
        self.waiting += 1;
        match self.socket.send(&question) {
            // It counts as lost in the end.
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => {
                Err(Error::io("query")(error))
            }
            _ => Ok(()),
        }
    }

    /// Until there is something to receive.
    fn wait(&self, until: Instant) -> Result<(), Error> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)).map(drop).map_err(|error| Error::io("poll")(error.into()))
    }

    /// Takes all answers that are there; yields how many.
    fn receive(&mut self) -> Result<usize, Error> {
        let mut answer = [0; MAX_ANSWER];
        let mut received = 0;
        loop {
            let length = match self.socket.recv(&mut answer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => return Ok(received),
                Err(error) => return Err(Error::io("answer")(error)),
            };
            let id = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
            let Some((asked, wanted)) = self.open[id].take().filter(|_| length >= HEADER) else { continue };
            self.last_heard = Instant::now();
            self.latencies.push(self.last_heard - asked);
            self.wrong += usize::from(rcode(&answer[..length]) != wanted);
            self.waiting -= 1;
            received += 1;
        }
    }

    fn silent(&self) -> bool {
        self.last_heard.elapsed() > PATIENCE
    }

    /// Counts what is under way as lost.
    fn give_up(&mut self) {
        self.open.fill(None);
        self.lost += self.waiting;
        self.waiting = 0;
        self.last_heard = Instant::now();
    }

    fn end(mut self) -> Outcome {
        self.give_up();
        let seconds = self.started.elapsed().as_secs_f64();
        Outcome { answered: self.latencies.len(), wrong: self.wrong, lost: self.lost, seconds, latency: Latency::of(self.latencies) }
    }
}
