//! The full tenant policy, beside those who can enforce the same.

use super::{
    LIMIT, Plan, answered, closed,
    compare::{Saturated, Steady, Work},
    field::{Check, Field},
};
use crate::{
    Error,
    load::{Load, Protocol},
    peers::{envoy, haproxy, nginx, ringfence::Installation},
    policy::Algorithm,
    report::{Report, Table},
    target::Target,
};

/// Callers that ask in turn, each with its own token.
const CALLERS: usize = 1_000;
const FRESH: &str = "new tokens";
/// Requests a second of the open loop.
const RATE: usize = 1_000;

/// Requests by how many callers there are; each caller has a token of its own.
struct Requests {
    algorithm: Algorithm,
    one: Vec<String>,
    some: Vec<String>,
    /// For each round as many as nobody has seen before.
    fresh: Vec<Vec<String>>,
}

impl Requests {
    fn new(plan: Plan, field: &Field, algorithm: Algorithm) -> Result<Self, Error> {
        let requests = |series: &str, count| field.policy.requests(algorithm, series, count);
        let fresh = (0..plan.rounds).map(|round| requests(&format!("fresh-{round}"), plan.fresh)).collect::<Result<_, _>>()?;
        Ok(Self { algorithm, one: requests("one", 1)?, some: requests("some", CALLERS)?, fresh })
    }

    fn of(&self, round: usize) -> [(&'static str, &[String]); 3] {
        [("1 token", &self.one), ("1,000 tokens", &self.some), (FRESH, &self.fresh[round])]
    }

    fn works<'a>(&'a self, round: usize, targets: &'a [Target]) -> impl Iterator<Item = Work<'a>> {
        self.of(round).into_iter().flat_map(move |(callers, heads)| targets.iter().map(move |target| self.work(target, callers, heads)))
    }

    fn work<'a>(&self, target: &'a Target, callers: &str, heads: &'a [String]) -> Work<'a> {
        let name = format!("{}, {}, {callers}", target.name, self.algorithm);
        Work { name, target, protocol: Protocol::Http1, heads, once: callers == FRESH }
    }
}

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let field = Field::new()?;
    let (dir, upstream, issuer) = (field.dir.path(), field.origin.address, &field.policy.issuer);
    let installation = Installation::policy(dir, upstream, issuer)?;
    let programs = [
        ("ringfence", Some(installation.sidecar()?)),
        ("envoy", envoy::policy(dir, upstream, issuer, false)?),
        ("envoy", envoy::policy(dir, upstream, issuer, true)?),
        ("haproxy", haproxy::policy(dir, upstream, issuer)?),
    ];
    let targets = field.start(programs, Check::Policy, report);
    let plain = field.start([("nginx", nginx::plain(dir, upstream)?)], Check::Plain, report);
    let requests = [Requests::new(plan, &field, Algorithm::Es256)?, Requests::new(plan, &field, Algorithm::Rs256)?];
    let [es256, _] = &requests;
    let mut saturated = Saturated::new("Tenant policy, 64 requests under way");
    let mut steady = Steady::new("Tenant policy, 1,000 requests/s", RATE);
    // Those who remember tokens have seen these once.
    for (target, requests) in targets.iter().flat_map(|target| requests.iter().map(move |requests| (target, requests))) {
        let load = closed(target, LIMIT, &requests.some);
        answered(&target.name, &Load { requests: CALLERS, ..load }, 200)?;
        target.forget_log()?;
    }
    for round in 0..plan.rounds {
        let proxying = plain.iter().map(|target| Work { name: "nginx, plain".into(), ..Work::plain(target, &field) });
        saturated.round(plan, &field, proxying.chain(requests.iter().flat_map(|requests| requests.works(round, &targets))))?;
        steady.round(plan, &field, targets.iter().map(|target| es256.work(target, "1,000 tokens", &es256.some)))?;
    }
    goals(&saturated.table, &steady.table, report);
    report.push(saturated.table);
    report.push(steady.table);
    Ok(())
}

fn goals(saturated: &Table, steady: &Table, report: &mut Report) {
    const CACHED: &str = "ringfence, ES256, 1,000 tokens";
    let cpu = |of, to| saturated.ratio(of, to, "us/request");
    report.goal("CPU/request, remembered tokens, of Envoy's", 0.12, cpu(CACHED, "envoy, policy, ES256, 1,000 tokens"));
    report.goal("the same, of Envoy's with its JWT cache", 0.25, cpu(CACHED, "envoy, policy, JWT cache, ES256, 1,000 tokens"));
    let fresh = cpu("ringfence, ES256, new tokens", "envoy, policy, ES256, new tokens");
    report.goal("CPU/request, new tokens, of Envoy's", 0.6, fresh);
    report.goal("CPU/request, remembered tokens, of nginx's without a policy", 1.6, cpu(CACHED, "nginx, plain"));
    let p99 = steady.ratio(CACHED, "envoy, policy, ES256, 1,000 tokens", "p99 added");
    report.goal("p99 added at 1,000/s, remembered tokens, of Envoy's", 0.5, p99);
}
