//! The URL and IDNA suites of the web platform. We map nothing: what they map is refused here, or is what they map it to.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::corpora;

/// What stands for the host and port in a URL's text; `None` where there is none, or a reader of URLs would look for it elsewhere.
fn authority(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    if !["http", "https", "ws", "wss", "ftp"].contains(&scheme) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    (!authority.is_empty()).then_some(authority)
}

#[test]
fn a_url_reader_finds_the_same_host_or_we_find_none() {
    let Some(text) = corpora::text("ssrf/whatwg/urltestdata.json") else { return };
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let (mut same, mut refused, mut both_refuse, mut wrong) = (0, Vec::new(), 0, Vec::new());
    for row in rows.iter().filter(|row| row.is_object()) {
        let Some(authority) = row["input"].as_str().and_then(authority) else { continue };
        let ours = authority.parse::<Authority>().map(|authority| authority.host.to_string());
        match (ours, row["hostname"].as_str()) {
            (Ok(ours), Some(theirs)) if theirs.trim_end_matches('.') == ours => same += 1,
            (Ok(ours), theirs) => wrong.push((authority, ours, theirs)),
            (Err(_), Some(_)) => refused.push(authority),
            (Err(_), None) => both_refuse += 1,
        }
    }
    println!(
        "{same} the same, {both_refuse} refused by both, {} by us alone: {refused:?}; {} otherwise: {wrong:?}",
        refused.len(),
        wrong.len()
    );
    assert!(same > 50 && both_refuse > 50);
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Each line is `source; toUnicode; toUnicodeStatus; toAsciiN; toAsciiNStatus; …`; an empty field repeats the one before it.
#[test]
fn an_internationalised_name_is_what_it_is_mapped_to_or_none() {
    let Some(text) = corpora::text("ssrf/whatwg/IdnaTestV2.txt") else { return };
    let (mut same, mut laxer, mut refused, mut both_refuse) = (0, BTreeMap::<String, u32>::new(), 0, 0);
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split('#').next().unwrap().split(';').map(str::trim).collect();
        let source = unescape(fields[0]);
        let or = |field: &str, before: &str| match field {
            "" => before.to_owned(),
            "\"\"" => String::new(),
            _ => unescape(field),
        };
        let to_ascii = or(fields[3], &or(fields[1], &source));
        let status = or(fields[4], &or(fields[2], "[]"));
        match (source.parse::<HostName>(), status.as_str()) {
            (Ok(name), status) => {
                // Whatever else is said of it: a name of ours is what any reader asks a resolver for.
                assert_eq!(name.as_str(), to_ascii.trim_end_matches('.'), "{line}");
                same += 1;
                if status != "[]" {
                    *laxer.entry(status.to_owned()).or_default() += 1;
                }
            }
            (Err(_), "[]") => refused += 1,
            (Err(_), _) => both_refuse += 1,
        }
    }
    println!("{same} the same, {both_refuse} refused by both, {refused} by us alone; of the same, not valid in the suite: {laxer:?}");
    assert!(same > 50 && both_refuse > 1000);
    // A4_2: the dot of the root, which we drop. V2 and V3: hyphens, as browsers have them. V4 and V7: nested A-labels and code points that
    // were given out since or never; an A-label is asked for as it is.
    let known = |status: &String| status.trim_matches(['[', ']']).split(", ").all(|code| ["A4_2", "V2", "V3", "V4", "V7"].contains(&code));
    assert!(laxer.keys().all(known), "{laxer:?}");
}

/// `\uXXXX` and `\x{XXXX}`.
fn unescape(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (digits, end) = match &rest[at + 1..at + 2] {
            "u" => (&rest[at + 2..at + 6], at + 6),
            _ => {
                let end = at + rest[at..].find('}').unwrap();
                (&rest[at + 3..end], end + 1)
            }
        };
        // Lone surrogates are in no text of ours.
        out.push(char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap_or('\u{fffd}'));
        rest = &rest[end..];
    }
    out + rest
}
