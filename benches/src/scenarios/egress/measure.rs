//! Programs beside each other, in turn.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
};

use super::{Meet, World};
use crate::{
    Error,
    load::{
        Latency, Load, Outcome, Protocol,
        tunnel::{Asks, open},
    },
    report::{Report, Table},
    scenarios::{
        Plan, answered,
        bulk::{CONNECTIONS, GIB, PIECE, timed},
        closed, open as at_rate,
    },
    target::Target,
};

/// New connections a second of the open loop.
const RATE: usize = 200;
/// Tunnels whose memory is told.
const HELD: usize = 1_000;
const NEW: [&str; 6] = ["us/connection", "of the relay's", "connections/s", "at 200/s: us/connection", "p50 added", "p99 added"];
const BULK: [&str; 3] = ["CPU s/GiB", "of the relay's", "GiB/s"];

pub(super) struct Comparison<'a> {
    pub(super) plan: Plan,
    pub(super) way: &'static str,
    pub(super) world: &'a World,
    pub(super) targets: &'a [Target],
    pub(super) asks: Asks,
    pub(super) meet: Meet<'a>,
}

impl Comparison<'_> {
    pub(super) fn run(&self, report: &mut Report) -> Result<(), Error> {
        let way = self.way;
        let mut held = Table::new(&format!("1,000 tunnels held, {way}"), &["resident KiB before", "KiB/1,000 tunnels"]);
        for target in self.targets {
            self.hold(target, &mut held)?;
        }
        let mut new = Table::new(&format!("New connections, {way}, 1,000 names, 64 under way"), &NEW).drawn(&NEW[..1]);
        let mut bulk = Table::new(&format!("A download in bulk, {way}, 4 connections"), &BULK).drawn(&BULK[..1]);
        for _ in 0..self.plan.rounds {
            self.open(&mut new)?;
            self.download(&mut bulk)?;
        }
        self.goals(&new, &bulk, report);
        [new, bulk, held].into_iter().for_each(|table| report.push(table));
        Ok(())
    }

    /// The site alone, the relay before it, and the programs: all but the first are met as the workload meets them.
    fn met(&self) -> impl Iterator<Item = (&Target, Asks)> {
        [&self.world.site, &self.world.relay]
            .map(|target| (target, Asks::Tls))
            .into_iter()
            .chain(self.targets.iter().map(|target| (target, self.asks)))
    }

    /// Before anything else, for what was taken once may be used again.
    fn hold(&self, target: &Target, table: &mut Table) -> Result<(), Error> {
        let address = (self.meet)(target)?;
        let before = target.memory()?.rss as f64;
        let names = self.world.egress.names.iter().cycle().take(HELD);
        let tunnels = names.map(|name| open(address, name, self.asks)).collect::<io::Result<Vec<_>>>();
        let tunnels = tunnels.map_err(Error::io(format!("{}: a tunnel to hold", target.name)))?;
        let after = target.memory()?.rss as f64;
        drop(tunnels);
        table.add(&target.name, &[before, after - before]);
        target.forget_log()
    }

    fn open(&self, table: &mut Table) -> Result<(), Error> {
        let (mut floor, mut direct) = (None, None);
        for (target, asks) in self.met() {
            let (each, outcome) = self.timed(target, asks, closed(target, self.plan.saturated, &self.world.egress.names))?;
            let per_second = outcome.answered() as f64 / outcome.seconds;
            let (steady, outcome) = self.timed(target, asks, at_rate(target, self.plan.steady, RATE, &self.world.egress.names))?;
            let Some(direct) = direct else {
                direct = Some(outcome.latency);
                continue;
            };
            let Latency { p50, p99, .. } = outcome.latency;
            let floor = *floor.get_or_insert(each);
            table.add(&target.name, &[each, each / floor, per_second, steady, p50 - direct.p50, p99 - direct.p99]);
            target.forget_log()?;
        }
        Ok(())
    }

    /// CPU microseconds for each connection, and what the load saw.
    fn timed(&self, target: &Target, asks: Asks, load: Load) -> Result<(f64, Outcome), Error> {
        let load = Load { address: (self.meet)(target)?, protocol: Protocol::Tunnel(asks), ..load };
        let before = target.cpu()?;
        let outcome = answered(&target.name, &load, 200)?;
        let spent = target.cpu()? - before;
        Ok((spent.as_secs_f64() * 1e6 / outcome.answered() as f64, outcome))
    }

    fn download(&self, table: &mut Table) -> Result<(), Error> {
        let mut floor = None;
        for (target, asks) in self.met().skip(1) {
            let address = (self.meet)(target)?;
            let tunnel = |name: &String| open(address, name, asks).map_err(Error::io(format!("{}: a tunnel", target.name)));
            let tunnels = self.world.egress.names[..CONNECTIONS].iter().map(tunnel).collect::<Result<Vec<_>, _>>()?;
            let (spent, seconds) = timed(target, || pull(tunnels, self.plan.bulk / CONNECTIONS as u64))?;
            let gib = self.plan.bulk as f64 / GIB;
            let each = spent.as_secs_f64() / gib;
            table.add(&target.name, &[each, each / *floor.get_or_insert(each), gib / seconds]);
        }
        Ok(())
    }

    fn goals(&self, new: &Table, bulk: &Table, report: &mut Report) {
        let Some(ours) = self.targets.iter().find(|target| target.name.starts_with("ringfence")) else { return };
        let way = self.way;
        report.goal(&format!("CPU/connection, {way}, of Envoy's"), 0.5, new.ratio(&ours.name, "envoy", NEW[0]));
        report.goal(&format!("CPU/GiB, {way}, of HAProxy's with splice"), 1.0, bulk.ratio(&ours.name, "haproxy, splice", BULK[0]));
    }
}

/// So many octets over each, all at once.
fn pull(tunnels: Vec<TcpStream>, octets: u64) -> Result<(), Error> {
    let pulled: io::Result<()> = thread::scope(|scope| {
        let threads: Vec<_> = tunnels.into_iter().map(|tunnel| scope.spawn(move || read(tunnel, octets))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a download panicked"))))
    });
    pulled.map_err(Error::io("download"))
}

fn read(mut tunnel: TcpStream, mut octets: u64) -> io::Result<()> {
    tunnel.write_all(&octets.to_be_bytes())?;
    let mut piece = vec![0; PIECE];
    while octets > 0 {
        match tunnel.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => octets -= read as u64,
        }
    }
    Ok(())
}
