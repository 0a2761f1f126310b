//! One DNS query, as a record and as a line.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_policy::{TenantId, WorkloadName};
use serde::Serialize;

use super::line::{Text, micros, printable};
use crate::{
    dns::{
        answer::{RCODES, Transport},
        exchange::Source,
        query::labels,
    },
    telemetry::{Decision, RequestId},
};

/// One answered query.
#[derive(Clone, Debug)]
pub struct QueryRecord {
    /// When its packet had arrived.
    pub time: SystemTime,
    pub id: RequestId,
    pub listener: SocketAddr,
    pub transport: Transport,
    /// Of a dedicated workload: a query carries no token.
    pub tenant: Option<TenantId>,
    /// `None`: the packet had no question that can be told.
    pub name: Option<QueryName>,
    pub qtype: Option<RecordType>,
    pub rcode: ResponseCode,
    pub source: Source,
    pub decision: Decision,
    pub total: Duration,
}

/// A name in wire form.
#[derive(Clone, Debug)]
pub struct QueryName(Box<[u8]>);

impl QueryName {
    pub fn new(name: &[u8]) -> Self {
        Self(name.into())
    }
}

/// As in a zone file (RFC 1035 §5.1), without the root's dot.
impl fmt::Display for QueryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == [0] {
            return f.write_str(".");
        }
        for (i, label) in labels(&self.0).enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            for &octet in label {
                match octet {
                    b'.' | b'\\' => write!(f, "\\{}", octet as char)?,
                    0x21..=0x7e => write!(f, "{}", octet as char)?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
        }
        Ok(())
    }
}

#[derive(Serialize)]
pub(super) struct QueryLine<'a> {
    time: Text<humantime::Rfc3339Timestamp>,
    id: Text<RequestId>,
    route: &'static str,
    workload: &'a str,
    listener: Text<SocketAddr>,
    transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text<&'a QueryName>>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    qtype: Option<Text<RecordType>>,
    rcode: &'static str,
    source: &'static str,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    total_us: u64,
}

pub(super) fn line<'a>(record: &'a QueryRecord, workload: &'a WorkloadName) -> QueryLine<'a> {
    QueryLine {
        time: Text(humantime::format_rfc3339_micros(printable(record.time))),
        id: Text(record.id),
        route: "dns",
        workload: workload.as_str(),
        listener: Text(record.listener),
        transport: record.transport.as_str(),
        tenant: record.tenant.as_ref().map(|tenant| tenant.as_str()),
        name: record.name.as_ref().map(Text),
        qtype: record.qtype.map(Text),
        rcode: RCODES.iter().find(|(rcode, _)| *rcode == record.rcode).map_or("OTHER", |(_, mnemonic)| mnemonic),
        source: record.source.as_str(),
        decision: record.decision.as_str(),
        reason: record.decision.reason().map(|reason| reason.as_str()),
        total_us: micros(record.total),
    }
}
