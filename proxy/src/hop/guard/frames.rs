//! HTTP/2 frames, looked at only to count. The h2 crate bounds streams, resets, CONTINUATION and header sizes; it answers
//! any number of frames that ask for work and carry nothing (CVE-2019-9513, -9515, -9518).

use super::Violation;

/// The client's connection preface (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Idle frames that a connection may send at all, and more for every request: browsers reorder priorities, clients
/// adapt their windows by SETTINGS. PING is not counted: a stream that rests for days is kept alive by it.
const ALLOWANCE: u32 = 1_000;
const PER_REQUEST: u32 = 10;

const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;

#[derive(Debug)]
pub(super) struct Frames {
    /// Octets to pass over: the preface, then payloads.
    skip: usize,
    /// The frame header at hand.
    header: [u8; HEADER],
    filled: usize,
    allowance: u32,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { skip: PREFACE.len(), header: [0; HEADER], filled: 0, allowance: ALLOWANCE }
    }

    pub(super) fn scan(&mut self, mut octets: &[u8]) -> Result<(), Violation> {
        while !octets.is_empty() {
            let skipped = self.skip.min(octets.len());
            self.skip -= skipped;
            octets = &octets[skipped..];
            let taken = (HEADER - self.filled).min(octets.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&octets[..taken]);
            self.filled += taken;
            octets = &octets[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Violation> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let is_idle = match kind {
            DATA => self.skip == 0 && flags & END_STREAM == 0,
            HEADERS => {
                self.allowance = self.allowance.saturating_add(PER_REQUEST);
                false
            }
            PRIORITY => true,
            SETTINGS => flags & ACK == 0,
            _ => false,
        };
        if is_idle {
            let left = self.allowance.checked_sub(1);
            self.allowance = left.ok_or(Violation::Malformed("too many HTTP/2 frames that carry nothing"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn scan(frames: &[u8], step: usize) -> Result<(), Violation> {
        let mut counter = Frames::new();
        [PREFACE, frames].concat().chunks(step).try_for_each(|octets| counter.scan(octets))
    }

    #[test]
    fn idle_frames_are_bounded_however_they_arrive() {
        let many = |frame: Vec<u8>| frame.repeat(ALLOWANCE as usize + 1);
        for (name, frames, is_flood) in [
            ("SETTINGS", many(frame(SETTINGS, 0, &[0; 6])), true),
            ("PRIORITY", many(frame(PRIORITY, 0, &[0; 5])), true),
            ("empty DATA", many(frame(DATA, 0, &[])), true),
            ("the last DATA", many(frame(DATA, END_STREAM, &[])), false),
            ("full DATA", many(frame(DATA, 0, b"x")), false),
            ("confirmed SETTINGS", many(frame(SETTINGS, ACK, &[])), false),
            ("PING", many(frame(6, 0, &[0; 8])), false),
            ("SETTINGS between requests", many([frame(HEADERS, 5, b"x"), frame(SETTINGS, 0, &[])].concat()), false),
        ] {
            for step in [1, 7, 4096] {
                assert_eq!(scan(&frames, step).is_err(), is_flood, "{name} in steps of {step}");
            }
        }
    }
}
