//! Who has nothing to do takes little memory and no time.

use std::{sync::mpsc, time::Duration};

use ringfence_tests::{Acme, Site, Up, Upstream, procfs};

/// An optimised build's promise, in KiB.
const RESIDENT: u64 = 8 * 1024;

/// How often a process is woken in each of three quiet seconds.
///
/// That nothing happens can only be seen by letting time pass: the one place where a test waits by the clock. What was begun before (a
/// log line, a closed connection) may end in the first of the seconds, and not in them all.
fn wakeups(pid: u32) -> [u64; 3] {
    let (_nobody, quiet) = mpsc::channel::<()>();
    [(); 3].map(|()| {
        let before = procfs::voluntary_switches(pid);
        let _ = quiet.recv_timeout(Duration::from_secs(1));
        procfs::voluntary_switches(pid) - before
    })
}

#[test]
fn an_idle_sidecar_takes_little_memory_and_is_never_woken() {
    let acme = Acme::start();
    assert_eq!(acme.get("/").send().status, 200);
    let pid = acme.sidecar.process.pid();
    let resident = procfs::resident_kib(pid);
    println!("an idle sidecar takes {resident} KiB");
    if !cfg!(debug_assertions) {
        assert!(resident < RESIDENT, "{resident} KiB");
    }
    let wakeups = wakeups(pid);
    println!("an idle sidecar is woken so often in three seconds: {wakeups:?}");
    assert!(wakeups.contains(&0), "{wakeups:?}");
    assert_eq!(acme.get("/").send().status, 200);
}

#[test]
fn an_idle_control_plane_is_never_woken() {
    let upstream = Upstream::start();
    let site = Site::acme(upstream.address);
    let up = Up::start(&site.dir());
    let wakeups = wakeups(up.process.pid());
    println!("an idle control plane is woken so often in three seconds: {wakeups:?}");
    assert!(wakeups.contains(&0), "{wakeups:?}");
}
