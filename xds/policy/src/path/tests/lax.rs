use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::*;

/// What the most obliging workload may make of a target: decodes again and again (also `%uXXXX`), folds by NFKC and best fit, drops what
/// cannot be seen, cuts query, fragment and parameters, takes `\` for `/`, merges slashes, resolves dot segments.
pub(super) fn lax(raw: &str) -> String {
    let mut text = raw.to_string();
    for _ in 0..16 {
        let mut decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        while let Some(at) = decoded.find("%u") {
            let Some(c) = decoded.get(at + 2..at + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32) else {
                break;
            };
            decoded.replace_range(at..at + 6, c.encode_utf8(&mut [0; 4]));
        }
        let folded: String = decoded
            .nfkc()
            .filter(|c| !matches!(c, '\0' | '\u{AD}' | '\u{200B}'..='\u{200D}' | '\u{FE00}'..='\u{FE0F}'))
            .map(|c| match c {
                '\\' | '∕' | '⁄' | '∖' | '¥' | '₩' => '/',
                c => c,
            })
            .take_while(|c| !matches!(c, '?' | '#'))
            .collect();
        let mut kept: Vec<&str> = Vec::new();
        for segment in folded.split('/').skip(1).map(|segment| segment.split(';').next().unwrap_or_default()) {
            match segment.trim() {
                "" | "." => {}
                dots if dots.len() > 1 && dots.chars().all(|c| c == '.') => drop(kept.pop()),
                _ => kept.push(segment),
            }
        }
        let slash = if folded.ends_with('/') && !kept.is_empty() { "/" } else { "" };
        let next = format!("/{}{slash}", kept.join("/"));
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// The normal form as `lax` spells it.
pub(super) fn folded(path: &NormalPath<'_>) -> String {
    path.as_str().nfkc().filter(|c| !matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')).collect()
}

fn encode(path: &str) -> String {
    path.split('/').map(|segment| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string()).collect::<Vec<_>>().join("/")
}

/// Pieces that have misled parsers, and harmless ones between them.
fn nasty_path() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "/",
        "/",
        "/",
        ".",
        "..",
        "%2e",
        "%2E",
        "%252e",
        "%2f",
        "%5c",
        "\\",
        ";",
        "%3b",
        "%00",
        "%20",
        "%25",
        "%",
        "%u002f",
        "%u2215",
        "%c0%af",
        "%ef%bc%8f",
        "%ef%bc%8e",
        "%e2%88%95",
        "%e2%80%a5",
        "%e2%80%8b",
        "%e2%80%8d",
        "%c3%a9",
        "%cc%81",
        "a",
        "admin",
        "public",
        "A",
        "é",
        "?",
        "#",
        "+",
        "*",
        "~",
    ];
    prop::collection::vec(prop_oneof![9 => prop::sample::select(PIECES).prop_map(String::from), 1 => ".{0,3}"], 0..12)
        .prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn plain_segment() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._~ !$&'()+,=:@é日ж-]{1,8}".prop_filter("a dot segment or a space at an end", |s| check_segment(s).is_ok())
}

proptest! {
    #[test]
    fn what_passes_reads_the_same_to_everybody(raw in nasty_path()) {
        if let Ok(path) = NormalPath::new(&raw) {
            prop_assert_eq!(lax(&raw), folded(&path));
        }
    }

    #[test]
    fn the_normal_form_is_its_own_normal_form(raw in nasty_path()) {
        if let Ok(path) = NormalPath::new(&raw) {
            let encoded = encode(path.as_str());
            let again = NormalPath::new(&encoded).unwrap();
            prop_assert_eq!(again.as_str(), path.as_str());
        }
    }

    #[test]
    fn encoding_more_of_a_refused_path_does_not_help(raw in nasty_path(), which in any::<u64>()) {
        // Of bytes that a URI may have: encoding a raw space or 'é' is just what the refusal asks for.
        let uri = raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"/.%;~+*".contains(&b));
        if uri && NormalPath::new(&raw).is_err() {
            let more: String = raw.bytes().enumerate().map(|(i, b)| if which >> (i % 64) & 1 == 1 { format!("%{b:02x}") } else { char::from(b).to_string() }).collect();
            prop_assert!(NormalPath::new(&more).is_err(), "{} became {}", raw, more);
        }
    }

    #[test]
    fn a_literal_pattern_matches_its_encoded_segments(segments in prop::collection::vec(plain_segment(), 1..6)) {
        let text = format!("/{}", segments.join("/"));
        let encoded = encode(&text);
        let path = NormalPath::new(&encoded).unwrap();
        prop_assert!(pattern(&text).matches(&path, None));
        prop_assert!(pattern("/**").matches(&path, None));
        let stars = format!("/{}", vec!["*"; segments.len()].join("/"));
        let more = format!("{stars}/*");
        prop_assert!(pattern(&stars).matches(&path, None) && !pattern(&more).matches(&path, None));
    }

    #[test]
    fn nothing_panics(raw in ".*", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = (NormalPath::new(&raw), raw.parse::<PathPattern>());
        let text = String::from_utf8_lossy(&bytes);
        let _ = (NormalPath::new(&text), text.parse::<PathPattern>());
    }
}
