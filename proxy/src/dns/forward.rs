//! What one thread serves one DNS policy with: replies remembered, questions on their way, the upstreams. A changed policy gets another.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use ringfence_policy::{host::HostName, tenant::DnsPolicy};
use tokio::time::timeout;

use super::{
    answer::{Age, Reply},
    cache::{Cache, Found, STALE},
    ede::Ede,
    exchange::Source,
    limits::{FAILURE_TTL, STALE_AFTER, STALE_TTL},
    query::{Query, labels},
    resolve::{Flight, Flights, LookupError, Outcome, Question, Upstreams, resolve},
};
use crate::data::Shared;

pub(super) struct Forwarder {
    shared: Shared,
    cache: RefCell<Cache>,
    flights: Rc<Flights>,
    upstreams: Upstreams,
}

/// A reply and how it is to be told.
pub(super) struct Told {
    pub reply: Rc<Reply>,
    pub age: Age,
    pub ede: Option<Ede>,
    pub source: Source,
}

impl Forwarder {
    /// `is_own`: whether this sidecar serves DNS there itself.
    pub(super) fn new(policy: &DnsPolicy, is_own: impl Fn(SocketAddr) -> bool, shared: Shared) -> Self {
        Self { shared, cache: RefCell::default(), flights: Rc::default(), upstreams: Upstreams::new(policy, is_own) }
    }

    /// What is known already.
    pub(super) fn find(self: &Rc<Self>, query: &Query, now: Instant) -> Option<Told> {
        let (told, refresh) = match self.cache.borrow().find(query.key(), now)? {
            Found::Fresh { reply, age, refresh } => (Told { reply: reply.clone(), age, ede: None, source: Source::Cache }, refresh),
            Found::Stale { reply, quiet: true } => (Told::stale(reply.clone()), false),
            Found::Stale { .. } => return None,
        };
        if told.age == STALE {
            self.bind(query, &told.reply, STALE_TTL, now);
        }
        if refresh && let Ok((_, Some(flight))) = self.flights.join(query.key()) {
            self.start(flight, query);
        }
        Some(told)
    }

    /// What the upstreams know, or what they knew once.
    pub(super) async fn look_up(self: &Rc<Self>, query: &Query, now: Instant) -> Result<Told, LookupError> {
        let asked = async {
            let (mut wait, flight) = self.flights.join(query.key())?;
            if let Some(flight) = flight {
                self.start(flight, query);
            }
            let reply = wait.outcome().await?;
            Ok(Told { reply, age: Age::Seconds(0), ede: None, source: Source::Upstream })
        };
        let stale = match self.cache.borrow().find(query.key(), now) {
            Some(Found::Stale { reply, .. }) => Some(Told::stale(reply.clone())),
            _ => None,
        };
        let Some(stale) = stale else { return asked.await };
        match timeout(STALE_AFTER, asked).await {
            Ok(Ok(told)) => Ok(told),
            _ => {
                self.bind(query, &stale.reply, STALE_TTL, Instant::now());
                Ok(stale)
            }
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
        let outcome = resolve(question, &self.upstreams)
            .await
            .and_then(|resolved| Ok(Reply::new(resolved.message, resolved.lifetime, resolved.ede)?));
        let now = Instant::now();
        let mut cache = self.cache.borrow_mut();
        match outcome {
            Ok(reply) => {
                let reply = Rc::new(reply);
                self.bind(query, &reply, reply.lifetime, now);
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

    /// Remembers what the workload is told. `ttl`: seconds.
    fn bind(&self, query: &Query, reply: &Reply, ttl: u32, now: Instant) {
        let mut addresses = reply.addresses().peekable();
        if addresses.peek().is_some()
            && let Some(name) = host_name(query.name())
        {
            self.shared.bindings.learn(&name, addresses, now + Duration::from_secs(ttl.into()), now);
        }
    }
}

impl Told {
    fn stale(reply: Rc<Reply>) -> Self {
        let code = match reply.rcode {
            ResponseCode::NXDomain => Ede::STALE_NXDOMAIN,
            _ => Ede::STALE_ANSWER,
        };
        Self { reply, age: STALE, ede: Some(Ede::new(code, "the upstreams do not answer")), source: Source::Stale }
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
