//! Takes the first octets of a connection, yields what they are. Never sees where the connection goes.
//!
//! Policy for TLS and HTTP binds names that stand in the octets, policy for anything else addresses alone. So nothing that a TLS or HTTP
//! server could read as its own may pass for [`Sniffed::Opaque`]: what begins like either and is not sound is refused, not spliced.
//!
//! Sans I/O: octets in, verdict out. The verdict does not depend on how the octets were cut into reads.

mod client_hello;
mod http;

use std::time::Duration;

use ringfence_policy::{Deny, Reason};

pub use self::client_hello::{ClientHello, Name};
use self::{client_hello::Handshake, http::FirstLine};

/// Octets that may arrive before it is certain what they are. A ClientHello may take half of them; records of one octet
/// each make six of one.
pub const MAX_BYTES: usize = 32 * 1024;

/// How long a workload may say nothing before its server is taken for one that speaks first. Each connection to such a server waits so long.
/// Silence proves nothing: what is said later is not looked at. So only a rule of protocol `tcp` lets a silent connection through, and such a
/// rule is about addresses: behind it anything may be said to whoever answers there, under any name.
pub const WAIT: Duration = Duration::from_millis(500);

/// How long a first flight may take from its first octet until it is certain what it is.
pub const TIME: Duration = Duration::from_secs(10);

/// What the octets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// A whole, sound ClientHello. What follows it is not looked at: early data and later flights are between the two ends.
    Tls(ClientHello),
    /// Begins like an HTTP/1 request, sound or not: for the HTTP guard to judge.
    Http1,
    /// The whole HTTP/2 preface (RFC 9113 §3.4), sent with prior knowledge.
    Http2,
    /// Neither, and nothing that could follow makes it so. Or nothing was said.
    Opaque,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is certain yet: read on.
    More,
    Is(Sniffed),
    /// [`Reason::EgressMalformed`]: begins like TLS and is not sound, or claims another source (PROXY protocol), or is too large or cut off.
    Refuse(Deny),
}

/// HTTP/2's connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One connection's first octets. Made anew for each connection, and for each tunnel within one.
#[derive(Debug, Default)]
pub struct Sniff(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    Tls(Handshake),
    Line(FirstLine),
}

impl Sniff {
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at all that has arrived: what the last look was shown, and more behind it. Octets are looked at once, however they arrive.
    /// Not to be asked again after a verdict other than [`Verdict::More`].
    pub fn look(&mut self, bytes_so_far: &[u8]) -> Verdict {
        let is_full = bytes_so_far.len() >= MAX_BYTES;
        let bytes = bytes_so_far.get(..MAX_BYTES).unwrap_or(bytes_so_far);
        match self.step(bytes) {
            Verdict::More if is_full => malformed("what it speaks must be certain within the first 32 KiB"),
            verdict => verdict,
        }
    }

    /// Judges what has arrived when no more will: the workload closed its side, or [`WAIT`] or [`TIME`] is over. What would need more to be
    /// certain is refused, since a server that is shown the beginning can be sent the rest.
    pub fn at_end(&mut self, bytes: &[u8]) -> Verdict {
        if bytes.is_empty() {
            return Verdict::Is(Sniffed::Opaque);
        }
        match self.look(bytes) {
            Verdict::More => malformed(match self.0 {
                State::Tls(_) => "a ClientHello must arrive whole and in time",
                State::Start | State::Line(_) => "what may become TLS or HTTP must do so in time",
            }),
            verdict => verdict,
        }
    }

    fn step(&mut self, bytes: &[u8]) -> Verdict {
        loop {
            match &mut self.0 {
                State::Tls(handshake) => return handshake.look(bytes),
                State::Line(line) => return line.look(bytes),
                State::Start => match start(bytes) {
                    Ok(state) => self.0 = state,
                    Err(verdict) => return verdict,
                },
            }
        }
    }
}

/// Which of the two readers the first octets are for, or what they are already.
fn start(bytes: &[u8]) -> Result<State, Verdict> {
    match bytes {
        [] => Err(Verdict::More),
        [client_hello::HANDSHAKE, ..] => Ok(State::Tls(Handshake::default())),
        // change_cipher_spec, alert, application_data, heartbeat
        [0x14..=0x18] => Err(Verdict::More),
        [0x14..=0x18, 3, ..] => Err(malformed("TLS must begin with a ClientHello")),
        _ if is_sslv2(bytes) => Err(match bytes.len() {
            0..5 => Verdict::More,
            _ => malformed("TLS must begin with a ClientHello of TLS, not SSLv2's"),
        }),
        _ if bytes.starts_with(PREFACE) => Err(Verdict::Is(Sniffed::Http2)),
        _ if PREFACE.starts_with(bytes) => Err(Verdict::More),
        _ => Ok(State::Line(FirstLine::default())),
    }
}

/// Whether the octets are, or may become, a CLIENT-HELLO of SSL 2.0 (RFC 5246 §E.2): a length with the uppermost bit set, the type 1, and
/// the version.
fn is_sslv2(bytes: &[u8]) -> bool {
    /// Octets of one without ciphers, session and challenge.
    const LEAST: u16 = 9;
    let at = |index: usize| bytes.get(index).copied();
    at(0).is_some_and(|high| high & 0x80 != 0)
        && at(0).zip(at(1)).is_none_or(|(high, low)| u16::from_be_bytes([high & 0x7f, low]) >= LEAST)
        && at(2).is_none_or(|kind| kind == 1)
        && at(3).is_none_or(|major| major == 3 || (major == 0 && at(4).is_none_or(|minor| minor == 2)))
}

fn malformed(what: &'static str) -> Verdict {
    Verdict::Refuse(Deny::new(Reason::EgressMalformed, what))
}

#[cfg(test)]
mod tests;
