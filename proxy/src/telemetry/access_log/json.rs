//! One JSON object in one line of printable ASCII, whatever a client sent: besides what JSON demands, all else is escaped too, since
//! readers take U+2028 or U+0085 for a line's end and terminals obey C1 controls.
//!
//! Written straight into the buffer: with serde and `fmt` a line took three times the instructions, and each request has one.

use std::{
    cell::Cell,
    fmt::{self, Display, Write as _},
    io::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// An object whose members are being written. A member that has no value is left out.
pub(super) struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self(out)
    }

    pub(super) fn end(self) {
        self.0.push(b'}');
    }

    /// Begins a member. `name`: nothing in it has to be escaped.
    fn name(&mut self, name: &'static str) {
        if !self.0.ends_with(b"{") {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    pub(super) fn text<'t>(&mut self, name: &'static str, text: impl Into<Option<&'t str>>) {
        if let Some(text) = text.into() {
            self.name(name);
            self.string([text]);
        }
    }

    /// One of our own words: nothing in it has to be escaped.
    pub(super) fn word(&mut self, name: &'static str, word: impl Into<Option<&'static str>>) {
        if let Some(word) = word.into() {
            self.name(name);
            self.0.push(b'"');
            self.0.extend_from_slice(word.as_bytes());
            self.0.push(b'"');
        }
    }

    /// Its pieces in one string.
    pub(super) fn pieces<'t>(&mut self, name: &'static str, pieces: impl IntoIterator<Item = &'t str>) {
        self.name(name);
        self.string(pieces);
    }

    /// What a value displays.
    pub(super) fn display(&mut self, name: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.name(name);
            self.0.push(b'"');
            // Writing to memory does not fail, and neither does what is told of.
            let _ = write!(Escaped(self.0), "{value}");
            self.0.push(b'"');
        }
    }

    pub(super) fn number(&mut self, name: &'static str, number: impl Into<Option<u64>>) {
        if let Some(number) = number.into() {
            self.name(name);
            self.digits(number);
        }
    }

    /// As 32 digits.
    pub(super) fn hex(&mut self, name: &'static str, number: impl Into<Option<[u8; 16]>>) {
        if let Some(octets) = number.into() {
            self.name(name);
            self.0.push(b'"');
            self.0.extend_from_slice(octets.map(|octet| HEX[usize::from(octet)]).as_flattened());
            self.0.push(b'"');
        }
    }

    pub(super) fn address(&mut self, name: &'static str, address: impl Into<Option<SocketAddr>>) {
        match address.into() {
            Some(SocketAddr::V4(address)) => {
                self.name(name);
                self.0.push(b'"');
                for (octet, then) in address.ip().octets().into_iter().zip(*b"...:") {
                    self.digits(octet.into());
                    self.0.push(then);
                }
                self.digits(address.port().into());
                self.0.push(b'"');
            }
            other => self.display(name, other),
        }
    }

    /// Microseconds.
    pub(super) fn micros(&mut self, name: &'static str, duration: impl Into<Option<Duration>>) {
        self.number(name, duration.into().map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)));
    }

    /// As of RFC 3339; the nearest that it can write and humantime does: years 1970 to 9999. A clock may be wrong; a line must be.
    pub(super) fn time(&mut self, name: &'static str, time: SystemTime) {
        const LAST: Duration = Duration::from_secs(253_402_300_799);
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(&second(since.as_secs()));
        self.0.push(b'.');
        let micros = since.subsec_micros();
        let digits = |two: u32| DECIMAL[(two % 100) as usize];
        self.0.extend_from_slice([digits(micros / 10_000), digits(micros / 100), digits(micros)].as_flattened());
        self.0.extend_from_slice(b"Z\"");
    }

    /// A list of strings that is not empty.
    pub(super) fn list<'t>(&mut self, name: &'static str, texts: impl IntoIterator<Item = &'t str>) {
        let mut texts = texts.into_iter();
        let Some(first) = texts.next() else { return };
        self.name(name);
        self.0.push(b'[');
        self.string([first]);
        for text in texts {
            self.0.push(b',');
            self.string([text]);
        }
        self.0.push(b']');
    }

    /// An object within this one, to be ended before anything else is written.
    pub(super) fn object(&mut self, name: &'static str) -> Object<'_> {
        self.name(name);
        Object::begin(self.0)
    }

    fn digits(&mut self, number: u64) {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn string<'t>(&mut self, pieces: impl IntoIterator<Item = &'t str>) {
        self.0.push(b'"');
        pieces.into_iter().for_each(|piece| escape(piece, self.0));
        self.0.push(b'"');
    }
}

/// Date and time to the second. Under load many lines in a row are of the same one.
fn second(unix: u64) -> [u8; SECOND] {
    thread_local!(static LAST: Cell<(u64, [u8; SECOND])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) });
    let (known, text) = LAST.get();
    if known == unix {
        return text;
    }
    let mut text = [0; SECOND];
    // `Z` no longer fits, and that is the error that is dropped.
    let _ = write!(&mut text[..], "{}", humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(unix)));
    LAST.set((unix, text));
    text
}

/// Octets of `2026-01-02T03:04:05`.
const SECOND: usize = 19;

/// The two digits of each octet, and of each number below a hundred.
static HEX: [[u8; 2]; 256] = pairs(b"0123456789abcdef");
static DECIMAL: [[u8; 2]; 100] = pairs(b"0123456789");

const fn pairs<const BASE: usize, const PAIRS: usize>(digits: &[u8; BASE]) -> [[u8; 2]; PAIRS] {
    let mut pairs = [[0; 2]; PAIRS];
    let mut number = 0;
    while number < PAIRS {
        pairs[number] = [digits[number / BASE], digits[number % BASE]];
        number += 1;
    }
    pairs
}

/// What is displayed, escaped.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, self.0);
        Ok(())
    }
}

fn stands_for_itself(octet: u8) -> bool {
    (0x20..0x7f).contains(&octet) & (octet != b'"') & (octet != b'\\')
}

fn escape(text: &str, out: &mut Vec<u8>) {
    // All of it is looked at, for that is done sixteen octets at a time.
    if text.bytes().fold(true, |plain, octet| plain & stands_for_itself(octet)) {
        return out.extend_from_slice(text.as_bytes());
    }
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(br#"\""#),
            '\\' => out.extend_from_slice(br"\\"),
            '\n' => out.extend_from_slice(br"\n"),
            '\r' => out.extend_from_slice(br"\r"),
            '\t' => out.extend_from_slice(br"\t"),
            ' '..='~' => out.push(c as u8),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to memory does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(fill: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        fill(&mut object);
        object.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_stand_in_the_order_in_which_they_are_written() {
        assert_eq!(written(|_| ()), "{}");
        let line = written(|object| {
            object.text("none", None);
            object.text("text", "a");
            object.word("word", "b");
            object.word("no", None);
            object.pieces("pieces", ["b", "\"", "c"]);
            object.number("number", 18_446_744_073_709_551_615);
            object.number("no", None);
            object.hex("hex", 0xabc_u128.to_be_bytes());
            object.list("empty", []);
            object.list("list", ["{", "}"]);
            let mut inner = object.object("object");
            inner.text("x", "{");
            inner.text("y", "z");
            inner.end();
            object.object("nothing").end();
            object.micros("micros", Duration::new(1, 2_999));
        });
        assert_eq!(
            line,
            r#"{"text":"a","word":"b","pieces":"b\"c","number":18446744073709551615,"hex":"00000000000000000000000000000abc","list":["{","}"],"object":{"x":"{","y":"z"},"nothing":{},"micros":1000002}"#
        );
    }

    #[test]
    fn addresses_are_written_as_they_are_displayed() {
        for address in ["127.0.0.1:0", "255.10.0.9:65535", "[::1]:80", "[fe80::1%3]:1"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(written(|object| object.address("a", address)), format!(r#"{{"a":"{address}"}}"#));
        }
        assert_eq!(written(|object| object.address("a", None)), "{}");
    }

    proptest! {
        #[test]
        fn times_are_written_as_humantime_has_them(seconds in prop_oneof![0_u64..4, 0_u64..253_402_300_800], nanos in 0_u32..1_000_000_000) {
            let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
            let expected = format!(r#"{{"t":"{}"}}"#, humantime::format_rfc3339_micros(time));
            prop_assert_eq!(written(|object| object.time("t", time)), expected);
        }

        #[test]
        fn any_text_is_read_again_from_printable_ascii(text: String, shown: String) {
            let line = written(|object| {
                object.text("text", &*text);
                object.display("shown", Some(&shown));
            });
            prop_assert!(line.bytes().all(|octet| (0x20..0x7f).contains(&octet)), "{}", line);
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), json!({ "text": text, "shown": shown }));
        }
    }
}
