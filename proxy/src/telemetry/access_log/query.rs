//! One DNS query, as a record and as a line.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use ringfence_policy::{RuleRef, TenantId, WorkloadName, rpz};

use super::json::Object;
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
    /// What would have decided: the first rule of a zone in shadow mode, else of a disabled one.
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

pub(super) fn tell(record: &QueryRecord, workload: &WorkloadName, line: &mut Object<'_>) {
    line.time("time", record.time);
    line.hex("id", record.id.0.to_be_bytes());
    line.word("route", "dns");
    line.text("workload", workload.as_str());
    line.address("listener", record.listener);
    line.word("transport", record.transport.as_str());
    line.text("tenant", record.tenant.as_ref().map(|tenant| tenant.as_str()));
    line.display("name", record.name.as_ref());
    line.display("type", record.qtype);
    let mnemonic = |rcode| RCODES.iter().find(|(known, _)| *known == rcode).map_or("OTHER", |(_, mnemonic)| mnemonic);
    line.word("rcode", record.rcode.map(mnemonic));
    line.word("source", record.source.as_str());
    line.word("decision", record.decision.as_str());
    line.word("reason", record.decision.reason().map(|reason| reason.as_str()));
    if let Some(decision) = &record.policy {
        policy(decision, line);
    }
    if let Some(decision) = &record.shadow {
        let mut shadow = line.object("shadow");
        policy(decision, &mut shadow);
        shadow.end();
    }
    line.text("limit", record.limit.as_ref().map(RuleRef::as_str));
    line.text("shadow_limit", record.shadow_limit.as_ref().map(RuleRef::as_str));
    line.micros("total_us", record.total);
}

/// A rule of a policy zone, and what met it.
fn policy(decision: &rpz::Decision, line: &mut Object<'_>) {
    // `metadata.name` of the PolicyZone.
    line.text("zone", &*decision.zone);
    line.word("trigger", decision.trigger.as_str());
    // Relative to the zone.
    line.display("owner", Some(&decision.owner));
    line.text("action", decision.action.as_str());
    // The name asked for, or what an alias leads to.
    line.display("matched", Some(&decision.name));
}
