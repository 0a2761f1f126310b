//! A reply, and how it is to be told to one who asks.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_proto::{ProtoError, op::ResponseCode};
use ringfence_policy::host::HostName;

use super::{
    answer::{Age, Reply},
    cache::STALE,
    ede::Ede,
    exchange::Source,
    query::{Query, labels},
};
use crate::bindings::Bindings;

pub(super) struct Told {
    pub(super) reply: Rc<Reply>,
    pub(super) age: Age,
    /// Goes before what the reply has to say.
    pub(super) ede: Option<Ede>,
    pub(super) source: Source,
}

impl Told {
    pub(super) fn new(reply: Rc<Reply>, source: Source) -> Self {
        Self { reply, age: Age::Seconds(0), ede: None, source }
    }

    /// What has expired, since there is nothing better.
    pub(super) fn stale(reply: Rc<Reply>) -> Self {
        let code = match reply.rcode {
            ResponseCode::NXDomain => Ede::STALE_NXDOMAIN,
            _ => Ede::STALE_ANSWER,
        };
        Self { reply, age: STALE, ede: Some(Ede::new(code, "the upstreams do not answer")), source: Source::Stale }
    }

    /// With what its aliases lead to.
    pub(super) fn followed_by(self, rest: Told) -> Result<Self, ProtoError> {
        let reply = self.reply.followed_by(self.age, &rest.reply, rest.age)?;
        Ok(Self { reply: Rc::new(reply), age: Age::Seconds(0), ede: self.ede.or(rest.ede), source: rest.source })
    }

    /// Tells the egress decision that the workload gets these addresses for the name that it asked for.
    pub(super) fn bind(&self, query: &Query, bindings: &Bindings) {
        // Once is enough for as long as the reply holds; what has expired holds a little longer each time.
        if self.reply.bound.replace(true) && self.age != STALE {
            return;
        }
        let mut addresses = self.reply.addresses().peekable();
        if addresses.peek().is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(name) = host_name(query.name()) {
            let remains = Duration::from_secs(self.reply.remains(self.age).into());
            bindings.learn(&name, addresses, now + remains, now);
        }
    }
}

/// A name in wire form as a host's; `None`: no host has such a name.
fn host_name(name: &[u8]) -> Option<HostName> {
    let mut text = String::with_capacity(name.len());
    for label in labels(name) {
        // A dot within a label would make it two.
        if label.contains(&b'.') {
            return None;
        }
        text.push_str(str::from_utf8(label).ok()?);
        text.push('.');
    }
    text.parse().ok()
}
