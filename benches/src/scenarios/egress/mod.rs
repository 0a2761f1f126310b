//! Out to a thousand allowed names, by CONNECT and by captured TLS: new connections, tunnels that are held, and bytes in bulk.

mod check;
mod measure;

use std::net::SocketAddr;

use tempfile::TempDir;

use self::{check::enforces, measure::Comparison};
use super::Plan;
use crate::{
    Error,
    load::tunnel::Asks,
    names::names,
    namespace::{ELSEWHERE, Namespace, redirect},
    peers::{Program, egress::Egress},
    process::free_address,
    report::Report,
    target::Target,
};

const NAMES: usize = 1_000;

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    by_connect(plan, report)?;
    match Namespace::new() {
        Ok(namespace) => namespace.inside(|| captured(plan, report)),
        Err(error) => {
            report.leave_out(format!("captured TLS: {error}"));
            Ok(())
        }
    }
}

/// What the names lead to, and who says so.
struct World {
    dir: TempDir,
    site: Target,
    relay: Target,
    egress: Egress,
    /// Ends with this.
    _dns: Target,
}

impl World {
    fn new() -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let (site, dns) = (Target::role("site alone", &["site"])?, Target::role("DNS", &["names"])?);
        let relay = Target::relay(site.address)?;
        let egress = Egress { names: names(NAMES), upstream: site.address, dns: dns.address, dns_listen: free_address()? };
        Ok(Self { dir, site, relay, egress, _dns: dns })
    }

    /// Started, and proven to enforce what they are timed for. Who is not installed, does not start or does not enforce it is left out.
    fn start(&self, programs: Vec<(&str, Option<Program>)>, asks: Asks, meet: Meet<'_>, report: &mut Report) -> Vec<Target> {
        let start = |(name, program): (&str, Option<Program>)| {
            let program = program.ok_or_else(|| Error::Unexpected(format!("{name} is not installed")))?;
            let target = program.start()?;
            enforces(&target, meet(&target)?, asks, &self.egress.names)?;
            Ok(target)
        };
        let started = programs.into_iter().filter_map(|peer| start(peer).map_err(|error: Error| report.leave_out(error.to_string())).ok());
        started.collect()
    }
}

/// Makes ready to ask a program, and tells at which address it is asked.
type Meet<'a> = &'a dyn Fn(&Target) -> Result<SocketAddr, Error>;

fn by_connect(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let world = World::new()?;
    let installation = world.egress.installation(world.dir.path(), "none")?;
    let mut programs = vec![("ringfence", Some(installation.outbound()?))];
    programs.extend(world.egress.by_connect(world.dir.path())?);
    let asks = Asks::Connect { port: world.site.address.port() };
    let meet = |target: &Target| Ok(target.address);
    let targets = world.start(programs, asks, &meet, report);
    Comparison { plan, way: "CONNECT", world: &world, targets: &targets, asks, meet: &meet }.run(report)
}

/// All programs are met in the same way: the workload goes to an address outside, and the kernel leads it to the program.
fn captured(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let world = World::new()?;
    let installation = world.egress.installation(world.dir.path(), "redirect")?;
    let mut sidecar = installation.outbound()?;
    sidecar.name = "ringfence, captured".into();
    // It does not listen before it is told that its workload is captured.
    redirect(sidecar.address, world.egress.dns_listen, &installation.capture_dir())?;
    let mut programs = vec![("ringfence", Some(sidecar))];
    programs.extend(world.egress.by_sni(world.dir.path())?);
    let state = world.dir.path().join("redirect");
    let meet = |target: &Target| {
        redirect(target.address, world.egress.dns_listen, &state)?;
        Ok(SocketAddr::from((ELSEWHERE, world.site.address.port())))
    };
    let targets = world.start(programs, Asks::Tls, &meet, report);
    Comparison { plan, way: "captured TLS", world: &world, targets: &targets, asks: Asks::Tls, meet: &meet }.run(report)
}
