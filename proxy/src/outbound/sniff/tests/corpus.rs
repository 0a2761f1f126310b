use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::*;

/// The corpus of first flights, judged by its own labels. Which names policy lists is not asked here: `deny` and `policy:` both say a name.
#[test]
fn corpus_verdicts() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora");
    let corpora = std::env::var("RINGFENCE_CORPORA").unwrap_or_else(|_| default.into());
    let Ok(rows) = std::fs::read_to_string(format!("{corpora}/ssrf/clienthellos.jsonl")) else {
        println!("skipped: no corpora");
        return;
    };
    let mut judged = 0;
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let (id, expect) = (row["id"].as_str().unwrap(), row["expect"].as_str().unwrap());
        let bytes = BASE64_STANDARD.decode(row["raw_b64"].as_str().unwrap()).unwrap();
        let size = row["segments"].as_u64().map_or(bytes.len(), |size| usize::try_from(size).unwrap());
        let mut cuts: Vec<usize> = (1..).map(|segment| segment * size.max(1)).take_while(|cut| *cut < bytes.len()).collect();
        cuts.extend(row["cut_at"].as_u64().and_then(|cut| usize::try_from(cut).ok()));
        // A clock is not needed to see that the hello is not whole in time.
        let in_time = match row["delay_ms"].as_u64() {
            Some(delay) => usize::try_from(TIME.as_millis()).unwrap() / usize::try_from(delay).unwrap() * size,
            None => bytes.len(),
        };
        let bytes = &bytes[..in_time.min(bytes.len())];
        cuts.retain(|cut| *cut <= bytes.len());
        let (looked, _) = judge(bytes, &cuts);
        let verdict = if looked == Verdict::More { Sniff::new().at_end(bytes) } else { looked };

        let sni = row["sni"].as_str().unwrap_or_default();
        let open =
            |name: &str| matches!(&verdict, Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Open(open) })) if open.as_str() == name);
        let is_hidden = matches!(verdict, Verdict::Is(Sniffed::Tls(ClientHello { name: Name::Hidden(_) })));
        let is_refused = matches!(verdict, Verdict::Refuse(_));
        let is_right = match expect {
            "timeout" => is_refused,
            "no-sni" => is_hidden,
            "not-tls" => is_refused || matches!(verdict, Verdict::Is(Sniffed::Http1 | Sniffed::Opaque)),
            "deny" => is_hidden || is_refused || open(sni),
            "allow" => open(sni),
            _ if expect.starts_with("reject") => is_hidden || is_refused || expect.split("policy:").nth(1).is_some_and(open),
            _ if expect.starts_with("after TLS termination") => open(sni),
            _ => open(expect.strip_prefix("policy:").unwrap()),
        };
        assert!(is_right, "{id}: {expect}, and {verdict:?}");
        judged += 1;
    }
    assert!(judged >= 50, "{judged}");
}
