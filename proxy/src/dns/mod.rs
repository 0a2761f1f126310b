//! The way of a query from the workload, and the sidecar's own questions.
//!
//! ```text
//! listener         UDP datagrams; TCP connections with many queries each
//!    |
//! query            one question in wire form, or FORMERR, NOTIMP, silence
//!    |
//! filter_query     may it be asked?  policy zones: rules about the client and the name
//!    |
//! special          localhost and its like are answered here
//!    |
//! cache            known: answered without a task or an allocation
//!    |
//! resolve          the upstreams, one question for all who ask it
//!    |
//! filter_response  may it be told?  rules about what aliases lead to, addresses, name servers; where the upstream stopped at an alias,
//!    |             resolve again for what that leads to
//! answer           cut to size, TTLs told, remembered in `bindings`
//! ```
//!
//! One thread serves a listener's sockets with a cache and upstream connections of its own: nothing here is `Send`. What is remembered is
//! what upstreams said; each query goes through the zones of the snapshot that it pinned, so that an edit of them is in force for the next
//! query, and what one client may know is not told to another.

pub mod listener;
mod tcp;
mod udp;
// In the order of the route.
mod filter_query;
pub mod query;
mod special;

mod cache;
mod forward;

pub mod resolve;

mod filter_response;

pub mod answer;
mod ede;
mod told;

pub mod exchange;
mod limits;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use hickory_proto::op::ResponseCode;
use ringfence_policy::{
    Reason, Snapshot,
    rpz::{self, Walk},
    tenant::DnsUpstream,
};
use tokio::time::timeout;

use self::{
    answer::{Age, Reply},
    ede::Ede,
    exchange::{Exchange, Recorder, Source, Verdict},
    filter_query::{Ending, Made},
    filter_response::filter,
    forward::Forwarder,
    limits::{DEADLINE, MAX_CHAIN},
    query::{NoQuery, Query},
    resolve::{AskError, Lie, LookupError},
    told::Told,
};
use crate::data::Shared;

/// The DNS route as one thread has it.
pub struct Dns {
    shared: Shared,
    recorder: Recorder,
    forwarder: RefCell<Option<(Vec<DnsUpstream>, Rc<Forwarder>)>>,
    /// TCP connections open.
    connections: Cell<usize>,
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
    snapshot: Arc<Snapshot>,
    forwarder: Rc<Forwarder>,
}

impl Dns {
    pub fn new(shared: Shared) -> Self {
        Self { recorder: Recorder::new(shared.clone()), shared, forwarder: RefCell::default(), connections: Cell::new(0) }
    }

    /// Takes one packet; appends its answer to `out` where that can be had at once.
    pub fn begin(&self, packet: &[u8], exchange: Exchange, out: &mut Vec<u8>) -> Step {
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(no_query) => {
                if let NoQuery::Reply { rcode, .. } = no_query {
                    self.recorder.ended(&exchange, None, Verdict::deny(rcode, Reason::RequestMalformed));
                }
                answer::write_no_query(no_query, out);
                return Step::Done;
            }
        };
        if let Some((rcode, ede)) = query.refusal() {
            self.refuse(&query, &exchange, Verdict::deny(rcode, Reason::DnsQueryRefused), rcode, ede, out);
            return Step::Done;
        }
        let in_force = self.shared.current.pin().and_then(|snapshot| Some((self.forwarder(&snapshot)?, snapshot)));
        let Some((forwarder, snapshot)) = in_force else {
            self.refuse_unready(&query, &exchange, "no policy is in force", out);
            return Step::Done;
        };
        let Some(zones) = &snapshot.zones else {
            self.refuse_unready(&query, &exchange, "a policy zone is missing", out);
            return Step::Done;
        };
        let mut walk = filter_query::walk(&query, &exchange, zones);
        match decide_at_once(&mut walk, &query, &forwarder, snapshot.generation, exchange.begun) {
            Some(ending) => self.end(&query, &exchange, ending, &walk, out),
            None => return Step::Wait(Box::new(Pending { query, exchange, snapshot, forwarder })),
        }
        Step::Done
    }

    /// Appends the answer to a query that had to wait, if any is due.
    pub async fn finish(&self, pending: Pending, out: &mut Vec<u8>) {
        let Pending { query, exchange, snapshot, forwarder } = pending;
        // Without zones no query comes to wait.
        let Some(zones) = &snapshot.zones else { return };
        let mut walk = filter_query::walk(&query, &exchange, zones);
        let decided = timeout(DEADLINE, decide(&mut walk, &query, &forwarder, snapshot.generation, exchange.begun));
        match decided.await.unwrap_or(Err(AskError::Timeout.into())) {
            Ok(ending) => self.end(&query, &exchange, ending, &walk, out),
            Err(error) => {
                self.refuse(&query, &exchange, Verdict::failed(&error), ResponseCode::ServFail, Some(error.ede()), out);
            }
        }
    }

    fn end(&self, query: &Query, exchange: &Exchange, ending: Ending, walk: &Walk<'_>, out: &mut Vec<u8>) {
        let shadow = walk.disabled().map(|decision| Box::new(decision.clone()));
        let sent = ending.told.as_ref().map(|told| (told.reply.rcode, told.source));
        self.recorder.ended(exchange, Some(query), Verdict::filtered(sent, ending.decision, shadow));
        if let Some(told) = ending.told {
            told.bind(query, &self.shared.bindings);
            answer::write(query, &told.reply, told.age, told.ede.as_ref(), exchange.transport, out);
        }
    }

    fn refuse_unready(&self, query: &Query, exchange: &Exchange, why: &'static str, out: &mut Vec<u8>) {
        let rcode = ResponseCode::ServFail;
        self.refuse(query, exchange, Verdict::deny(rcode, Reason::ConfigAbsent), rcode, Some(Ede::new(Ede::NOT_READY, why)), out);
    }

    fn refuse(&self, query: &Query, exchange: &Exchange, verdict: Verdict, rcode: ResponseCode, ede: Option<Ede>, out: &mut Vec<u8>) {
        self.recorder.ended(exchange, Some(query), verdict);
        answer::write(query, &Reply::bare(query, rcode, 0, ede), Age::Seconds(0), None, exchange.transport, out);
    }

    /// What asks the upstreams in force; `None`: the policy has no DNS.
    fn forwarder(&self, snapshot: &Snapshot) -> Option<Rc<Forwarder>> {
        let mut kept = self.forwarder.borrow_mut();
        let Some(policy) = &snapshot.workload.dns else {
            *kept = None;
            return None;
        };
        if let Some((upstreams, forwarder)) = &*kept
            && *upstreams == policy.upstreams
        {
            return Some(forwarder.clone());
        }
        let own = &self.shared.own;
        let forwarder = Rc::new(Forwarder::new(policy, |address| own.holds(address), self.shared.clone()));
        *kept = Some((policy.upstreams.clone(), forwarder.clone()));
        Some(forwarder)
    }
}

/// Decides from what is known already. `None`: somebody must be asked.
fn decide_at_once(walk: &mut Walk<'_>, query: &Query, forwarder: &Rc<Forwarder>, generation: u64, now: Instant) -> Option<Ending> {
    if let Some(act) = walk.filter_query() {
        let Made { ending, follow } = filter_query::made(query, act);
        return follow.is_none().then_some(ending);
    }
    let told = known(query, forwarder, now)?;
    match filter(walk, &told.reply, generation) {
        rpz::Verdict::Pass(decision) if told.reply.next.is_none() => Some(Ending { told: Some(told), decision }),
        rpz::Verdict::Act(act) => {
            let Made { ending, follow } = filter_query::made(query, act);
            follow.is_none().then_some(ending)
        }
        _ => None,
    }
}

/// Asks whoever has to be asked, one after another: nobody hears of a name before the policy has let it through.
async fn decide(
    walk: &mut Walk<'_>,
    query: &Query,
    forwarder: &Rc<Forwarder>,
    generation: u64,
    now: Instant,
) -> Result<Ending, LookupError> {
    let act = match walk.filter_query() {
        Some(act) => act,
        None => {
            let mut told = look_up(query, forwarder, now).await?;
            let mut aliases = 0;
            loop {
                let mut verdict = filter(walk, &told.reply, generation);
                while let rpz::Verdict::Ask(lookup) = verdict {
                    let servers = look_up(&query.also(&lookup.name, lookup.rtype.into()), forwarder, now).await?;
                    verdict = walk.filter_lookup(lookup, Some(servers.reply.records()));
                }
                match (verdict, &told.reply.next) {
                    (rpz::Verdict::Act(act), _) => break act,
                    (rpz::Verdict::Pass(decision), None) => return Ok(Ending { told: Some(told), decision }),
                    (rpz::Verdict::Pass(_), Some(next)) if aliases < MAX_CHAIN => {
                        aliases += 1;
                        let rest = look_up(&query.also(next, query.qtype), forwarder, now).await?;
                        told = told.followed_by(rest)?;
                    }
                    _ => return Err(Lie::EndlessChain.into()),
                }
            }
        }
    };
    let Made { mut ending, mut follow } = filter_query::made(query, act);
    for _ in 0..=MAX_CHAIN {
        let Some(target) = follow.take() else { return Ok(ending) };
        let rest = look_up(&query.also(&target, query.qtype), forwarder, now).await?;
        follow = rest.reply.next.as_deref().cloned();
        if let Some(told) = ending.told.take() {
            ending.told = Some(Told { source: told.source, ..told.followed_by(rest)? });
        }
    }
    Err(Lie::EndlessChain.into())
}

/// What needs no upstream.
fn known(query: &Query, forwarder: &Rc<Forwarder>, now: Instant) -> Option<Told> {
    match special::reply(query) {
        Some(reply) => {
            let reply = reply.unwrap_or_else(|_| Reply::bare(query, ResponseCode::ServFail, 0, None));
            Some(Told::new(Rc::new(reply), Source::Own))
        }
        None => forwarder.find(query, now),
    }
}

/// Of those who know. A failure is no answer, though remembered.
async fn look_up(query: &Query, forwarder: &Rc<Forwarder>, now: Instant) -> Result<Told, LookupError> {
    let told = match known(query, forwarder, now) {
        Some(told) => told,
        None => forwarder.look_up(query, now).await?,
    };
    match told.reply.rcode {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(told),
        rcode => Err(AskError::Refused { rcode, ede: told.reply.ede.clone() }.into()),
    }
}

#[cfg(test)]
mod tests;
