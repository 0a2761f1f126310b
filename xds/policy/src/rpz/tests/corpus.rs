//! Other engines' own tests, and what three of them answered: see the corpus' README for the tiers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde_json::Value;

use super::{upstream::Upstream, *};
use crate::ratelimit::Mode;

/// The rows of a corpus file; `None`, and a word on it, where there are no corpora.
fn corpus(file: &str) -> Option<Vec<Value>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora");
    let path = std::env::var_os("RINGFENCE_CORPORA").map_or(beside, PathBuf::from).join(file);
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: no corpora");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|values| values.iter().map(|value| value.as_str().unwrap()).collect()).unwrap_or_default()
}

fn zone(policy: &Value) -> PolicyZone {
    let origin = policy["name"].as_str().unwrap();
    let mut lines = strings(&policy["rrs"]);
    let soa = format!("{origin} 300 IN SOA ns.{origin} h.{origin} 1 3600 900 86400 60");
    lines.sort_by_key(|line| line.split(' ').nth(3) != Some("SOA"));
    if !lines.iter().any(|line| line.split(' ').nth(3) == Some("SOA")) {
        lines.insert(0, &soa);
    }
    let compiled = text::compile(lines.join("\n").as_bytes(), Some(&name(origin)));
    let bytes = compiled.bytes.unwrap_or_else(|| panic!("{origin}: {:?}", compiled.outcome.faults));
    let options = &policy["options"];
    let r#override = match policy["override"].as_str().unwrap() {
        "cname" => Override::Cname(name(options["cname"].as_str().unwrap())),
        word => word.parse().unwrap(),
    };
    PolicyZone {
        name: origin.into(),
        zone: Zone::open(bytes.into()).unwrap(),
        scope: Scope::Tenant,
        r#override,
        mode: Mode::Enforce,
        max_ttl: options["max_ttl"].as_u64().map(|ttl| ttl as u32),
    }
}

fn upstream(scenario: &Value) -> Upstream {
    let told = &scenario["upstream"];
    let mut upstream = Upstream::new(records(&strings(&told["rrs"]).join("\n")));
    upstream.failing = strings(&told["servfail"]).into_iter().map(name).collect();
    for absent in told["exact"].as_array().into_iter().flatten() {
        upstream.absent.insert((name(absent["qname"].as_str().unwrap()), rtype_of(absent["qtype"].as_str().unwrap())));
    }
    upstream
}

fn rtype_of(mnemonic: &str) -> u16 {
    mnemonic.parse::<hickory_proto::rr::RecordType>().unwrap().into()
}

/// What a server sends that does what the policy says, and nothing else.
#[derive(Debug)]
struct Reply {
    rcode: u8,
    truncated: bool,
    answer: Vec<Record>,
    soa: bool,
    asked_upstream: bool,
}

/// `None`: dropped.
fn serve(policy: &Policy, upstream: &Upstream, query: Query) -> Option<Reply> {
    let (qname, qtype) = (query.name.clone(), query.rtype);
    let mut walk = Walk::new(policy, query);
    let mut asked_upstream = false;
    let act = match walk.filter_query() {
        Some(act) => act,
        None => {
            asked_upstream = true;
            let (rcode, answer) = upstream.resolve(&qname, qtype);
            let mut verdict = walk.filter_response(rcode, &answer);
            while let Verdict::Ask(lookup) = verdict {
                let (rcode, found) = upstream.resolve(&lookup.name, lookup.rtype);
                verdict = walk.filter_lookup(lookup, (rcode != 2).then_some(found));
            }
            match verdict {
                Verdict::Pass(_) => return Some(Reply { rcode, truncated: false, answer, soa: false, asked_upstream }),
                Verdict::Act(act) => act,
                Verdict::Unanswered | Verdict::Ask(_) => {
                    return Some(Reply { rcode: 2, truncated: false, answer: Vec::new(), soa: false, asked_upstream });
                }
            }
        }
    };
    let Act::Answer(rewrite) = act else { return None };
    let mut reply =
        Reply { rcode: rewrite.rcode, truncated: rewrite.truncated, answer: rewrite.answer, soa: rewrite.soa.is_some(), asked_upstream };
    if let Some(target) = rewrite.follow {
        let (rcode, answer) = upstream.resolve(&target, qtype);
        reply.rcode = rcode;
        reply.answer.extend(answer);
    }
    Some(reply)
}

type Rows = BTreeSet<(String, u16, Vec<u8>)>;

fn rows(records: &[Record]) -> Rows {
    records.iter().map(|record| (record.owner.to_string(), record.rtype, record.rdata.to_ascii_lowercase())).collect()
}

/// `NAME TYPE RDATA` lines.
fn expected_rows(lines: &[&str]) -> Rows {
    lines.iter().flat_map(|line| rows(&records(&line.replacen(' ', " 1 IN ", 1)))).collect()
}

/// As the corpus' replay tool compares.
fn faults(case: &Value, reply: Option<&Reply>, upstream: &Upstream, qname: &Name, qtype: u16) -> Vec<String> {
    let expect = &case["expect"];
    let is = |field: &str| expect[field].as_bool() == Some(true);
    let mut faults = Vec::new();
    let Some(reply) = reply else {
        return if is("drop") { faults } else { vec!["no answer".into()] };
    };
    if is("drop") {
        return vec![format!("answered {}", reply.rcode)];
    }
    let given = rows(&reply.answer);
    if is("same_as_upstream") {
        let (rcode, answer) = upstream.resolve(qname, qtype);
        if reply.rcode != rcode || given != rows(&answer) {
            faults.push(format!("is not upstream's {rcode} {answer:?}"));
        }
    }
    let rcode = match expect["rcode"].as_str() {
        Some("NOERROR") => Some(0),
        Some("SERVFAIL") => Some(2),
        Some("NXDOMAIN") => Some(3),
        None => None,
        other => panic!("{other:?}"),
    };
    if !is("tc") && rcode.is_some_and(|rcode| rcode != reply.rcode) {
        faults.push(format!("rcode {}", reply.rcode));
    }
    if is("tc") && !reply.truncated {
        faults.push("not truncated".into());
    }
    if !expect["answer"].is_null() && !is("same_as_upstream") && given != expected_rows(&strings(&expect["answer"])) {
        faults.push(format!("answer {:?}", reply.answer));
    }
    for line in strings(&expect["answer_contains"]) {
        if !expected_rows(&[line]).is_subset(&given) {
            faults.push(format!("lacks {line}"));
        }
    }
    for rdata in strings(&expect["answer_contains_rdata"]) {
        let kind = if rdata.contains('"') {
            "TXT"
        } else if rdata.contains(':') {
            "AAAA"
        } else {
            "A"
        };
        let wanted = expected_rows(&[&format!(". {kind} {rdata}")]);
        if !wanted.iter().all(|(_, rtype, rdata)| given.iter().any(|row| row.1 == *rtype && row.2 == *rdata)) {
            faults.push(format!("lacks {rdata} in {:?}", reply.answer));
        }
    }
    if is("final_answer_empty") && reply.answer.iter().any(|record| record.rtype != rtype::CNAME) {
        faults.push(format!("data {:?}", reply.answer));
    }
    let ttl = |field: &str| expect[field].as_u64().map(|ttl| ttl as u32);
    if ttl("ttl").is_some_and(|ttl| !reply.answer.iter().any(|record| record.ttl == ttl))
        || ttl("ttl_first").is_some_and(|ttl| reply.answer.first().is_some_and(|record| record.ttl != ttl))
    {
        faults.push(format!("ttl {:?}", reply.answer));
    }
    if is("additional_soa") && !reply.soa {
        faults.push("no SOA".into());
    }
    // Whether the original asked: only where it was set to ask no more than it must.
    if expect["recursed"].as_bool().is_some_and(|recursed| recursed != reply.asked_upstream) {
        faults.push(format!("upstream was {}asked", if reply.asked_upstream { "" } else { "not " }));
    }
    faults
}

/// What we choose otherwise, of tiers C, E and F: why.
fn chosen(scenario: &Value, case: &Value) -> Option<&'static str> {
    let needs = strings(&case["needs"]);
    // Some of them follow what Unbound has in its cache from before, and are not marked.
    if needs.contains(&"chained-local-cname") || case["scenario"] == "unbound-rpz_cname_handle" {
        return Some("no rule is asked about what a rule has made");
    }
    if !case["rd"].as_bool().unwrap() {
        return Some("the policy holds without RD too");
    }
    if needs.contains(&"xfr") && needs.contains(&"after-time") {
        return Some("the zone before its transfer");
    }
    if needs.contains(&"serve-expired") {
        return Some("serving what has expired is the cache's");
    }
    if needs.contains(&"views") {
        return Some("a client with another policy: here, another sidecar");
    }
    let ttl = scenario["policies"].as_array().unwrap().iter().any(|policy| !policy["options"]["ttl"].is_null());
    (ttl && !case["expect"]["ttl_first"].is_null()).then_some("a zone has no TTL of its own for overrides")
}

#[test]
fn the_rpz_corpus_is_answered() {
    let (Some(scenarios), Some(cases)) = (corpus("rpz/scenarios.jsonl"), corpus("rpz/cases.jsonl")) else { return };
    let mut tiers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for scenario in &scenarios {
        let policy: Policy = scenario["policies"].as_array().unwrap().iter().map(zone).collect();
        let upstream = upstream(scenario);
        for case in cases.iter().filter(|case| case["scenario"] == scenario["id"]) {
            let (qname, qtype) = (name(case["qname"].as_str().unwrap()), rtype_of(case["qtype"].as_str().unwrap()));
            let query = Query {
                name: qname.clone(),
                rtype: qtype,
                client: case["client"].as_str().unwrap().parse().unwrap(),
                transport: if case["proto"] == "tcp" { Transport::Tcp } else { Transport::Udp },
            };
            let reply = serve(&policy, &upstream, query);
            let faults = faults(case, reply.as_ref(), &upstream, &qname, qtype);
            let tier = tiers.entry(case["tier"].as_str().unwrap()).or_default();
            tier.1 += 1;
            if faults.is_empty() {
                tier.0 += 1;
                continue;
            }
            let told = format!("{} {} {} {}: {}", case["tier"], case["id"], case["qname"], case["qtype"], faults.join("; "));
            match chosen(scenario, case) {
                Some(why) if !matches!(case["tier"].as_str(), Some("A" | "B")) => println!("chosen: {why}: {told}"),
                _ => wrong.push(told),
            }
        }
    }
    for (tier, (right, all)) in &tiers {
        println!("tier {tier}: {right} of {all}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
