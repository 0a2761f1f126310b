use std::{fs, path::PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::*;
use crate::TenantId;

fn pattern(text: &str) -> PathPattern {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn paths_with_one_reading_pass_decoded() {
    for (raw, normal) in [
        ("/", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/%61dmin", "/admin"),
        ("/a%2Etxt", "/a.txt"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b/..c/d..", "/a..b/..c/d.."),
        ("/Inc.", "/Inc."),
        ("/my%20report.pdf", "/my report.pdf"),
        ("/a:b@c,d=e&f!$'()*+", "/a:b@c,d=e&f!$'()*+"),
        ("/a%3Ab%40c", "/a:b@c"),
        ("/a[0]^|", "/a[0]^|"),
        ("/%22%3C%3E%7B%7D%60", "/\"<>{}`"),
        ("/caf%C3%A9", "/café"),
        ("/cafe%CC%81", "/cafe\u{301}"),
        ("/%E6%97%A5%E6%9C%AC", "/日本"),
        ("/%D9%86%D9%85%DB%8C%E2%80%8C%D8%AE%D9%88%D8%A7%D9%87%D9%85", "/نمی\u{200C}خواهم"),
        ("/%F0%9F%91%A9%E2%80%8D%F0%9F%92%BB", "/👩\u{200D}💻"),
        ("/bg%20qf", "/bg qf"),
    ] {
        let path = NormalPath::new(raw).unwrap_or_else(|e| panic!("{raw}: {e}"));
        assert_eq!(path.as_str(), normal, "{raw}");
        assert_eq!(matches!(path.0, Cow::Borrowed(_)), !raw.contains('%'), "{raw}: copied for nothing");
    }
}

#[test]
fn paths_with_two_readings_are_refused() {
    let encoded = |c: char| format!("/a{}b", utf8_percent_encode(&c.to_string(), NON_ALPHANUMERIC));
    let cases: &[(&str, &[&str])] = &[
        ("begin with '/'", &["", "*", "a", "a/b", "http://a/b"]),
        ("no empty segment", &["//", "//a", "/a//b", "/a//"]),
        (
            "dots and blanks",
            &[
                "/.",
                "/..",
                "/a/./b",
                "/a/../b",
                "/a/..",
                "/%2e",
                "/%2E%2e/a",
                "/.%2e",
                "/...",
                "/....",
                "/%20",
                "/..%20",
                "/.%20.",
                "/.%E2%80%8D.",
                "/.%EF%B8%8F./a",
            ],
        ),
        ("slash or backslash", &["/a%2fb", "/a%2Fb", "/%2f", "%2Fa", "/a%5cb", "/..%5C.."]),
        ("no backslash", &["/a\\b", "/..\\a", "\\a"]),
        ("path parameters", &["/a;b", "/a;", "/;/a", "/..;/a", "/a;v=1/b", "/a%3Bb"]),
        ("encoded twice", &["/%2561", "/a%25", "/100%25", "/%252e%252e/a", "/%25252f", "/%25u002f", "/..%25c0%25af"]),
        ("'?' or '#'", &["/a%3Fb", "/a%23b"]),
        ("query and fragment", &["/a?b", "/a#b"]),
        ("two hex digits", &["/%", "/%a", "/%zz", "/%u002f", "/%c0%qf", "/%%32%65", "/%-1", "/%+1", "/% 1"]),
        ("control characters", &["/a%00", "/a%0d%0ab", "/a%09", "/a%1f", "/a%7F"]),
        ("UTF-8", &["/%ff", "/%c0%ae%c0%ae/a", "/%c0%af", "/%e0%80%af", "/%f0%80%80%af", "/%f8%80%80%80%af", "/%ed%a0%80", "/%c3", "/%80"]),
        ("percent-encoded", &["/a b", "/a\tb", "/a\0b", "/a\"b", "/<a>", "/{a}", "/`a", "/é", "/．．/a", "/a\u{7f}"]),
        ("ends with a space", &["/admin%20", "/%20a", "/a%20/b"]),
    ];
    for (reason, paths) in cases {
        for raw in *paths {
            let refused = NormalPath::new(raw).expect_err(raw);
            assert!(refused.contains(reason), "{raw}: {refused}");
        }
    }
    // Full-width, small and one-, two-, three-dot forms; solidus and backslash in other blocks; the Greek question mark, which is ';';
    // yen and won, which are '\' in Windows code pages; Kelvin, superscripts and ligatures; blanks, direction marks, private use.
    for c in "／＼．；％？＃ａ０﹨﹒․‥…∕⁄∖⃥\u{37E}¥₩٪\u{212A}²ﬁ\u{A0}\u{3000}\u{AD}\u{200B}\u{202E}\u{2028}\u{FEFF}\u{F025}\u{EFC8}\u{FFFD}\u{85}\u{E0041}".chars() {
        let raw = encoded(c);
        assert!(NormalPath::new(&raw).is_err(), "{raw} ({c:?})");
    }
}

#[test]
fn patterns_match_whole_segments() {
    let acme: TenantId = "acme".parse().unwrap();
    for (text, matched, other) in [
        ("/", &["/"][..], &["/a", "/a/"][..]),
        ("/a", &["/a", "/%61"], &["/", "/a/", "/A", "/ab", "/a/b", "/b"]),
        ("/a/", &["/a/"], &["/a", "/a/b"]),
        ("/a/*", &["/a/x", "/a/**", "/a/x%20y"], &["/a", "/a/", "/a/x/", "/a/x/y", "/b/x"]),
        ("/*/b", &["/a/b"], &["/b", "/a/b/", "/a/c", "/a/a/b"]),
        ("/a/**", &["/a/", "/a/x", "/a/x/", "/a/x/y"], &["/a", "/ab", "/", "/A/x"]),
        ("/**", &["/", "/a", "/a/b/"], &[]),
        (
            "/tenants/{tenant}/**",
            &["/tenants/acme/", "/tenants/acme/x", "/tenants/%61cme/x"],
            &[
                "/tenants/acme",
                "/tenants/acmes/x",
                "/tenants/globex/x",
                "/tenants/ACME/x",
                "/tenants/acme./x",
                "/tenants/{tenant}/x",
                "/tenants/%7Btenant%7D/x",
            ],
        ),
        ("/{tenant}", &["/acme"], &["/", "/globex", "/acme/"]),
        ("/café/日 本", &["/caf%C3%A9/%E6%97%A5%20%E6%9C%AC"], &["/cafe%CC%81/%E6%97%A5%20%E6%9C%AC"]),
        ("/a+b/c:d", &["/a+b/c:d", "/a%2Bb/c%3Ad"], &["/a%20b/c:d"]),
    ] {
        let pattern = pattern(text);
        assert_eq!(pattern.to_string(), text);
        for raw in matched {
            assert!(pattern.matches(&NormalPath::new(raw).unwrap(), Some(&acme)), "{text} should match {raw}");
        }
        // A path in braces is none that a request may have, which is another way not to match.
        for path in other.iter().filter_map(|raw| NormalPath::new(raw).ok()) {
            assert!(!pattern.matches(&path, Some(&acme)), "{text} should not match {path:?}");
        }
    }
    let path = NormalPath::new("/tenants/acme/x").unwrap();
    assert!(!pattern("/tenants/{tenant}/x").matches(&path, None), "nobody is identified");
}

#[test]
fn patterns_are_checked_when_they_are_read() {
    for (text, wanted) in [
        ("", "begin with '/'"),
        ("a", "begin with '/'"),
        ("**", "begin with '/'"),
        ("/a*", "whole segments"),
        ("/*a", "whole segments"),
        ("/a**", "whole segments"),
        ("/***", "whole segments"),
        ("/**/a", "whole segments"),
        ("/**/", "whole segments"),
        ("/**/**", "whole segments"),
        ("/a{tenant}", "{tenant}"),
        ("/{subject}", "{tenant}"),
        ("/{}", "{tenant}"),
        ("/{tenant", "{tenant}"),
        ("//", "empty segment"),
        ("/a//b", "empty segment"),
        ("//**", "empty segment"),
        ("/a//**", "empty segment"),
        ("/./a", "dot segments"),
        ("/a/..", "dot segments"),
        ("/../**", "dot segments"),
        ("/%61", "decoded"),
        ("/100%", "decoded"),
        ("/a\\b", "may not have"),
        ("/a;b", "may not have"),
        ("/a?b", "may not have"),
        ("/a#", "may not have"),
        ("/a\tb", "may not have"),
        ("/．．", "may not have"),
        ("/a ", "space"),
    ] {
        let refused = text.parse::<PathPattern>().expect_err(text);
        assert!(refused.contains(wanted), "{text}: {refused}");
    }
}

/// What the most obliging workload may make of a target: decodes again and again (also `%uXXXX`), folds by NFKC and best fit, drops what
/// cannot be seen, cuts query, fragment and parameters, takes `\` for `/`, merges slashes, resolves dot segments.
fn lax(raw: &str) -> String {
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
fn folded(path: &NormalPath<'_>) -> String {
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

/// The rows of a corpus file; `None`, and a word on it, where there are no corpora.
fn corpus(file: &str) -> Option<Vec<serde_json::Value>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora");
    let path = std::env::var_os("RINGFENCE_CORPORA").map_or(beside, PathBuf::from).join(file);
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: no corpora");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn the_path_corpus_holds() {
    let Some(rows) = corpus("http/paths.jsonl") else { return };
    let allowed = [pattern("/public"), pattern("/public/**")];
    let (mut refused, mut passed, mut wrong) = (0, 0, Vec::new());
    for row in &rows {
        let target = row["in"].as_str().unwrap();
        let raw = target.split('?').next().unwrap_or_default();
        let Ok(path) = NormalPath::new(raw) else {
            refused += 1;
            continue;
        };
        passed += 1;
        let sound = lax(raw) == folded(&path)
            && match row["op"].as_str().unwrap() {
                "traversal" => true,
                "policy" => !allowed.iter().any(|p| p.matches(&path, None)) || !lax(raw).to_lowercase().starts_with("/admin"),
                // We refuse instead of rewriting: what passes was in normal form before.
                _ => row["out"].as_str().is_some_and(|out| percent_decode_str(out).decode_utf8().is_ok_and(|out| out == path.as_str())),
            };
        if !sound {
            wrong.push(target);
        }
    }
    println!("{} rows: {refused} refused, {passed} passed and read alike by all, {} wrong", rows.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_request_corpus_has_no_good_path_that_we_refuse() {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let Some(rows) = corpus("http/requests.jsonl") else { return };
    let mut seen = 0;
    for row in rows.iter().filter(|row| row["expect"]["verdict"] == "accept") {
        let raw = BASE64_STANDARD.decode(row["raw_b64"].as_str().unwrap()).unwrap();
        let text = String::from_utf8_lossy(&raw);
        // Origin form only: the other forms are not a path (RFC 9112 §3.2).
        let Some(target) = text.split_whitespace().nth(1).filter(|target| target.starts_with('/')) else { continue };
        let path = target.split('?').next().unwrap_or_default();
        assert!(NormalPath::new(path).is_ok(), "{}: {target}", row["id"]);
        seen += 1;
    }
    assert!(seen > 0);
}
