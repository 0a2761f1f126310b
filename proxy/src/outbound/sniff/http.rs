//! The first line of what is not TLS: could any HTTP server read a request in it?
//!
//! The most lenient reader in wide use is taken for the measure: Python's `http.server` and what is built on it. It skips blank lines, cuts
//! a line into words at white space of any kind, takes LF alone for its end and a bare `GET x` for HTTP/0.9; others ignore the letters'
//! case, or find the target right behind the method. So these are HTTP/1, for the guard to judge:
//!
//! - a registered method in capitals, or in any letters where neither white space nor more of a token follows it, as in `get/`
//! - a word (a token: an unknown method, or a known one in other letters) and, in the rest of its line, `HTTP/` in any letters; or next to
//!   it a target: `*`, a path, a URI
//!
//! What is left is opaque, as it must be for rules that let TCP through: a word alone in its line (`PING`, STOMP's `CONNECT`), words
//! without target and version (`SSH-2.0-OpenSSH_9.2 Debian`, `NICK x`, `SET a b`, `get key`), and what begins with octets that no method
//! contains (`{`, `<`, lengths). A control character before either was found settles it too: git's `0033git-upload-pack /x.git\0`.
//! It costs: `GET key` and `get /key` to a cache, RTSP, SIP's OPTIONS. All are requests to some HTTP server.
//!
//! Not covered: servers that give an application any octets whatever for a method (`wsgiref`), when it is no token, or when control
//! characters stand between an unknown method and the version.

use super::{Sniffed, Verdict, malformed};

/// The registered methods (IANA, HTTP Method Registry) and QUERY. Without `*`, which is reserved.
const METHODS: [&[u8]; 40] = [
    b"ACL",
    b"BASELINE-CONTROL",
    b"BIND",
    b"CHECKIN",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LABEL",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MKREDIRECTREF",
    b"MKWORKSPACE",
    b"MOVE",
    b"OPTIONS",
    b"ORDERPATCH",
    b"PATCH",
    b"POST",
    b"PRI",
    b"PROPFIND",
    b"PROPPATCH",
    b"PUT",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"TRACE",
    b"UNBIND",
    b"UNCHECKOUT",
    b"UNLINK",
    b"UNLOCK",
    b"UPDATE",
    b"UPDATEREDIRECTREF",
    b"VERSION-CONTROL",
];

/// A first line on its way in. Offsets count from the connection's first octet.
#[derive(Debug, Default)]
pub(super) struct FirstLine {
    /// Octets that were looked at.
    at: usize,
    part: Part,
}

#[derive(Clone, Copy, Debug, Default)]
enum Part {
    /// White space and empty lines.
    #[default]
    Before,
    Word {
        start: usize,
    },
    /// Behind the first word, which began there.
    Rest {
        start: usize,
    },
}

impl FirstLine {
    pub(super) fn look(&mut self, bytes: &[u8]) -> Verdict {
        while let Some(rest @ [octet, ..]) = bytes.get(self.at..) {
            match self.part {
                Part::Before if is_space(*octet) => {}
                Part::Before if is_token(*octet) => self.part = Part::Word { start: self.at },
                Part::Before if bytes.starts_with(b"\r\n\r\n\0") => return malformed("a PROXY protocol header must not be sent"),
                Part::Before => return Verdict::Is(Sniffed::Opaque),

                Part::Word { .. } if is_token(*octet) => {}
                Part::Word { .. } if rest == b"\r" => return Verdict::More,
                Part::Word { start } => match behind_word(bytes.get(start..self.at).unwrap_or_default(), rest) {
                    Verdict::More => self.part = Part::Rest { start },
                    verdict => return verdict,
                },

                Part::Rest { start } if *octet == b'\n' || is_control(*octet) => {
                    let line = bytes.get(start..self.at).unwrap_or_default();
                    let is_request = has_version(line) || (*octet == b'\n' && has_target(line));
                    return Verdict::Is(if is_request { Sniffed::Http1 } else { Sniffed::Opaque });
                }
                Part::Rest { .. } => {}
            }
            self.at += 1;
        }
        Verdict::More
    }
}

/// Judges a first word by what follows it, which is no token; more: it takes the rest of the line.
fn behind_word(word: &[u8], rest: &[u8]) -> Verdict {
    match rest {
        [b'\n', ..] | [b'\r', b'\n', ..] => Verdict::Is(Sniffed::Opaque),
        [b' ', ..] if word == b"PROXY" => malformed("a PROXY protocol header must not be sent"),
        _ if METHODS.contains(&word) => Verdict::Is(Sniffed::Http1),
        [octet, ..] if is_space(*octet) => Verdict::More,
        _ if METHODS.iter().any(|method| method.eq_ignore_ascii_case(word)) => Verdict::Is(Sniffed::Http1),
        _ => Verdict::Is(Sniffed::Opaque),
    }
}

fn has_version(line: &[u8]) -> bool {
    const VERSION: &[u8] = b"HTTP/";
    line.windows(VERSION.len()).any(|window| window.eq_ignore_ascii_case(VERSION))
}

fn has_target(line: &[u8]) -> bool {
    let mut words = line.split(|octet| is_space(*octet)).filter(|word| !word.is_empty());
    words.nth(1).is_some_and(|target| target == b"*" || target.starts_with(b"/") || target.windows(3).any(|window| window == b"://"))
}

/// White space as Python's `str.split` has it, of octets read as Latin-1.
fn is_space(octet: u8) -> bool {
    matches!(octet, b'\t'..=b'\r' | 0x1c..=b' ' | 0x85 | 0xa0)
}

fn is_control(octet: u8) -> bool {
    octet.is_ascii_control() && !is_space(octet)
}

/// RFC 9110 §5.6.2.
fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}
