//! Takes what upstreams answer, alias by alias; yields what the policy zones say of it: rules about the names that aliases lead to, about
//! addresses (hints of HTTPS and SVCB records among them), and about name servers. Never asks anybody: whom to ask is in what it yields.

use hickory_proto::op::ResponseCode;
use ringfence_policy::rpz::{Verdict, Walk};

use super::answer::Reply;

/// [`Verdict::Pass`] of a reply whose aliases lead on: what they lead to may be asked for.
///
/// `generation`: of the policy that the walk goes through. A reply that no rule of it has to do with is not taken apart again: that much is
/// the same for all who ask.
pub(super) fn filter(walk: &mut Walk<'_>, reply: &Reply, generation: u64) -> Verdict {
    if walk.policy().zones().is_empty() || !matches!(reply.rcode, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Verdict::Pass(None);
    }
    let is_undecided = walk.is_undecided();
    if is_undecided && reply.passed.get() == Some(generation) {
        return Verdict::Pass(None);
    }
    let verdict = match reply.next {
        Some(_) => walk.filter_aliases(&reply.records()),
        None => walk.filter_response(reply.rcode.low(), &reply.records()),
    };
    if is_undecided && verdict == Verdict::Pass(None) && walk.is_plain() {
        reply.passed.set(Some(generation));
    }
    verdict
}
