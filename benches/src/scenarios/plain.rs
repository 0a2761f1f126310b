//! A reverse proxy and nothing else: what everyone quotes.

use super::{
    Plan,
    compare::{Saturated, Steady, Work},
    field::{Check, Field},
};
use crate::{
    Error,
    load::Protocol,
    peers::{envoy, haproxy, nginx, ringfence::Installation},
    report::Report,
    target::Target,
};

/// Requests a second of the open loop.
const RATE: usize = 3_000;
const HTTP2: Protocol = Protocol::Http2 { streams: 8 };

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let field = Field::new()?;
    let (dir, upstream) = (field.dir.path(), field.origin.address);
    let installation = Installation::policy(dir, upstream, &field.policy.issuer)?;
    let programs = [
        ("ringfence", Some(installation.sidecar()?)),
        ("nginx", nginx::plain(dir, upstream)?),
        ("haproxy", haproxy::plain(dir, upstream)?),
        ("envoy", envoy::plain(dir, upstream)?),
    ];
    let targets = field.start(programs, Check::Plain, report);
    let mut saturated = Saturated::new("Plain reverse proxy, 64 requests under way");
    let mut steady = Steady::new("Plain reverse proxy, 3,000 requests/s", RATE);
    for _ in 0..plan.rounds {
        saturated.round(plan, &field, works(&field, &targets))?;
        steady.round(plan, &field, works(&field, &targets))?;
    }
    report.push(saturated.table);
    report.push(steady.table);
    Ok(())
}

/// HTTP/1.1 on 64 connections, HTTP/2 on 8; HTTP/1.1 to the origin in both cases.
fn works<'a>(field: &'a Field, targets: &'a [Target]) -> impl Iterator<Item = Work<'a>> {
    [("", Protocol::Http1), (", HTTP/2", HTTP2)].into_iter().flat_map(move |(suffix, protocol)| {
        let work = move |target: &'a Target| Work { name: format!("{}{suffix}", target.name), protocol, ..Work::plain(target, field) };
        targets.iter().map(work)
    })
}
