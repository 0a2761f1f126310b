//! Work done as another user, on a thread that becomes it.

use std::{io, thread};

use rustix::{
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// The kernel takes whoever makes a socket for its owner. CAP_NET_RAW stays: without it a workload can do less. The calls are the kernel's
/// own, which change one thread; the C library's would change them all.
pub(super) fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let work = || {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_keep_capabilities(true)?;
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        let raw = CapabilitySet::NET_RAW;
        set_capabilities(None, CapabilitySets { effective: raw, permitted: raw, inheritable: CapabilitySet::empty() })?;
        Ok(work())
    };
    let ended = thread::scope(|scope| scope.spawn(work).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
