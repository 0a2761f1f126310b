//! Follows the framing of an HTTP/1 connection as RFC 9112 writes it, without its leniencies.
//!
//! hyper's parser takes what the RFC lets a recipient take: bare LF, Content-Length beside Transfer-Encoding, two Hosts,
//! chunk extensions. Two parsers that are lenient in different ways can be made to see different requests in the same
//! octets, and then policy decides about one request while the workload serves another. So every octet passes here
//! before hyper sees it, and what has more than one reading ends the connection.
//!
//! Sans I/O: octets in, verdict out. The verdict does not depend on how the octets were cut into reads. The connection
//! gives hyper whole units only (a head, a chunk-size line, a trailer section; body octets as they come), so that a bad
//! head never reaches it, not even in part. No crate does this: parsers expose neither framing nor a strict mode.

mod frames;
mod head;
mod stream;
mod syntax;
mod trailers;

pub(crate) use frames::PREFACE;
pub(crate) use stream::{Guarded, Signals};
pub(crate) use syntax::is_authority;

use std::fmt;

use ringfence_policy::{Deny, Reason};

use self::{frames::Frames, head::Head, trailers::Trailers};
use super::limits::MAX_CHUNK_DIGITS;

/// What was wrong with the octets. For the operator: the client is told the reason alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The field or line, and what would be right.
    Malformed(&'static str),
    HeadTooLarge,
    /// The head did not arrive in time.
    HeadTimeout,
}

impl From<Violation> for Deny {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Malformed(what) => Deny::new(Reason::RequestMalformed, what),
            Violation::HeadTooLarge => Deny::new(Reason::HeadersTooLarge, "the head or trailer section exceeds its limit"),
            Violation::HeadTimeout => Deny::new(Reason::RequestTimeout, "the head did not arrive in time"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Malformed(what) => f.write_str(what),
            Violation::HeadTooLarge => f.write_str("the head or trailer section is too large"),
            Violation::HeadTimeout => f.write_str("the head did not arrive in time"),
        }
    }
}

impl std::error::Error for Violation {}

/// Which request targets a connection may carry (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// As a server's: origin-form, or absolute-form with a Host that says the same.
    Server,
    /// As an explicit proxy's: absolute-form and CONNECT. Whether Host agrees is for the route, which compares hosts and not spellings.
    Proxy,
}

/// What one look at the octets gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// So many octets from the front are sound whole units. The rest is to be shown again with more behind it.
    Sound(usize),
    Bad {
        violation: Violation,
        /// Where in these octets the head of the offending message begins; `None`: it was given to hyper earlier.
        head: Option<usize>,
    },
}

/// How a head says that its message goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Length {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    /// The CR LF behind a chunk's data.
    ChunkEnd,
    Trailers(Trailers),
    /// Behind a WebSocket handshake or CONNECT: HTTP or not, only the answer tells.
    Undecided,
    /// Behind a message after which the connection closes.
    Closing,
    Http2(Frames),
}

/// The framing of one connection.
#[derive(Debug)]
pub(super) struct Guard {
    state: State,
    targets: Targets,
    /// The connection ends with the message at hand.
    close: bool,
    /// Heads found sound so far.
    heads: u64,
}

impl Guard {
    /// An HTTP/1 connection.
    pub(super) fn http1(targets: Targets) -> Self {
        Self { state: State::Head(Head::new(targets)), targets, close: false, heads: 0 }
    }

    /// An HTTP/2 connection, from its preface on: hyper judges the frames, they are only counted here.
    pub(super) fn http2() -> Self {
        Self { state: State::Http2(Frames::new()), targets: Targets::Server, close: false, heads: 0 }
    }

    /// The number of the message at hand, counted from 1: the one whose head or body is being read, or, behind a message
    /// that closes the connection, that message.
    pub(super) fn current(&self) -> u64 {
        self.heads + u64::from(self.is_in_head())
    }

    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether the last message of this connection is complete.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing)
    }

    /// Whether what follows waits for `upgrade_declined`, or will never be HTTP.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.state, State::Undecided)
    }

    /// The connection stays what it is: what follows is HTTP.
    pub(super) fn upgrade_declined(&mut self) {
        if self.is_undecided() {
            self.next_message();
        }
    }

    /// Looks at `octets`, which begin where the last look's sound octets ended.
    pub(super) fn scan(&mut self, octets: &[u8]) -> Scan {
        let mut at = 0;
        let mut head = None;
        loop {
            let rest = &octets[at..];
            if rest.is_empty() {
                return Scan::Sound(at);
            }
            match self.step(rest, at, &mut head) {
                Ok(0) => return Scan::Sound(at),
                Ok(sound) => at += sound,
                Err(violation) => return Scan::Bad { violation, head },
            }
        }
    }

    /// One unit from the front of `rest`; 0: it is not complete yet. `head` follows where the message at hand began.
    fn step(&mut self, rest: &[u8], at: usize, head: &mut Option<usize>) -> Result<usize, Violation> {
        match &mut self.state {
            State::Head(fields) => {
                *head = Some(at);
                let Some(done) = fields.scan(rest)? else { return Ok(0) };
                self.heads += 1;
                self.close = done.close;
                match done.framing {
                    _ if done.may_upgrade => self.state = State::Undecided,
                    Framing::Chunked => self.state = State::ChunkSize,
                    Framing::Length(0) => self.next_message(),
                    Framing::Length(left) => self.state = State::Length { left },
                }
                Ok(done.octets)
            }
            State::Length { left } => {
                let taken = take(left, rest);
                if *left == 0 {
                    self.next_message();
                }
                Ok(taken)
            }
            State::ChunkSize => {
                let Some((octets, size)) = chunk_size(rest)? else { return Ok(0) };
                self.state = if size == 0 { State::Trailers(Trailers::new()) } else { State::ChunkData { left: size } };
                Ok(octets)
            }
            State::ChunkData { left } => {
                let taken = take(left, rest);
                if *left == 0 {
                    self.state = State::ChunkEnd;
                }
                Ok(taken)
            }
            State::ChunkEnd => {
                if rest[0] != b'\r' || rest.get(1).is_some_and(|&second| second != b'\n') {
                    return Err(Violation::Malformed("chunk data must end with CR LF exactly where its size says"));
                }
                if rest.len() < 2 {
                    return Ok(0);
                }
                self.state = State::ChunkSize;
                Ok(2)
            }
            State::Trailers(section) => {
                let Some(octets) = section.scan(rest)? else { return Ok(0) };
                self.next_message();
                Ok(octets)
            }
            State::Undecided => Ok(0),
            State::Http2(frames) => frames.scan(rest).map(|()| rest.len()),
            // Old clients send one CR LF too many behind a body (RFC 9112 §2.2). Whoever sends more after announcing
            // the end means a request that this side must not process (§9.6) and another parser might.
            State::Closing => match rest {
                b"\r" | b"\r\n" => Ok(0),
                _ => Err(Violation::Malformed("nothing may follow a message that closes the connection")),
            },
        }
    }

    fn next_message(&mut self) {
        self.state = if self.close { State::Closing } else { State::Head(Head::new(self.targets)) };
    }
}

fn take(left: &mut u64, rest: &[u8]) -> usize {
    let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
    *left -= taken as u64;
    taken
}

/// `chunk-size CRLF` (RFC 9112 §7.1) without extensions: nobody uses them, and parsers disagree on where they end.
fn chunk_size(rest: &[u8]) -> Result<Option<(usize, u64)>, Violation> {
    let mut size = 0;
    for (at, &octet) in rest.iter().enumerate() {
        let digit = match octet {
            b'0'..=b'9' => octet - b'0',
            b'a'..=b'f' => octet - b'a' + 10,
            b'A'..=b'F' => octet - b'A' + 10,
            b'\r' if at > 0 => {
                return match rest.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((at + 2, size))),
                    Some(_) => Err(Violation::Malformed("a chunk size must end with CR LF")),
                };
            }
            _ => return Err(Violation::Malformed("a chunk size must be hexadecimal digits alone, without an extension")),
        };
        if at == MAX_CHUNK_DIGITS {
            return Err(Violation::Malformed("a chunk size must have at most twelve digits"));
        }
        size = size << 4 | u64::from(digit);
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
