//! A record as one line of JSON.
//!
//! Fields stand in one order and are left out where there is nothing to say. The line is printable ASCII whatever a client sent: besides
//! what JSON demands, all else is escaped too, since readers take U+2028 or U+0085 for a line's end and terminals obey C1 controls.

use std::{
    borrow::Cow,
    fmt::{self, Display},
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use ringfence_policy::{SpiffeId, WorkloadName, host::Host};
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use super::{
    query,
    record::{AccessRecord, Clipped, ConnectionRecord, Destination, Record, Route},
};

#[derive(Serialize)]
struct RequestLine<'a> {
    time: Text<humantime::Rfc3339Timestamp>,
    id: Text<crate::telemetry::RequestId>,
    route: &'static str,
    workload: &'a str,
    listener: Text<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Text<&'a SpiffeId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_hash: Option<Text<Hex>>,
    #[serde(flatten)]
    destination: Option<To<'a>>,
    method: Cow<'a, str>,
    path: Cow<'a, str>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shadow: Vec<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    total_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    identify_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Text<opentelemetry::trace::TraceId>>,
}

#[derive(Serialize)]
struct ConnectionLine<'a> {
    time: Text<humantime::Rfc3339Timestamp>,
    id: Text<crate::telemetry::RequestId>,
    route: &'static str,
    workload: &'a str,
    listener: Text<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_destination: Option<Text<SocketAddr>>,
    #[serde(flatten)]
    destination: Option<To<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shadow: Vec<&'a str>,
    bytes_sent: u64,
    bytes_received: u64,
    total_us: u64,
}

#[derive(Serialize)]
struct To<'a> {
    host: Text<&'a Host>,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Text<SocketAddr>>,
}

impl<'a> From<&'a Destination> for To<'a> {
    fn from(destination: &'a Destination) -> Self {
        Self { host: Text(&destination.host), port: destination.port, address: destination.address.map(Text) }
    }
}

/// Appends `record` and a newline.
pub(super) fn append(record: &Record, workload: &WorkloadName, lines: &mut Vec<u8>) {
    match record {
        Record::Request(record) => write(&request(record, workload), lines),
        Record::Query(record) => write(&query::line(record, workload), lines),
        Record::Connection(record) => write(&connection(record, workload), lines),
    }
}

fn request<'a>(record: &'a AccessRecord, workload: &'a WorkloadName) -> RequestLine<'a> {
    RequestLine {
        time: Text(humantime::format_rfc3339_micros(printable(record.time))),
        id: Text(record.id),
        route: record.route.as_str(),
        workload: workload.as_str(),
        listener: Text(record.listener),
        peer: record.peer.as_ref().map(Text),
        tenant: record.tenant.as_ref().map(|tenant| tenant.as_str()),
        subject_hash: record.subject_hash.map(|hash| Text(Hex(hash))),
        destination: record.destination.as_ref().map(To::from),
        method: text(&record.method),
        path: text(&record.path),
        protocol: protocol(record.version),
        status: record.status.map(|status| status.as_u16()),
        decision: record.decision.as_str(),
        reason: record.decision.reason().map(|reason| reason.as_str()),
        rule: record.rule.as_ref().map(|rule| rule.as_str()),
        shadow: record.shadow.iter().map(|rule| rule.as_str()).collect(),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        total_us: micros(record.timings.total),
        identify_us: record.timings.identify.map(micros),
        upstream_us: record.timings.upstream.map(micros),
        upstream_error: record.upstream_error.map(|error| error.as_str()),
        trace_id: record.trace_id.map(Text),
    }
}

fn connection<'a>(record: &'a ConnectionRecord, workload: &'a WorkloadName) -> ConnectionLine<'a> {
    ConnectionLine {
        time: Text(humantime::format_rfc3339_micros(printable(record.time))),
        id: Text(record.id),
        route: Route::Outbound.as_str(),
        workload: workload.as_str(),
        listener: Text(record.listener),
        tenant: record.tenant.as_ref().map(|tenant| tenant.as_str()),
        original_destination: record.original.map(Text),
        destination: record.destination.as_ref().map(To::from),
        protocol: record.protocol,
        decision: record.decision.as_str(),
        reason: record.decision.reason().map(|reason| reason.as_str()),
        rule: record.rule.as_ref().map(|rule| rule.as_str()),
        shadow: record.shadow.iter().map(|rule| rule.as_str()).collect(),
        bytes_sent: record.sent,
        bytes_received: record.received,
        total_us: micros(record.total),
    }
}

fn write(line: &impl Serialize, lines: &mut Vec<u8>) {
    let start = lines.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *lines, Ascii);
    match line.serialize(&mut serializer) {
        Ok(()) => lines.push(b'\n'),
        // Writing to memory cannot fail; if a later field can, half a line must not stay.
        Err(_) => lines.truncate(start),
    }
}

fn text(clipped: &Clipped) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(&clipped.bytes);
    if clipped.cut { Cow::Owned(text.into_owned() + "…") } else { text }
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

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The nearest time that RFC 3339 can write and humantime does: years 1970 to 9999. A clock may be wrong; a line must be.
pub(super) fn printable(time: SystemTime) -> SystemTime {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST)
}

/// A JSON string of what a value displays.
pub(super) struct Text<T>(pub(super) T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Hex([u8; 16]);

impl Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Compact JSON in printable ASCII.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        // A character beyond ASCII begins with an octet beyond it: what is found is a character's first.
        while let Some(at) = rest.bytes().position(|octet| octet >= 0x7f) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut chars = rest[at..].chars();
            if let Some(c) = chars.next() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}
