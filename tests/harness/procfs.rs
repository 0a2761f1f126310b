//! What proc(5) says of a process.

use std::fs;

fn status(path: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn tasks(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.path().display().to_string()).collect()
}

/// Resident memory in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    status(&format!("/proc/{pid}/status"), "VmRSS").expect("the process runs")
}

/// Resident memory that no file backs, in KiB: what a process has taken for itself.
pub fn anonymous_kib(pid: u32) -> u64 {
    status(&format!("/proc/{pid}/status"), "RssAnon").expect("the process runs")
}

/// Open file descriptors.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count()
}

/// Threads that run.
pub fn threads(pid: u32) -> usize {
    tasks(pid).len()
}

/// How often any thread has gone to sleep by itself: each time it was woken for something before.
pub fn voluntary_switches(pid: u32) -> u64 {
    tasks(pid).iter().filter_map(|task| status(&format!("{task}/status"), "voluntary_ctxt_switches")).sum()
}

/// Processes that this one started and that still run.
pub fn children(pid: u32) -> Vec<u32> {
    let children = |task: &String| fs::read_to_string(format!("{task}/children")).unwrap_or_default();
    tasks(pid).iter().flat_map(|task| children(task).split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The arguments of a process.
pub fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split_terminator('\0').map(str::to_owned).collect()
}
