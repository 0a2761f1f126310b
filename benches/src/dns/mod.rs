//! DNS with policy zones of up to a million rules: the sidecar beside other resolvers with the same zone.

mod ask;
mod cost;
mod edits;
mod load;
mod memory;
mod peers;
mod ringfence;
mod server;
mod upstream;
mod zone;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub(crate) use self::upstream::run as upstream;
use self::{
    ask::NXDOMAIN,
    load::{Questions, Work},
    peers::Peer,
    ringfence::{LOGGING, PLAIN, Ringfence},
    server::Server,
    zone::{Changing, Names, ZoneText},
};
use crate::{
    Error,
    report::{Report, Table},
    scenarios::Plan,
    target::Target,
};

/// Within which a server must have loaded its zone.
const LIMIT: Duration = Duration::from_secs(180);
/// Names that are asked for: one for each so many rules, and such as no rule is about. All of the latter fit into every cache.
const REFUSED_NAMES: usize = 10_000;
const CACHED_NAMES: usize = 1_000;

/// How much is measured.
struct Extent {
    /// Rules of the zones; the last is the one that is edited.
    sizes: &'static [usize],
    rounds: usize,
    /// Of one run in a closed loop.
    queries: usize,
    /// One run in an open loop.
    calm: Duration,
    starts: usize,
    edits: usize,
    /// Rules of the largest zone that is given to others than Unbound too.
    all_peers_up_to: usize,
}

impl Extent {
    const FULL: Self = Self {
        sizes: &[10_000, 100_000, 1_000_000],
        rounds: 5,
        queries: 60_000,
        calm: Duration::from_secs(1),
        starts: 2,
        edits: 2,
        all_peers_up_to: usize::MAX,
    };
    const QUICK: Self = Self {
        sizes: &[10_000, 100_000],
        rounds: 3,
        queries: 20_000,
        calm: Duration::from_millis(200),
        starts: 1,
        edits: 1,
        all_peers_up_to: 10_000,
    };

    fn of(plan: Plan) -> Self {
        if plan.rounds < Plan::FULL.rounds { Self::QUICK } else { Self::FULL }
    }
}

/// The servers with one zone.
struct Field {
    rules: usize,
    zone: ZoneText,
    // Ends before what it is connected to.
    servers: Vec<Server>,
    ringfence: Ringfence,
    dir: TempDir,
    /// Peers that are not measured, and why.
    left_out: Vec<String>,
}

pub(crate) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let extent = Extent::of(plan);
    let upstream = Target::role("upstream", &["dns-upstream"])?;
    let names = Names::find();
    let mut starts = Table::new("DNS: from exec to the first right NXDOMAIN for the zone's last rule", &["ms"]);
    let mut memory = Table::new("DNS: memory, KiB", &memory::COLUMNS);
    let mut effect = Table::new("DNS: from an edit of one rule to its effect", &edits::EFFECT);
    let mut felt = Table::new("DNS: 2,000 queries/s of the mix while the zone is replaced, us", &edits::FELT);
    let mut costs = cost::WORKS.map(|work| {
        let title = match work {
            Work::Refused => "DNS: names that a rule refuses; latency in us at 10,000 queries/s",
            Work::Cached => "DNS: names that no rule is about, in the cache; latency in us at 10,000 queries/s",
            Work::Mix => "DNS: 30 % refused, 69 % in the cache, 1 % new; latency in us at 10,000 queries/s",
        };
        Table::new(title, &cost::COLUMNS).drawn(&[cost::CPU])
    });
    for &rules in extent.sizes {
        let zone = ZoneText::new(&names, rules, REFUSED_NAMES);
        let cached: Vec<String> = (0..CACHED_NAMES).map(|number| format!("host-{number}.kept.bench.example")).collect();
        let mut questions = Questions::new(&zone.refused, &cached)?;
        let field = Field::start(rules, zone, upstream.address, &extent, &mut starts, &mut memory)?;
        eprintln!("{} rules: all servers run and enforce them", thousands(rules));
        field.left_out.iter().for_each(|what| report.leave_out(what.clone()));
        memory::measure(&field, &mut questions, &mut memory)?;
        cost::measure(&field, &extent, &mut questions, &mut costs)?;
        if extent.sizes.last() == Some(&rules) {
            edits::measure(&field, &extent, &mut questions, &mut effect, &mut felt)?;
        }
    }
    for &rules in extent.sizes {
        let row = |server: &str| row(server, rules);
        for (work, table) in cost::WORKS.iter().zip(&costs) {
            let what = format!("DNS, {work:?}: CPU/query of Unbound's, {} rules", thousands(rules));
            report.goal(&what, 0.7, table.ratio(&row("ringfence"), &row("unbound"), cost::CPU));
        }
    }
    let largest = extent.sizes.last().copied().unwrap_or_default();
    let edited = effect.values(&row("ringfence", largest), edits::SECONDS).to_vec();
    report.goal(&format!("DNS: seconds from an edit to its effect, {} rules", thousands(largest)), 2.0, edited);
    let private = |what: &str| memory::private(&memory, &row(what, largest));
    let all = private("ringfence, after 100,000 queries");
    let more: Vec<f64> = private(memory::FOR_TWO_TENANTS).iter().zip(private(memory::FOR_ONE_TENANT)).map(|(two, one)| two - one).collect();
    report.goal(&format!("DNS: private memory in MB, {} rules", thousands(largest)), 20.0, all);
    report.goal("DNS: of that for a second tenant of the sidecar, in MB", 2.0, more);
    costs.into_iter().chain([starts, memory, effect, felt]).for_each(|table| report.push(table));
    Ok(())
}

impl Field {
    /// Starts each several times, and checks those that stay.
    fn start(
        rules: usize,
        zone: ZoneText,
        upstream: SocketAddr,
        extent: &Extent,
        starts: &mut Table,
        memory: &mut Table,
    ) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let ringfence = Ringfence::new(dir.path(), upstream)?;
        let mut field = Self { rules, zone, servers: Vec::new(), ringfence, dir, left_out: Vec::new() };
        field.start_ringfence(extent, starts, memory)?;
        for peer in Peer::all(field.dir.path(), upstream)? {
            if peer.name != "unbound" && rules > extent.all_peers_up_to {
                field.left_out.push(format!("DNS: {}: this run is a quick one", field.row(peer.name)));
                continue;
            }
            field.start_peer(&peer, extent, starts)?;
        }
        field.servers.iter().try_for_each(|server| server.check(&field.zone))?;
        Ok(field)
    }

    /// What is told of a zone of this size.
    fn row(&self, what: &str) -> String {
        row(what, self.rules)
    }

    fn start_ringfence(&mut self, extent: &Extent, starts: &mut Table, memory: &mut Table) -> Result<(), Error> {
        self.zone.write(&self.ringfence.zone(), 1, Changing::Refuses)?;
        for _ in 0..extent.starts {
            self.ringfence.forget(PLAIN)?;
            let started = Instant::now();
            self.ringfence.start_control_plane()?;
            let sidecar = self.ringfence.start_sidecar(PLAIN)?;
            self.right(&sidecar)?;
            starts.add(&self.row("ringfence, control plane and sidecar from nothing"), &[started.elapsed().as_secs_f64() * 1e3]);
            memory::tell(&self.row("ringfence, the zone just received"), sidecar.pid(), memory)?;
            sidecar.process.end()?;
            self.ringfence.stop_control_plane()?;
        }
        for _ in 0..extent.starts {
            let started = Instant::now();
            let sidecar = self.ringfence.start_sidecar(PLAIN)?;
            self.right(&sidecar)?;
            starts.add(&self.row("ringfence, sidecar with its last known good"), &[started.elapsed().as_secs_f64() * 1e3]);
            memory::tell(&self.row("ringfence, the zone as it was on disk"), sidecar.pid(), memory)?;
            sidecar.process.end()?;
        }
        self.ringfence.start_control_plane()?;
        for workload in [PLAIN, LOGGING] {
            let sidecar = self.ringfence.start_sidecar(workload)?;
            self.right(&sidecar)?;
            self.servers.push(sidecar);
        }
        Ok(())
    }

    fn start_peer(&mut self, peer: &Peer, extent: &Extent, starts: &mut Table) -> Result<(), Error> {
        self.zone.write(&peer.zone(), 1, Changing::Refuses)?;
        let mut running = None;
        for _ in 0..extent.starts {
            // The one before must have gone: its address is used again.
            drop(running.take());
            let started = Instant::now();
            let Some(server) = peer.start()? else {
                self.left_out.push(format!("DNS: {}: it is not installed", self.row(peer.name)));
                return Ok(());
            };
            self.right(&server)?;
            starts.add(&self.row(server.name), &[started.elapsed().as_secs_f64() * 1e3]);
            running = Some(server);
        }
        self.servers.extend(running);
        Ok(())
    }

    /// Waits until it knows the zone's last rule.
    fn right(&self, server: &Server) -> Result<(), Error> {
        ask::first(server.address, &self.zone.last, NXDOMAIN, LIMIT)
            .map(drop)
            .map_err(|error| Error::Unexpected(format!("{}: {error}", server.name)))
    }
}

fn row(what: &str, rules: usize) -> String {
    format!("{what}, {} rules", thousands(rules))
}

/// With a comma after each three digits from the right.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let separated = digits.char_indices().map(|(at, digit)| {
        let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
        format!("{}{digit}", if comma { "," } else { "" })
    });
    separated.collect()
}
