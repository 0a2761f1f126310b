//! A record as one line of JSON. Fields stand in one order and are left out where there is nothing to say.

use std::borrow::Cow;

use ringfence_policy::{RuleRef, WorkloadName};

use super::{
    json::Object,
    query,
    record::{AccessRecord, Clipped, ConnectionRecord, Destination, Record, Route},
};

/// Appends `record`, a thing that `workload` did, and a newline.
pub fn append(record: &Record, workload: &WorkloadName, lines: &mut Vec<u8>) {
    let mut line = Object::begin(lines);
    match record {
        Record::Request(record) => request(record, workload, &mut line),
        Record::Query(record) => query::tell(record, workload, &mut line),
        Record::Connection(record) => connection(record, workload, &mut line),
    }
    line.end();
    lines.push(b'\n');
}

fn request(record: &AccessRecord, workload: &WorkloadName, line: &mut Object<'_>) {
    line.time("time", record.time);
    line.hex("id", record.id.0.to_be_bytes());
    line.word("route", record.route.as_str());
    line.text("workload", workload.as_str());
    line.address("listener", record.listener);
    line.display("peer", record.peer.as_ref());
    line.text("tenant", record.tenant.as_ref().map(|tenant| tenant.as_str()));
    line.hex("subject_hash", record.subject_hash);
    destination(record.destination.as_ref(), line);
    clipped("method", &record.method, line);
    clipped("path", &record.path, line);
    line.word("protocol", protocol(record.version));
    line.number("status", record.status.map(|status| status.as_u16().into()));
    line.word("decision", record.decision.as_str());
    line.word("reason", record.decision.reason().map(|reason| reason.as_str()));
    line.text("rule", record.rule.as_ref().map(RuleRef::as_str));
    line.list("shadow", record.shadow.iter().map(RuleRef::as_str));
    line.number("bytes_in", record.bytes_in);
    line.number("bytes_out", record.bytes_out);
    line.micros("total_us", record.timings.total);
    line.micros("identify_us", record.timings.identify);
    line.micros("upstream_us", record.timings.upstream);
    line.word("upstream_error", record.upstream_error.map(|error| error.as_str()));
    line.hex("trace_id", record.trace_id.map(|id| id.to_bytes()));
}

fn connection(record: &ConnectionRecord, workload: &WorkloadName, line: &mut Object<'_>) {
    line.time("time", record.time);
    line.hex("id", record.id.0.to_be_bytes());
    line.word("route", Route::Outbound.as_str());
    line.text("workload", workload.as_str());
    line.address("listener", record.listener);
    line.text("tenant", record.tenant.as_ref().map(|tenant| tenant.as_str()));
    line.address("original_destination", record.original);
    destination(record.destination.as_ref(), line);
    line.word("protocol", record.protocol);
    line.word("decision", record.decision.as_str());
    line.word("reason", record.decision.reason().map(|reason| reason.as_str()));
    line.text("rule", record.rule.as_ref().map(RuleRef::as_str));
    line.list("shadow", record.shadow.iter().map(RuleRef::as_str));
    line.number("bytes_sent", record.sent);
    line.number("bytes_received", record.received);
    line.micros("total_us", record.total);
}

fn destination(destination: Option<&Destination>, line: &mut Object<'_>) {
    if let Some(destination) = destination {
        line.display("host", Some(&destination.host));
        line.number("port", u64::from(destination.port));
        line.address("address", destination.address);
    }
}

fn clipped(name: &'static str, clipped: &Clipped, line: &mut Object<'_>) {
    // It almost always is text, and that is quicker to tell than to search for what is not.
    let text = str::from_utf8(&clipped.bytes).map_or_else(|_| String::from_utf8_lossy(&clipped.bytes), Cow::Borrowed);
    line.pieces(name, [&*text, if clipped.cut { "…" } else { "" }]);
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_11 => "HTTP/1.1",
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_3 => "HTTP/3",
        _ => "unknown",
    }
}
