//! One connection that leaves the workload, from accept to close: what is measured of it. Dropping it tells the access log and the metrics,
//! so that no way out of the route goes unseen.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    time::{Instant, SystemTime},
};

use ringfence_policy::{Deny, Reason, RuleRef, TenantId, egress::AllowedDestination, host::Host};

use super::{
    Outbound,
    decide::{Ask, Protocol},
    sniff::{ClientHello, Name, Sniffed},
};
use crate::telemetry::{
    Decision, RequestId,
    access_log::{ConnectionRecord, Destination},
};

/// Octets that were moved.
#[derive(Debug, Default)]
pub(super) struct Octets {
    /// From the workload.
    pub(super) sent: Cell<u64>,
    /// To it.
    pub(super) received: Cell<u64>,
}

pub(super) struct Flow {
    outbound: Rc<Outbound>,
    pub(super) id: RequestId,
    time: SystemTime,
    started: Instant,
    original: Option<SocketAddr>,
    tenant: Option<TenantId>,
    destination: Option<Destination>,
    protocol: Option<&'static str>,
    rule: Option<RuleRef>,
    deny: Option<(Reason, Option<RuleRef>)>,
    shadow: Option<(Reason, Option<RuleRef>)>,
    pub(super) octets: Octets,
    /// It speaks HTTP: its requests are told one by one.
    is_passed_on: bool,
}

impl Flow {
    /// `original`: of a captured connection.
    pub(super) fn begin(original: Option<SocketAddr>, outbound: &Rc<Outbound>) -> Self {
        let shared = &outbound.shared;
        Self {
            id: shared.ids.next(),
            time: SystemTime::now(),
            started: Instant::now(),
            original,
            tenant: None,
            destination: None,
            protocol: None,
            rule: None,
            deny: None,
            shadow: None,
            octets: Octets::default(),
            is_passed_on: false,
            outbound: outbound.clone(),
        }
    }

    /// Leaves the telling to the requests in it.
    pub(super) fn pass_on(mut self) {
        self.is_passed_on = true;
    }

    /// What a captured connection says of itself, before anything is decided.
    pub(super) fn sniffed(&mut self, sniffed: &Sniffed, original: SocketAddr, tenant: &TenantId) {
        let (host, seen) = match sniffed {
            Sniffed::Tls(ClientHello { name: Name::Open(name), .. }) => (Host::Name(name.clone()), Protocol::Tls),
            Sniffed::Tls(_) => (Host::Address(original.ip()), Protocol::Tls),
            _ => (Host::Address(original.ip()), Protocol::Opaque),
        };
        self.asked(&Ask { tenant: tenant.clone(), host, port: original.port(), seen });
    }

    /// What it asks for, as far as is known by now.
    pub(super) fn asked(&mut self, ask: &Ask) {
        self.tenant = Some(ask.tenant.clone());
        let address = self.destination.take().and_then(|destination| destination.address);
        self.destination = Some(Destination { host: ask.host.clone(), port: ask.port, address });
        self.protocol = Some(ask.seen.as_str());
    }

    pub(super) fn allowed(&mut self, destination: &AllowedDestination, shadow: Option<&Deny>) {
        if let Some(to) = &mut self.destination {
            to.address = Some(destination.address());
        }
        self.rule = destination.rule().cloned();
        self.shadow = shadow.map(|deny| (deny.reason, deny.rule.clone()));
    }

    pub(super) fn refused(&mut self, deny: &Deny) {
        self.deny = Some((deny.reason, deny.rule.clone()));
    }

    fn decision(&self) -> Decision {
        match (&self.deny, &self.shadow) {
            (Some((reason, _)), _) => Decision::Deny(*reason),
            (None, Some((reason, _))) => Decision::Shadow(*reason),
            (None, None) => Decision::Allow,
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if self.is_passed_on {
            return;
        }
        let decision = self.decision();
        let (sent, received) = (self.octets.sent.get(), self.octets.received.get());
        let shared = &self.outbound.shared;
        shared.metrics.outbound(decision, sent, received);
        if let Some(log) = &shared.access_log {
            log.record(ConnectionRecord {
                time: self.time,
                id: self.id,
                listener: self.outbound.key.listen,
                original: self.original,
                tenant: self.tenant.take(),
                destination: self.destination.take(),
                protocol: self.protocol,
                decision,
                // Of a refusal the rule that refused; one that allowed what was cut later is no answer to why.
                rule: self.deny.take().map_or(self.rule.take(), |(_, rule)| rule),
                shadow: self.shadow.take().and_then(|(_, rule)| rule).into_iter().collect(),
                sent,
                received,
                total: self.started.elapsed(),
            });
        }
    }
}
