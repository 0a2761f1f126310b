//! What the kernel tells of a process (proc(5)).

use std::{fs, time::Duration};

use crate::Error;

/// User and system time of all threads of a process so far, also of those that have ended. In ticks, of 10 ms as a rule: what is
/// measured must take a second or so.
pub(crate) fn cpu(pid: u32) -> Result<Duration, Error> {
    let stat = read(pid, "stat")?;
    // The name, in parentheses, may hold anything. Behind it, utime and stime are the 12th and 13th field.
    let ticks = stat.rsplit_once(") ").and_then(|(_, rest)| {
        let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u64>());
        Some(fields.next()?.ok()? + fields.next()?.ok()?)
    });
    let ticks = ticks.ok_or_else(|| Error::Unexpected(format!("/proc/{pid}/stat: {stat:?}")))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// In KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident, the program's own text and its libraries included.
    pub(crate) rss: u64,
    /// The same, each page divided by those who share it.
    pub(crate) pss: u64,
    /// Written to: what another such process on the same host takes, which shares the rest.
    pub(crate) dirty: u64,
}

pub(crate) fn memory(pid: u32) -> Result<Memory, Error> {
    let rollup = read(pid, "smaps_rollup")?;
    let of = |wanted: &str| kib_of(&rollup, wanted).ok_or_else(|| Error::Unexpected(format!("/proc/{pid}/smaps_rollup has no {wanted}")));
    Ok(Memory { rss: of("Rss")?, pss: of("Pss")?, dirty: of("Private_Dirty")? })
}

/// What `/proc/PID/NAME` says of `wanted`, in KiB.
pub(crate) fn kib(pid: u32, name: &str, wanted: &str) -> Result<u64, Error> {
    kib_of(&read(pid, name)?, wanted).ok_or_else(|| Error::Unexpected(format!("/proc/{pid}/{name} has no {wanted}")))
}

fn kib_of(text: &str, wanted: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
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
