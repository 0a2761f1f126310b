//! The way of a query from the workload, and the sidecar's own questions.
//!
//! ```text
//! listener         UDP datagrams; TCP connections with many queries each
//!    |
//! query            one question in wire form, or FORMERR, NOTIMP, silence
//!    |
//! filter_query     may it be asked?  (policy zones: not built yet)
//!    |
//! special          localhost and its like are answered here
//!    |
//! cache            known: answered without a task or an allocation
//!    |
//! resolve          the upstreams, one question for all who ask it, alias after alias
//!    |
//! filter_response  may it be told?  (policy zones: not built yet)
//!    |
//! answer           cut to size, TTLs told, remembered in `bindings`
//! ```
//!
//! One thread serves a listener's sockets with a cache and upstream connections of its own: nothing here is `Send`. Both are made anew when
//! the workload's DNS policy changes, so that what was learnt under one policy is never told under another.

pub mod listener;
mod tcp;
mod udp;
// In the order of the route.
pub mod query;
mod special;

mod cache;
mod forward;

pub mod resolve;

pub mod answer;
mod ede;

pub mod exchange;
mod limits;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use hickory_proto::op::ResponseCode;
use ringfence_policy::{Reason, tenant::DnsPolicy};

use self::{
    answer::{Age, Reply},
    ede::Ede,
    exchange::{Exchange, Recorder, Source, Verdict},
    forward::Forwarder,
    query::{NoQuery, Query},
};
use crate::data::Shared;

/// The DNS route as one thread has it.
pub struct Dns {
    shared: Shared,
    recorder: Recorder,
    in_force: RefCell<Option<InForce>>,
    /// TCP connections open.
    connections: Cell<usize>,
}

struct InForce {
    /// Of the snapshot that was looked at last.
    generation: u64,
    policy: DnsPolicy,
    forwarder: Rc<Forwarder>,
}

/// What becomes of a packet at once.
pub enum Step {
    /// The answer, if any is due, is written.
    Done,
    /// The upstreams have to be asked.
    Wait(Box<Pending>),
}

/// A query whose answer is not known yet.
pub struct Pending {
    query: Query,
    exchange: Exchange,
    forwarder: Rc<Forwarder>,
}

impl Dns {
    pub fn new(shared: Shared) -> Self {
        Self { recorder: Recorder::new(shared.clone()), shared, in_force: RefCell::default(), connections: Cell::new(0) }
    }

    /// Takes one packet; appends its answer to `out` where that can be had at once.
    pub fn begin(&self, packet: &[u8], exchange: Exchange, out: &mut Vec<u8>) -> Step {
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(no_query) => {
                if let NoQuery::Reply { rcode, .. } = no_query {
                    self.recorder.ended(&exchange, None, &Verdict::deny(rcode, Reason::RequestMalformed));
                }
                answer::write_no_query(no_query, out);
                return Step::Done;
            }
        };
        if let Some((rcode, ede)) = query.refusal() {
            self.refuse(&query, &exchange, rcode, Reason::DnsQueryRefused, ede, out);
            return Step::Done;
        }
        let Some(forwarder) = self.forwarder() else {
            let ede = Ede::new(Ede::NOT_READY, "no policy is in force");
            self.refuse(&query, &exchange, ResponseCode::ServFail, Reason::ConfigAbsent, Some(ede), out);
            return Step::Done;
        };
        if let Some(reply) = special::reply(&query) {
            let reply = reply.unwrap_or_else(|_| Reply::bare(&query, ResponseCode::ServFail, 0, None));
            self.recorder.ended(&exchange, Some(&query), &Verdict::allow(reply.rcode, Source::Own));
            answer::write(&query, &reply, Age::Seconds(0), None, exchange.transport, out);
            return Step::Done;
        }
        match forwarder.find(&query, exchange.begun) {
            Some(told) => {
                self.recorder.ended(&exchange, Some(&query), &Verdict::allow(told.reply.rcode, told.source));
                answer::write(&query, &told.reply, told.age, told.ede.as_ref(), exchange.transport, out);
                Step::Done
            }
            None => Step::Wait(Box::new(Pending { query, exchange, forwarder })),
        }
    }

    /// Appends the answer to a query that had to wait.
    pub async fn finish(&self, pending: Pending, out: &mut Vec<u8>) {
        let Pending { query, exchange, forwarder } = pending;
        match forwarder.look_up(&query, exchange.begun).await {
            Ok(told) => {
                self.recorder.ended(&exchange, Some(&query), &Verdict::allow(told.reply.rcode, told.source));
                answer::write(&query, &told.reply, told.age, told.ede.as_ref(), exchange.transport, out);
            }
            Err(error) => {
                self.recorder.ended(&exchange, Some(&query), &Verdict::failed(&error));
                let reply = Reply::bare(&query, ResponseCode::ServFail, 0, Some(error.ede()));
                answer::write(&query, &reply, Age::Seconds(0), None, exchange.transport, out);
            }
        }
    }

    fn refuse(&self, query: &Query, exchange: &Exchange, rcode: ResponseCode, reason: Reason, ede: Option<Ede>, out: &mut Vec<u8>) {
        self.recorder.ended(exchange, Some(query), &Verdict::deny(rcode, reason));
        answer::write(query, &Reply::bare(query, rcode, 0, ede), Age::Seconds(0), None, exchange.transport, out);
    }

    /// What serves the policy in force; `None`: there is none, or it has no DNS.
    fn forwarder(&self) -> Option<Rc<Forwarder>> {
        let snapshot = self.shared.current.pin()?;
        let mut in_force = self.in_force.borrow_mut();
        let policy = snapshot.workload.dns.as_ref();
        if let Some(known) = &mut *in_force
            && (known.generation == snapshot.generation || policy == Some(&known.policy))
        {
            known.generation = snapshot.generation;
            return Some(known.forwarder.clone());
        }
        *in_force = None;
        let policy = policy?.clone();
        let own = &self.shared.own;
        let forwarder = Rc::new(Forwarder::new(&policy, |address| own.holds(address), self.shared.clone()));
        *in_force = Some(InForce { generation: snapshot.generation, policy, forwarder: forwarder.clone() });
        Some(forwarder)
    }
}

#[cfg(test)]
mod tests;
