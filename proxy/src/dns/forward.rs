//! What one thread asks one list of upstreams with: replies remembered, questions on their way, the upstreams. Another list gets another.
//!
//! All as upstreams tell it: whoever is told of it has it filtered first, so that policy zones and clients may change at any time.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_proto::op::{self, Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::Hosts;
use ringfence_policy::tenant::DnsPolicy;
use tokio::time::timeout;

use super::{
    answer::Reply,
    cache::{Cache, Found},
    exchange::Source,
    limits::{FAILURE_TTL, STALE_AFTER},
    query::Query,
    resolve::{Flight, Flights, LookupError, Outcome, Question, Upstreams, resolve},
    told::Told,
};
use crate::data::Shared;

/// The forwarder in force.
#[derive(Default)]
pub(super) struct Forwarders(RefCell<Option<(DnsPolicy, Rc<Forwarder>)>>);

impl Forwarders {
    /// Another one as soon as the upstreams are others, with nothing remembered.
    pub(super) fn of(&self, policy: &DnsPolicy, shared: &Shared) -> Rc<Forwarder> {
        let mut kept = self.0.borrow_mut();
        if let Some((of, forwarder)) = &*kept
            && (&of.upstreams, &of.upstream_ca) == (&policy.upstreams, &policy.upstream_ca)
        {
            return forwarder.clone();
        }
        let forwarder = Rc::new(Forwarder::new(policy, shared.clone()));
        *kept = Some((policy.clone(), forwarder.clone()));
        forwarder
    }
}

pub(super) struct Forwarder {
    shared: Shared,
    cache: RefCell<Cache>,
    flights: Rc<Flights>,
    upstreams: Upstreams,
    /// `None`: it is not looked into.
    hosts: Option<Hosts>,
}

impl Forwarder {
    fn new(policy: &DnsPolicy, shared: Shared) -> Self {
        let upstreams = Upstreams::new(policy, &shared.resolvers, |address| shared.own.holds(address));
        // Goes with the host's resolvers: what the operator names is all that is asked.
        let hosts = (policy.upstreams.is_empty() && shared.resolvers.is_empty()).then(|| Hosts::from_system().unwrap_or_default());
        Self { shared, cache: RefCell::default(), flights: Rc::default(), upstreams, hosts }
    }

    /// What the host's own file of names (hosts(5)) says to the sidecar itself.
    pub(super) fn written(&self, query: &Query) -> Option<Told> {
        let hosts = self.hosts.as_ref().filter(|_| query.is_own)?;
        let question = op::Query::query(query.to_name(), query.qtype);
        let found = hosts.lookup_static_host(&question)?;
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.add_query(question);
        message.add_answers(found.answers().iter().cloned());
        Some(Told::new(Rc::new(Reply::new(message, 0, None).ok()?), Source::Own))
    }

    /// How long beyond its TTL an answer may stand in for upstreams that fail.
    pub(super) fn serve_stale(&self, for_at_most: Duration) {
        self.cache.borrow_mut().serve_stale(for_at_most);
    }

    /// What is known already.
    pub(super) fn find(self: &Rc<Self>, query: &Query, now: Instant) -> Option<Told> {
        let (told, refresh) = match self.cache.borrow().find(query.key(), now)? {
            Found::Fresh { reply, age, refresh } => (Told { age, ..Told::new(reply.clone(), Source::Cache) }, refresh),
            Found::Stale { reply, quiet: true } => (Told::stale(reply.clone()), false),
            Found::Stale { .. } => return None,
        };
        if refresh && let Ok((_, Some(flight))) = self.flights.join(query.key()) {
            self.start(flight, query);
        }
        Some(told)
    }

    /// Until when `reply` is what [`Forwarder::find`] has for `query`, if it is popular.
    pub(super) fn told_until(&self, query: &Query, reply: &Rc<Reply>) -> Option<Instant> {
        self.cache.borrow().told_until(query.key(), reply)
    }

    /// What the upstreams know, or what they knew once.
    pub(super) async fn look_up(self: &Rc<Self>, query: &Query, now: Instant) -> Result<Told, LookupError> {
        let asked = async {
            let (mut wait, flight) = self.flights.join(query.key())?;
            if let Some(flight) = flight {
                self.start(flight, query);
            }
            Ok(Told::new(wait.outcome().await?, Source::Upstream))
        };
        let stale = match self.cache.borrow().find(query.key(), now) {
            Some(Found::Stale { reply, .. }) => Some(Told::stale(reply.clone())),
            _ => None,
        };
        let Some(stale) = stale else { return asked.await };
        match timeout(STALE_AFTER, asked).await {
            Ok(Ok(told)) => Ok(told),
            _ => Ok(stale),
        }
    }

    /// Sees to it that a question is answered and the answer remembered, whether or not those who asked wait for it.
    fn start(self: &Rc<Self>, flight: Flight, query: &Query) {
        let (forwarder, query) = (self.clone(), query.clone());
        tokio::task::spawn_local(async move { flight.land(forwarder.ask(&query).await) });
    }

    async fn ask(&self, query: &Query) -> Outcome {
        let question = Question {
            name: query.to_name(),
            qtype: query.qtype,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.checking_disabled(),
        };
        let outcome = resolve(&question, &self.upstreams).await.and_then(|resolved| Ok(resolved.into_reply()?));
        let now = Instant::now();
        let mut cache = self.cache.borrow_mut();
        match outcome {
            Ok(reply) => {
                let reply = Rc::new(reply);
                cache.store(query.key(), reply.clone(), now);
                Ok(reply)
            }
            Err(error) => {
                self.shared.metrics.dns.upstream_failed(&error);
                if !cache.failed(query.key(), now) {
                    let reply = Reply::bare(query, ResponseCode::ServFail, FAILURE_TTL, Some(error.ede()));
                    cache.store(query.key(), Rc::new(reply), now);
                }
                Err(error)
            }
        }
    }
}
