//! The sidecar's own questions. Takes a name that the egress policy has let through; yields what it leads to, by the policy zones too: a
//! name that a workload may not look up is not looked up for it. Asks whom the workload's queries are asked of, in the same way, and
//! nobody else. Rules about CLIENT-IP are about who asks over DNS, and a rule that makes a client come back over TCP is content here.

mod remembered;

use std::{
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::Instant,
};

use hickory_proto::rr::RecordType;
use ringfence_policy::{
    Snapshot,
    host::HostName,
    rpz::{self, Act, Action, Policy, Record, Transport, Verdict, Walk, rtype},
};

pub(super) use self::remembered::Remembered;
use super::{Dns, answer::Reply, decide, forward::Forwarder, query::Query, resolve::LookupError};

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name or its addresses do not exist.
    #[error("there is no such name, or it has no address")]
    Absent,
    #[error("the upstreams did not answer: {0}")]
    Failed(#[from] LookupError),
    #[error("PolicyZone/{} has the rule {}: {}", .0.zone, .0.owner, .0.action)]
    Blocked(Box<rpz::Decision>),
    #[error("a policy zone is missing: no name is resolved")]
    NoZones,
}

/// What one family's question came to.
struct Family {
    /// None: the name has no such address.
    addresses: Vec<IpAddr>,
    /// Until when the same question would come to the same; `None`: that cannot be told.
    until: Option<Instant>,
}

impl Dns {
    /// Where `name` leads, if that was found a while ago and deciding anew could find nothing else.
    pub fn remembered(&self, name: &HostName, snapshot: &Snapshot, now: Instant) -> Option<Vec<IpAddr>> {
        self.remembered.borrow().find(name, snapshot.generation, now).map(<[IpAddr]>::to_vec)
    }

    /// Where `name` leads; never nowhere.
    pub async fn addresses(&self, name: &HostName, snapshot: &Snapshot) -> Result<Vec<IpAddr>, ResolveError> {
        let zones = snapshot.zones.as_ref().ok_or(ResolveError::NoZones)?;
        // Cannot fail: a host's name is a domain name.
        let Ok(asked) = format!("{name}.").parse::<rpz::Name>() else { return Err(ResolveError::Absent) };
        let forwarder = self.own_forwarder(snapshot);
        let of_family = |rtype| of_family(&asked, rtype, (zones, snapshot.generation), &forwarder);
        let (mut addresses, mut refusal) = (Vec::new(), ResolveError::Absent);
        let (v4, v6) = tokio::join!(of_family(RecordType::A), of_family(RecordType::AAAA));
        let until = match (&v4, &v6) {
            (Ok(Family { until: Some(v4), .. }), Ok(Family { until: Some(v6), .. })) => Some(*v4.min(v6)),
            _ => None,
        };
        for found in [v4, v6] {
            match (found, &refusal) {
                (Ok(found), _) => addresses.extend(found.addresses),
                (Err(_), ResolveError::Blocked(_)) => {}
                (Err(error), _) => refusal = error,
            }
        }
        if addresses.is_empty() {
            return Err(refusal);
        }
        if let Some(until) = until {
            self.remembered.borrow_mut().store(name.clone(), &addresses, snapshot.generation, until);
        }
        Ok(addresses)
    }
}

/// A or AAAA. `generation`: of the policy that the zones are part of.
async fn of_family(
    name: &rpz::Name,
    rtype: RecordType,
    (zones, generation): (&Policy, u64),
    forwarder: &Rc<Forwarder>,
) -> Result<Family, ResolveError> {
    let asked = rpz::Query { name: name.clone(), rtype: rtype.into(), client: NO_CLIENT, transport: Transport::Tcp };
    let mut walk = Walk::new(zones, asked);
    let query = Query::own(name, rtype);
    let ending = decide(&mut walk, &query, forwarder, generation, Instant::now()).await?;
    let addresses: Vec<IpAddr> = ending.told.iter().flat_map(|told| told.reply.addresses()).collect();
    match ending.decision {
        Some(decision) if addresses.is_empty() && decision.action != Action::Passthru => Err(ResolveError::Blocked(decision)),
        Some(_) => Ok(Family { addresses, until: None }),
        None => {
            // Nothing but this one reply was looked at, and no rule has to do with it.
            let is_let_through = |reply: &Reply| zones.zones().is_empty() || reply.passed.get() == Some(generation);
            let told = ending.told.filter(|told| walk.is_undecided() && is_let_through(&told.reply));
            Ok(Family { addresses, until: told.and_then(|told| forwarder.told_until(&query, &told.reply)) })
        }
    }
}

/// Whether the policy `zones`, asked now, let `name` lead to `address`, as far as can be told without asking anybody: what a workload was
/// told may be older than they are.
pub fn may_lead(name: &HostName, address: IpAddr, zones: &Policy) -> bool {
    let Ok(name) = format!("{name}.").parse::<rpz::Name>() else { return false };
    let (rtype, rdata) = match address.to_canonical() {
        IpAddr::V4(address) => (rtype::A, address.octets().to_vec()),
        IpAddr::V6(address) => (rtype::AAAA, address.octets().to_vec()),
    };
    let answer = Record { owner: name.clone(), rtype, ttl: 0, rdata };
    let mut walk = Walk::new(zones, rpz::Query { name, rtype, client: NO_CLIENT, transport: Transport::Tcp });
    let act = match walk.filter_query() {
        Some(act) => act,
        None => match walk.filter_response(NOERROR, std::slice::from_ref(&answer)) {
            Verdict::Act(act) => act,
            _ => return true,
        },
    };
    match act {
        Act::Drop(_) => false,
        // Where the rule's own alias leads, only upstreams know.
        Act::Answer(rewrite) => rewrite.follow.is_some() || rewrite.answer.iter().any(|made| made.rdata == answer.rdata),
    }
}

/// Of this no query comes over DNS.
const NO_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const NOERROR: u8 = 0;
