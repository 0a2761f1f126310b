//! What any HTTP server could take for a request never passes for opaque, and how a first flight was cut changes nothing.
//!
//! An input is a first flight.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_proxy::outbound::sniff::{Sniff, Sniffed, Verdict};

fuzz_target!(|input: &[u8]| {
    let whole = Sniff::new().look(input);
    assert_eq!(one_at_a_time(input), whole);
    let end = Sniff::new().at_end(input);
    assert!(whole == end || whole == Verdict::More && (input.is_empty() || matches!(end, Verdict::Refuse(_))));
    if strict(input) || lenient(input) {
        assert!(matches!(end, Verdict::Is(Sniffed::Http1 | Sniffed::Http2) | Verdict::Refuse(_)), "{end:?}");
    }
});

fn one_at_a_time(bytes: &[u8]) -> Verdict {
    let mut sniff = Sniff::new();
    for shown in 1..bytes.len() {
        match sniff.look(&bytes[..shown]) {
            Verdict::More => {}
            verdict => return verdict,
        }
    }
    sniff.look(bytes)
}

fn strict(bytes: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(bytes).is_ok() && request.version.is_some() && bytes.contains(&b'\n')
}

/// A reader as Python's http.server: blank lines skipped, words between white space of any kind, HTTP/0.9; and as those that ignore case.
fn lenient(bytes: &[u8]) -> bool {
    let text: String = bytes.iter().map(|&octet| char::from(octet)).collect();
    let text = text.trim_start_matches(is_space);
    let Some((line, _)) = text.split_once('\n') else { return false };
    // Of methods that are none or unknown, with control characters: said not to be covered.
    if line.contains(|c: char| c.is_ascii_control() && !is_space(c)) {
        return false;
    }
    let words: Vec<&str> = line.split(is_space).filter(|word| !word.is_empty()).collect();
    match words[..] {
        ["GET", _] => true,
        [method, target] => method.eq_ignore_ascii_case("GET") && target.starts_with('/'),
        [method, .., version] => is_token(method) && version.to_ascii_uppercase().starts_with("HTTP/"),
        _ => false,
    }
}

/// `str.isspace` of what Latin-1 has.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn is_token(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c))
}
