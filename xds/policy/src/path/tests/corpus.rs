use std::{fs, path::PathBuf};

use percent_encoding::percent_decode_str;

use super::{
    lax::{folded, lax},
    *,
};

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
