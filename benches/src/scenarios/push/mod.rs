//! Configuration push: from an edit to the last acknowledgement of those whom it concerns, and what a sidecar costs the control plane.
//! Over mutual TLS, as fleets run it; over Unix sockets beside it, for what TLS adds.

mod join;
mod site;

use std::{collections::BTreeSet, time::Duration};

use self::site::{Link, Site};
use super::Plan;
use crate::{
    Error,
    load::Latency,
    report::{Report, Table},
    sidecars::{Ack, Group, Reach, Sidecars, now},
};

/// Sidecars of each workload. Two, because a process has not the descriptors for ten thousand sockets and as many connections
/// everywhere.
const REPLICAS: usize = 2;
/// Edits that concern every sidecar.
const PLATFORM_EDITS: usize = 5;
/// Sidecars that join. The control plane issues SVIDs to 200 a second, and tells others to come again.
const JOINS_PER_SECOND: u32 = 190;
/// At the most sidecars that are measured.
const LATEST_MS: f64 = 1_000.0;
const MOST_KB: f64 = 60.0;

struct Tables {
    joining: Table,
    connecting: Table,
    tenant: Table,
    platform: Table,
    restart: Table,
}

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let mut tables = Tables {
        joining: Table::new(
            &format!(
                "Configuration push: {JOINS_PER_SECOND} sidecars a second start for the first time, each with a join token, for which it is issued its SVID"
            ),
            &["all in force s", "CPU us/sidecar", "of the simulated"],
        ),
        connecting: Table::new(
            "All sidecars connect at once, each with the SVID that it has",
            &[
                "all in force s",
                "CPU us/sidecar",
                "of the simulated",
                "octets/sidecar",
                "resident KB/sidecar",
                "resident KB/sidecar, all of it",
            ],
        ),
        tenant: Table::new(
            "An edit of one tenant, to the last acknowledgement of its sidecars",
            &["p50 ms", "p99 ms", "CPU ms/edit", "octets/edit"],
        )
        .drawn(&["p99 ms"]),
        platform: Table::new(
            "An edit that concerns all, to the acknowledgement of each sidecar",
            &["p50 ms", "p99 ms", "last ms", "CPU us/sidecar", "of the simulated", "octets/edit"],
        )
        .drawn(&["p99 ms"]),
        restart: Table::new(
            "The control plane is killed (SIGKILL) and started again",
            &["ready s", "all in sync s", "CPU s", "of this after ready", "octets told anew"],
        ),
    };
    let measured = measure(plan, &mut tables);
    let most = name(plan.sidecars.iter().max().copied().unwrap_or_default(), Link::Tls);
    for (what, at_most, table, column) in [
        ("p99 ms from an edit of one tenant to its last ACK", LATEST_MS, &tables.tenant, "p99 ms"),
        ("p99 ms from an edit that concerns all to an ACK", LATEST_MS, &tables.platform, "p99 ms"),
        ("KB of the control plane per sidecar", MOST_KB, &tables.connecting, "resident KB/sidecar"),
    ] {
        report.goal(&format!("{what}, {most}"), at_most, table.values(&most, column).to_vec());
    }
    [tables.joining, tables.connecting, tables.tenant, tables.platform, tables.restart].into_iter().for_each(|table| report.push(table));
    measured
}

fn name(sidecars: usize, link: Link) -> String {
    match link {
        Link::Tls => format!("{sidecars} sidecars"),
        Link::Sockets => format!("{sidecars} sidecars, Unix sockets"),
    }
}

fn measure(plan: Plan, tables: &mut Tables) -> Result<(), Error> {
    let over = |counts: &'static [usize], link| counts.iter().map(move |&count| (count, link));
    let mut sites = Vec::new();
    for (count, link) in over(plan.sidecars, Link::Tls).chain(over(plan.plaintext_sidecars, Link::Sockets)) {
        let mut site = Site::new(count / REPLICAS, link)?;
        join(&name(count, link), &site, tables)?;
        site.kill()?;
        sites.push((name(count, link), site));
    }
    (0..plan.rounds).try_for_each(|_| sites.iter_mut().try_for_each(|(name, site)| round(plan, name, site, tables)))
}

fn group(site: &Site, per_second: Option<u32>) -> Group {
    Group { reach: site.reach.clone(), workloads: site.workloads.clone(), replicas: REPLICAS, per_second }
}

/// Makes members of the sidecars, which have their SVIDs from then on. Without TLS there is nothing to be made.
fn join(name: &str, site: &Site, tables: &mut Tables) -> Result<(), Error> {
    let Reach::Tls(tls) = &site.reach else { return Ok(()) };
    join::give_tokens(&site.own(), tls, site.workloads.iter().flat_map(|workload| [workload; REPLICAS]))?;
    let (_, [seconds, spent, simulated, ..]) = connect(site, &group(site, Some(JOINS_PER_SECOND)))?;
    tables.joining.add(name, &[seconds, spent, simulated]);
    Ok(())
}

/// A new control plane and its sidecars, through everything that is measured.
fn round(plan: Plan, name: &str, site: &mut Site, tables: &mut Tables) -> Result<(), Error> {
    let group = group(site, None);
    let count = group.workloads.len() * group.replicas;
    site.restart()?;
    let (mut sidecars, values) = connect(site, &group)?;
    tables.connecting.add(name, &values);
    tables.tenant.add(name, &edit_tenants(plan.edits, site, &mut sidecars)?);
    tables.restart.add(name, &restart(count, site, &mut sidecars)?);
    // Also the proof that all are connected again.
    tables.platform.add(name, &edit_platform(count, site, &mut sidecars)?);
    site.kill()
}

fn connect(site: &Site, group: &Group) -> Result<(Sidecars, [f64; 6]), Error> {
    let count = group.workloads.len() * group.replicas;
    let (before, cpu) = (kb(site)?, site.cpu()?);
    let (mut sidecars, from) = Sidecars::connect(group)?;
    let acks = sidecars.in_force()?;
    let (spent, simulated) = (site.cpu()? - cpu, sidecars.cpu()?);
    let after = kb(site)?;
    accepted(&acks)?;
    check_held(group, &sidecars.held()?)?;
    site.in_sync(count)?;
    let latest = latencies(from, &acks).into_iter().max().unwrap_or_default();
    let [spent, simulated] = [spent, simulated].map(|time| time.as_secs_f64() * 1e6);
    let each = [spent, simulated, octets(&acks), after - before, after].map(|value| value / count as f64);
    Ok((sidecars, [latest.as_secs_f64(), each[0], each[1], each[2], each[3], each[4]]))
}

/// Each sidecar holds what its workload and its tenant need, and nothing else.
fn check_held(group: &Group, held: &[Vec<String>]) -> Result<(), Error> {
    for (number, held) in held.iter().enumerate() {
        let own = &group.workloads[number / group.replicas];
        let mut wanted = vec!["Issuer/bench".into(), "Platform/platform".into(), format!("Tenant/{own}"), format!("Workload/{own}")];
        if matches!(group.reach, Reach::Tls(_)) {
            wanted.insert(3, "TrustBundle/trust-bundle".into());
        }
        if *held != wanted {
            return Err(Error::Unexpected(format!("a sidecar of {own} holds {held:?}, must hold {wanted:?}")));
        }
    }
    Ok(())
}

/// One after the other, all over the fleet. Whoever is not concerned must be told nothing.
fn edit_tenants(edits: usize, site: &mut Site, sidecars: &mut Sidecars) -> Result<[f64; 4], Error> {
    let (mut latest, mut sent, cpu) = (Vec::new(), 0.0, site.cpu()?);
    for edit in 0..edits {
        let number = edit * site.workloads.len() / edits;
        let concerned: BTreeSet<usize> = (number * REPLICAS..(number + 1) * REPLICAS).collect();
        let from = site.edit_tenant(number)?;
        let acks = sidecars.acknowledged(REPLICAS)?;
        check_told(&acks, &concerned, &format!("Tenant/{}", site.workloads[number]))?;
        sent += octets(&acks);
        latest.extend(latencies(from, &acks).into_iter().max());
    }
    let spent = (site.cpu()? - cpu).as_secs_f64() * 1e3;
    let Latency { p50, p99, .. } = Latency::of(latest);
    Ok([p50 / 1e3, p99 / 1e3, spent / edits as f64, sent / edits as f64])
}

fn edit_platform(count: usize, site: &mut Site, sidecars: &mut Sidecars) -> Result<[f64; 6], Error> {
    let (mut each, mut sent, cpu) = (Vec::new(), 0.0, [site.cpu()?, sidecars.cpu()?]);
    for _ in 0..PLATFORM_EDITS {
        let from = site.edit_platform()?;
        let acks = sidecars.acknowledged(count)?;
        check_told(&acks, &(0..count).collect(), "Platform/platform")?;
        sent += octets(&acks);
        each.extend(latencies(from, &acks));
    }
    let edits = PLATFORM_EDITS as f64;
    let spent = [site.cpu()? - cpu[0], sidecars.cpu()? - cpu[1]].map(|time| time.as_secs_f64() * 1e6 / edits / count as f64);
    let Latency { p50, p99, max, .. } = Latency::of(each);
    Ok([p50 / 1e3, p99 / 1e3, max / 1e3, spent[0], spent[1], sent / edits])
}

/// As long as the sidecars do not know that they have lost the control plane, they do not look for it: the time counts from its end.
fn restart(count: usize, site: &mut Site, sidecars: &mut Sidecars) -> Result<[f64; 5], Error> {
    let from = site.restart()?;
    let (ready, loaded) = (now()? - from, site.cpu()?);
    site.in_sync(count)?;
    let (in_sync, spent) = (now()? - from, site.cpu()?);
    let acks = sidecars.acknowledged(0)?;
    accepted(&acks)?;
    let seconds = [ready, in_sync, spent, spent - loaded].map(|time| time.as_secs_f64());
    Ok([seconds[0], seconds[1], seconds[2], seconds[3], octets(&acks)])
}

/// That these were told of this and nothing else, once each, and nobody else was told anything.
fn check_told(acks: &[Ack], concerned: &BTreeSet<usize>, name: &str) -> Result<(), Error> {
    accepted(acks)?;
    let told: BTreeSet<usize> = acks.iter().map(|ack| ack.sidecar).collect();
    if told == *concerned && acks.len() == told.len() && acks.iter().all(|ack| ack.names == [name]) {
        return Ok(());
    }
    let other = acks.iter().find(|ack| !concerned.contains(&ack.sidecar) || ack.names != [name]);
    let (responses, wanted) = (acks.len(), concerned.len());
    Err(Error::Unexpected(format!("{responses} responses for an edit of {name}, which concerns {wanted} sidecars: {other:?}")))
}

fn accepted(acks: &[Ack]) -> Result<(), Error> {
    match acks.iter().find(|ack| ack.refused) {
        Some(refused) => Err(Error::Unexpected(format!("a sidecar refuses what is to be timed: {refused:?}"))),
        None => Ok(()),
    }
}

fn latencies(from: Duration, acks: &[Ack]) -> Vec<Duration> {
    acks.iter().map(|ack| ack.at.saturating_sub(from)).collect()
}

fn octets(acks: &[Ack]) -> f64 {
    acks.iter().map(|ack| ack.octets).sum::<usize>() as f64
}

/// Resident memory of the control plane, in units of 1,000 octets.
fn kb(site: &Site) -> Result<f64, Error> {
    Ok(site.memory()?.rss as f64 * 1.024)
}
