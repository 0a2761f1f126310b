//! What the kernel tells of a process (proc(5)).

use std::{fs, iter::Sum, ops::Add, time::Duration};

use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

use crate::Error;

/// The process and all that it has started: nginx has one that works and one that watches it.
pub(crate) fn tree(pid: u32) -> Result<Vec<u32>, Error> {
    let mut tree = vec![pid];
    let mut at = 0;
    while let Some(&pid) = tree.get(at) {
        let children = read(pid, &format!("task/{pid}/children"))?;
        tree.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    Ok(tree)
}

/// User and system time of all threads of a process so far, also of those that have ended, to the nanosecond (clock_getcpuclockid(3);
/// what /proc tells of it is in steps of 10 ms).
pub(crate) fn cpu(pid: u32) -> Result<Duration, Error> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).and_then(ClockId::now);
    clock.map(Duration::from).map_err(|error| Error::io(format!("CPU time of process {pid}"))(error.into()))
}

/// In KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident, the program's own text and its libraries included.
    pub(crate) rss: u64,
    /// The same, each page divided by those who share it.
    pub(crate) pss: u64,
    /// Written to: what another such process on the same host takes, which shares the rest.
    pub(crate) dirty: u64,
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rss: self.rss + other.rss, pss: self.pss + other.pss, dirty: self.dirty + other.dirty }
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        each.fold(Self::default(), Add::add)
    }
}

pub(crate) fn memory(pid: u32) -> Result<Memory, Error> {
    let rollup = read(pid, "smaps_rollup")?;
    let of = |wanted: &str| {
        let value = rollup.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'));
        let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
        kib.ok_or_else(|| Error::Unexpected(format!("/proc/{pid}/smaps_rollup has no {wanted}")))
    };
    Ok(Memory { rss: of("Rss")?, pss: of("Pss")?, dirty: of("Private_Dirty")? })
}

/// How often threads of the process have been given a processor. Over a time of rest: its wake-ups.
pub(crate) fn switches(pid: u32) -> Result<u64, Error> {
    let tasks = format!("/proc/{pid}/task");
    let mut switches = 0;
    for task in fs::read_dir(&tasks).map_err(Error::io(&tasks))? {
        let path = task.map_err(Error::io(&tasks))?.path().join("status");
        let status = fs::read_to_string(&path).map_err(Error::io(path.display().to_string()))?;
        let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        switches += counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    Ok(switches)
}

fn read(pid: u32, name: &str) -> Result<String, Error> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).map_err(Error::io(path))
}
