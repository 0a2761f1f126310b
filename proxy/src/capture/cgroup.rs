//! Where the cgroup v2 hierarchy is: at the root of `/sys/fs/cgroup`, or beside the older hierarchies.

use std::{fs, path::PathBuf};

use super::CaptureError;

pub(super) fn root() -> Result<PathBuf, CaptureError> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").map_err(CaptureError::io("mounts"))?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let mounted = mounts.find_map(|mut fields| Some((fields.nth(1)?, fields.next()?)).filter(|(_, kind)| *kind == "cgroup2"));
    mounted.map(|(path, _)| path.into()).ok_or_else(|| CaptureError::Refused("--cgroup: there is no cgroup v2 hierarchy here".into()))
}
