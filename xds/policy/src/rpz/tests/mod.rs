mod corpus;
mod precedence;
mod properties;
mod upstream;

use std::net::IpAddr;

use ipnet::IpNet;

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Records of absolute master-file lines.
fn records(text: &str) -> Vec<Record> {
    let mut records = Vec::new();
    text::read(text.as_bytes(), None, |line, _, record| {
        records.push(record.unwrap_or_else(|message| panic!("line {line}: {message}: {text}")).clone());
        true
    });
    records
}
