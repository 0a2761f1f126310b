//! Many tenants behind one workload: what each further one costs the others.

use super::{LIMIT, Plan, answered, closed, field::Field};
use crate::{
    Error,
    load::Load,
    peers::{Program, envoy, ringfence::Installation},
    policy::Algorithm,
    report::Report,
    target::Target,
};

/// Tokens that are used in turn, however many tenants they are of. Fewer than any of the programs remembers.
const TOKENS: usize = 4_000;
/// Tenants whose callers ask where most tenants are quiet. Ringfence shares no connection to the workload between tenants: where many ask in
/// turn, most find only a socket at rest, on which hyper begins anew. That is told apart from what it costs to know many.
const BUSY: usize = 32;
/// What a process may take that serves the most of them.
const MOST_KIB: f64 = 40.0 * 1024.0;

/// A program that serves so many tenants.
struct Served {
    name: String,
    target: Target,
    /// All tenants in turn, and `BUSY` of them.
    heads: Vec<String>,
    busy: Vec<String>,
    /// From exec to the first right answer, in ms.
    started: f64,
}

impl Served {
    fn works(&self) -> impl Iterator<Item = (&Self, String, &[String])> {
        let all = (self, self.name.clone(), &*self.heads);
        let busy = (!self.busy.is_empty()).then(|| (self, format!("{}, {BUSY} of them ask", self.name), &*self.busy));
        [all].into_iter().chain(busy)
    }
}

pub(super) fn run(plan: Plan, report: &mut Report) -> Result<(), Error> {
    let field = Field::new()?;
    let (dir, upstream, issuer) = (field.dir.path(), field.origin.address, &field.policy.issuer);
    // They end with this function.
    let mut installations = Vec::new();
    let mut served = Vec::new();
    for &count in plan.tenants {
        let tenants: Vec<String> = (0..count).map(|number| format!("tenant-{number}")).collect();
        let heads = heads(&field, &tenants)?;
        let installation = Installation::tenants(dir, upstream, issuer, &tenants)?;
        let programs = [("ringfence", Some(installation.sidecar()?)), ("envoy", envoy::tenants(dir, upstream, issuer, &tenants)?)];
        installations.push(installation);
        for (name, program) in programs {
            match program.map(|program| start(&field, program, &tenants, &heads)) {
                Some(Ok(started)) => served.push(started),
                Some(Err(error)) => report.leave_out(error.to_string()),
                None => report.leave_out(format!("{name} is not installed")),
            }
        }
    }
    measure(plan, &served, report)
}

/// A request for each caller; the callers are spread over the tenants.
fn heads(field: &Field, tenants: &[String]) -> Result<Vec<String>, Error> {
    let request = |(caller, tenant): (usize, &String)| field.policy.request(Algorithm::Es256, tenant, &format!("caller-{caller}"));
    tenants.iter().cycle().take(TOKENS).enumerate().map(request).collect()
}

fn start(field: &Field, program: Program, tenants: &[String], heads: &[String]) -> Result<Served, Error> {
    let (target, first) = program.start_until_right(&heads[0])?;
    target.forget_log()?;
    field.policy.check_tenants(&target, tenants)?;
    let load = Load { requests: heads.len(), ..closed(&target, LIMIT, heads) };
    answered(&target.name, &load, 200)?;
    let name = format!("{}, {} tenants", target.name, tenants.len());
    let busy = if tenants.len() > BUSY {
        heads.iter().enumerate().filter(|(at, _)| at % tenants.len() < BUSY).map(|(_, head)| head.clone()).collect()
    } else {
        Vec::new()
    };
    Ok(Served { name, target, heads: heads.to_vec(), busy, started: first.as_secs_f64() * 1e3 })
}

fn measure(plan: Plan, served: &[Served], report: &mut Report) -> Result<(), Error> {
    let columns = ["us/request", "of that with the fewest", "requests/s", "resident KiB", "written KiB", "first right answer ms"];
    let table = report.table("Tenants behind one workload, 4,000 remembered tokens, 64 requests under way", &columns);
    for _ in 0..plan.rounds {
        let mut fewest = Vec::new();
        for (one, name, heads) in served.iter().flat_map(Served::works) {
            let before = one.target.cpu()?;
            let outcome = answered(&name, &closed(&one.target, plan.saturated, heads), 200)?;
            let each = (one.target.cpu()? - before).as_secs_f64() * 1e6 / outcome.answered() as f64;
            let least = match fewest.iter().find(|(kind, _)| *kind == one.target.kind) {
                Some((_, least)) => *least,
                None => {
                    fewest.push((one.target.kind, each));
                    each
                }
            };
            let memory = one.target.memory()?;
            let rate = outcome.answered() as f64 / outcome.seconds;
            table.add(&name, &[each, each / least, rate, memory.rss as f64, memory.dirty as f64, one.started]);
            one.target.forget_log()?;
        }
    }
    let most = plan.tenants.iter().max().map_or(0, |most| *most);
    let name = format!("ringfence, {most} tenants");
    let (flat, resident) = (table.values(&name, columns[1]).to_vec(), table.values(&name, columns[3]).to_vec());
    report.goal(&format!("CPU/request with {most} tenants, of that with one"), 1.1, flat);
    report.goal(&format!("resident KiB with {most} tenants"), MOST_KIB, resident);
    Ok(())
}
