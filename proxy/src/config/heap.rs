//! Memory back to the system. The one place where the allocator is spoken to.
#![allow(unsafe_code, reason = "the allocator has no safe interface: see `trim`")]

/// Gives back what is free. A zone comes in pieces of up to a megabyte, the last known good of thousands of tenants is some megabytes, and
/// glibc keeps what they took for the next ones, which may never come, in every sidecar of a host. Takes the locks of the arenas for as long
/// as that takes; not for the path of a request.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time from any thread (malloc_trim(3): MT-Safe), and touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
