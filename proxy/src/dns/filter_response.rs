//! Takes what upstreams answer, alias by alias; yields what the policy zones say of it: rules about the names that aliases lead to, about
//! addresses (hints of HTTPS and SVCB records among them), and about name servers. Never asks anybody: whom to ask is in what it yields.

use hickory_proto::op::ResponseCode;
use ringfence_policy::rpz::{Verdict, Walk};

use super::answer::Reply;

/// [`Verdict::Pass`] of a reply whose aliases lead on: what they lead to may be asked for.
pub(super) fn filter(walk: &mut Walk<'_>, reply: &Reply) -> Verdict {
    if walk.policy().zones().is_empty() || !matches!(reply.rcode, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Verdict::Pass(None);
    }
    match reply.next {
        Some(_) => walk.filter_aliases(&reply.records()),
        None => walk.filter_response(reply.rcode.low(), &reply.records()),
    }
}
