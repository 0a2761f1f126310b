//! What the zone takes in memory: of a sidecar, of one more tenant that has the same zone, of the control plane, of the peers.

use super::{
    Field, LIMIT,
    ask::{self, NXDOMAIN},
    load::{Questions, Work, saturate},
    ringfence::{FOR_ONE, FOR_TWO, SECOND},
};
use crate::{Error, measure::kib, report::Table};

pub(super) const COLUMNS: [&str; 6] = ["resident", "at most so far", "anonymous", "private, written to", "private, as in files", "shared"];
const QUERIES: usize = 100_000;
/// Rows.
pub(super) const FOR_ONE_TENANT: &str = "a sidecar of one tenant";
pub(super) const FOR_TWO_TENANTS: &str = "a sidecar of two tenants with the same zone";

/// What no other process has: also pages of files, which the kernel may take away. In MB.
pub(super) fn private(table: &Table, row: &str) -> Vec<f64> {
    let [written, of_files] = [COLUMNS[3], COLUMNS[4]].map(|column| table.values(row, column));
    written.iter().zip(of_files).map(|(written, of_files)| (written + of_files) * 1024.0 / 1e6).collect()
}

/// Adds a row of a process.
pub(super) fn tell(name: &str, pid: u32, rows: &mut Table) -> Result<(), Error> {
    let of = |field| kib(pid, "smaps_rollup", field);
    let shared = of("Shared_Clean")? + of("Shared_Dirty")?;
    let kib = [of("Rss")?, kib(pid, "status", "VmHWM")?, of("Anonymous")?, of("Private_Dirty")?, of("Private_Clean")?, shared];
    rows.add(name, &kib.map(|kib| kib as f64));
    Ok(())
}

pub(super) fn measure(field: &Field, questions: &mut Questions, rows: &mut Table) -> Result<(), Error> {
    let row = |what: &str| field.row(what);
    for server in &field.servers {
        // From here on as many questions as the others have been asked.
        saturate(server.address, Work::Mix, questions, QUERIES)?;
        tell(&row(&format!("{}, after 100,000 queries", server.name)), server.pid(), rows)?;
    }
    for (workload, name) in
        [(SECOND, "one more sidecar, of another tenant with the same zone"), (FOR_ONE, FOR_ONE_TENANT), (FOR_TWO, FOR_TWO_TENANTS)]
    {
        let sidecar = field.ringfence.start_sidecar(workload)?;
        ask::first(sidecar.address, &field.zone.last, NXDOMAIN, LIMIT)?;
        tell(&row(name), sidecar.pid(), rows)?;
    }
    field.ringfence.control_plane_pid().map_or(Ok(()), |pid| tell(&row("the control plane"), pid, rows))
}
