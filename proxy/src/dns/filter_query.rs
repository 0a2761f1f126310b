//! Takes a query and the policy zones; yields what they say before anybody is asked: rules about the client and the name. What needs the
//! answer is left to [`filter_response`](super::filter_response). Never knows what upstreams say.
//!
//! The policy holds for queries with DO or CD set as for others (with BIND: `break-dnssec yes`): who could choose to be exempt would be.
//! What a rule makes is not signed, so a validating client takes it for bogus and has no answer either.

use hickory_proto::op::ResponseCode;
use ringfence_policy::rpz::{self, Act, Decision, Name, Policy, Walk};
use std::rc::Rc;

use super::{
    answer::{Reply, Transport},
    exchange::{Exchange, Source},
    query::Query,
    told::Told,
};

/// The way of a query through the zones.
pub(super) fn walk<'p>(query: &Query, exchange: &Exchange, zones: &'p Policy) -> Walk<'p> {
    // Cannot fail: the name was checked when the query was read.
    let name = Name::from_wire(query.name()).map_or_else(Name::root, |(name, _)| name);
    let transport = match exchange.transport {
        Transport::Udp => rpz::Transport::Udp,
        Transport::Tcp => rpz::Transport::Tcp,
    };
    Walk::new(zones, rpz::Query { name, rtype: query.qtype.into(), client: exchange.client, transport })
}

/// What a query ends in.
pub(super) struct Ending {
    /// `None`: nothing is sent.
    pub told: Option<Told>,
    /// The rule that decided.
    pub decision: Option<Box<Decision>>,
}

/// What a rule makes of a query.
pub(super) struct Made {
    pub ending: Ending,
    /// What this leads to comes behind it, unfiltered.
    pub follow: Option<Name>,
}

pub(super) fn made(query: &Query, act: Act) -> Made {
    match act {
        Act::Drop(decision) => Made { ending: Ending { told: None, decision: Some(decision) }, follow: None },
        Act::Answer(mut rewrite) => {
            let follow = rewrite.follow.take();
            let reply = Reply::made(query, &rewrite).unwrap_or_else(|| Reply::bare(query, ResponseCode::ServFail, 0, None));
            let told = Told::new(Rc::new(reply), Source::Own);
            Made { ending: Ending { told: Some(told), decision: Some(Box::new(rewrite.decision)) }, follow }
        }
    }
}
