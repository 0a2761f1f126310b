//! One DNS query, as a record and as a line.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_policy::{RuleRef, TenantId, WorkloadName, rpz};
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

/// One query.
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
    /// `None`: it was not answered.
    pub rcode: Option<ResponseCode>,
    pub source: Source,
    pub decision: Decision,
    /// The rule of a policy zone that decided.
    pub policy: Option<Box<rpz::Decision>>,
    /// The first that would have, were its zone not disabled or in shadow mode.
    pub shadow: Option<Box<rpz::Decision>>,
    /// The limit that decided.
    pub limit: Option<RuleRef>,
    /// The first that would have, were it not in shadow mode.
    pub shadow_limit: Option<RuleRef>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<&'static str>,
    source: &'static str,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(flatten)]
    policy: Option<PolicyRule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<PolicyRule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_limit: Option<&'a str>,
    total_us: u64,
}

/// A rule of a policy zone, and what met it.
#[derive(Serialize)]
struct PolicyRule<'a> {
    /// `metadata.name` of the PolicyZone.
    zone: &'a str,
    trigger: &'static str,
    /// Relative to the zone.
    owner: Text<&'a rpz::RuleOwner>,
    action: &'static str,
    /// The name asked for, or what an alias leads to.
    #[serde(rename = "matched")]
    name: Text<&'a rpz::Name>,
}

impl<'a> From<&'a rpz::Decision> for PolicyRule<'a> {
    fn from(decision: &'a rpz::Decision) -> Self {
        Self {
            zone: &decision.zone,
            trigger: decision.trigger.as_str(),
            owner: Text(&decision.owner),
            action: decision.action.as_str(),
            name: Text(&decision.name),
        }
    }
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
        rcode: record.rcode.map(|rcode| RCODES.iter().find(|(known, _)| *known == rcode).map_or("OTHER", |(_, mnemonic)| mnemonic)),
        source: record.source.as_str(),
        decision: record.decision.as_str(),
        reason: record.decision.reason().map(|reason| reason.as_str()),
        policy: record.policy.as_deref().map(PolicyRule::from),
        shadow: record.shadow.as_deref().map(PolicyRule::from),
        limit: record.limit.as_ref().map(RuleRef::as_str),
        shadow_limit: record.shadow_limit.as_ref().map(RuleRef::as_str),
        total_us: micros(record.total),
    }
}
