use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;

/// Requests whose label and ours differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("llhttp-method-12", "ICE/1.0 is not HTTP"),
    ("llhttp-method-13", "RTSP/1.0 is not HTTP"),
    ("llhttp-invalid-04", "methods are extensible (RFC 9110 §9.1): ANNOUNCE is a method that policy may list or not"),
];

/// The corpus of raw requests, judged by its own labels. Its replay through sockets is a tool outside this repository.
#[test]
fn corpus_verdicts() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora");
    let corpora = std::env::var("RINGFENCE_CORPORA").unwrap_or_else(|_| default.into());
    let Ok(rows) = std::fs::read_to_string(format!("{corpora}/http/requests.jsonl")) else {
        println!("skipped: no corpora");
        return;
    };
    let mut judged = 0;
    for row in rows.lines() {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        let (id, wanted) = (row["id"].as_str().unwrap(), row["expect"]["verdict"].as_str().unwrap());
        let octets = BASE64_STANDARD.decode(row["raw_b64"].as_str().unwrap()).unwrap();
        let octets = replace_host(&octets);
        let names_host = octets.to_ascii_lowercase().windows(5).any(|window| window == b"host:");
        let mut guard = Guard::http1(Targets::Server);
        let is_served = match guard.scan(&octets) {
            Scan::Sound(_) => guard.heads > 0 && (guard.is_in_head() || guard.is_closing() || guard.is_undecided()),
            Scan::Bad { head, .. } => head != Some(0),
        };
        let expected = match wanted {
            "accept" if names_host => true,
            "reject" | "incomplete" => false,
            _ => continue,
        };
        judged += 1;
        let differs = DIFFERENT.iter().any(|&(known, _)| known == id);
        assert_eq!(is_served, expected != differs, "{id}: {}", String::from_utf8_lossy(&octets));
    }
    assert!(judged > 300, "{judged}");
}

fn replace_host(octets: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = octets;
    while let Some(at) = rest.windows(8).position(|window| window == b"__HOST__") {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(b"allowed.example");
        rest = &rest[at + 8..];
    }
    [&replaced, rest].concat()
}
