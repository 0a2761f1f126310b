//! The way of a query from the workload, and the sidecar's own questions.
//!
//! ```text
//! listener         UDP datagrams; TCP connections with many queries each
//!    |
//! query            one question in wire form, or FORMERR, NOTIMP, silence
//!    |
//! budget           may there be another?  and below: may one more name leave, may this much come back?
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
//! The sidecar's own questions ([`own`]) begin at the policy zones and go the same way from there.
//!
//! One thread serves a listener's sockets with a cache and upstream connections of its own: nothing here is `Send`. What is remembered is
//! what upstreams said; each query goes through the zones of the snapshot that it pinned, so that an edit of them is in force for the next
//! query, and what one client may know is not told to another. Where the sidecar's own questions led is remembered too, until a policy is
//! pushed or a reply is due to be refreshed.

pub mod listener;
mod tcp;
mod udp;
// In the order of the route.
pub mod budget;
mod filter_query;
pub mod query;
mod special;

mod cache;
mod forward;
pub mod own;

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
    time::Instant,
};

use hickory_proto::op::ResponseCode;
use ringfence_policy::{
    Reason, Snapshot,
    rpz::{self, Walk},
    tenant::DnsPolicy,
};
use tokio::time::timeout;

use self::{
    answer::{Age, Reply},
    budget::{Account, Spent},
    ede::Ede,
    exchange::{Exchange, Recorder, Source, Verdict},
    filter_query::{Ending, Made},
    filter_response::filter,
    forward::{Forwarder, Forwarders},
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
    forwarders: Forwarders,
    remembered: RefCell<own::Remembered>,
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
    account: Account,
    forwarder: Rc<Forwarder>,
}

impl Dns {
    pub fn new(shared: Shared) -> Self {
        Self {
            recorder: Recorder::new(shared.clone()),
            shared,
            forwarders: Forwarders::default(),
            remembered: RefCell::default(),
            connections: Cell::new(0),
        }
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
        let limiter = &self.shared.limiter;
        let account = match Account::open(&query, &exchange, snapshot, limiter) {
            Ok(account) => account,
            Err(spent) => {
                self.refuse_spent(&query, &exchange, spent, out);
                return Step::Done;
            }
        };
        let Some(zones) = &account.snapshot.zones else {
            self.refuse_unready(&query, &exchange, "a policy zone is missing", out);
            return Step::Done;
        };
        let mut walk = filter_query::walk(&query, &exchange, zones);
        match decide_at_once(&mut walk, &query, &forwarder, account.snapshot.generation, exchange.begun) {
            Ok(ending) => self.end(&query, &exchange, ending, &walk, &account, out),
            Err(missing) => {
                let leave = if missing == Missing::Answer { account.ask(&query, &exchange, limiter) } else { Ok(()) };
                match leave {
                    Ok(()) => return Step::Wait(Box::new(Pending { query, exchange, account, forwarder })),
                    Err(spent) => self.refuse_spent(&query, &exchange, spent, out),
                }
            }
        }
        Step::Done
    }

    /// Appends the answer to a query that had to wait, if any is due.
    pub async fn finish(&self, pending: Pending, out: &mut Vec<u8>) {
        let Pending { query, exchange, account, forwarder } = pending;
        // Without zones no query comes to wait.
        let Some(zones) = &account.snapshot.zones else { return };
        let mut walk = filter_query::walk(&query, &exchange, zones);
        let decided = timeout(DEADLINE, decide(&mut walk, &query, &forwarder, account.snapshot.generation, exchange.begun));
        match decided.await.unwrap_or(Err(AskError::Timeout.into())) {
            Ok(ending) => self.end(&query, &exchange, ending, &walk, &account, out),
            Err(error) => {
                self.refuse(
                    &query,
                    &exchange,
                    Verdict::failed(&error).beside(account.shadow()),
                    ResponseCode::ServFail,
                    Some(error.ede()),
                    out,
                );
            }
        }
    }

    fn end(&self, query: &Query, exchange: &Exchange, ending: Ending, walk: &Walk<'_>, account: &Account, out: &mut Vec<u8>) {
        if let Some(told) = &ending.told
            && let Err(spent) = account.tell(query, exchange, told, &self.shared.limiter)
        {
            return self.refuse_spent(query, exchange, spent, out);
        }
        let shadow = walk.shadow().map(|decision| Box::new(decision.clone()));
        let sent = ending.told.as_ref().map(|told| (told.reply.rcode, told.source));
        self.recorder.ended(exchange, Some(query), Verdict::filtered(sent, ending.decision, shadow).beside(account.shadow()));
        if let Some(told) = ending.told {
            told.bind(query, &self.shared.bindings);
            answer::write(query, &told.reply, told.age, told.ede.as_ref(), exchange.transport, out);
        }
    }

    fn refuse_spent(&self, query: &Query, exchange: &Exchange, spent: Spent, out: &mut Vec<u8>) {
        let (rcode, ede) = (ResponseCode::Refused, spent.ede());
        self.refuse(query, exchange, Verdict::spent(rcode, spent), rcode, Some(ede), out);
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
        let policy = snapshot.workload.dns.as_ref()?;
        let forwarder = self.forwarders.of(policy, &self.shared);
        forwarder.serve_stale(snapshot.platform.serve_stale(policy));
        Some(forwarder)
    }

    /// The same for the sidecar's own questions: without DNS in the policy, the host's resolvers.
    fn own_forwarder(&self, snapshot: &Snapshot) -> Rc<Forwarder> {
        self.forwarder(snapshot).unwrap_or_else(|| self.forwarders.of(&DnsPolicy::default(), &self.shared))
    }
}

/// What somebody must be asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// The answer to the query itself.
    Answer,
    /// What the answer leads to.
    Rest,
}

/// Decides from what is known already.
fn decide_at_once(walk: &mut Walk<'_>, query: &Query, forwarder: &Rc<Forwarder>, generation: u64, now: Instant) -> Result<Ending, Missing> {
    let act = match walk.filter_query() {
        Some(act) => act,
        None => {
            let told = known(query, forwarder, now).ok_or(Missing::Answer)?;
            match filter(walk, &told.reply, generation) {
                rpz::Verdict::Pass(decision) if told.reply.next.is_none() => return Ok(Ending { told: Some(told), decision }),
                rpz::Verdict::Act(act) => act,
                _ => return Err(Missing::Rest),
            }
        }
    };
    let Made { ending, follow } = filter_query::made(query, act);
    if follow.is_none() { Ok(ending) } else { Err(Missing::Rest) }
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
        None => forwarder.written(query).or_else(|| forwarder.find(query, now)),
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
